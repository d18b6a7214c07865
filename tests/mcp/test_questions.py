"""A tool asks its user in the middle, says how far it is, and what it does; over HTTP in both generations and stdio."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import httpx
import mcp_types as types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from agent_server import Conflict, new_id
from agent_server.caller import Caller
from agent_server.calls.call import Runtime, call_tool
from agent_server.db import Database, storable
from agent_server.identity.credentials import issue_key
from agent_server.identity.resolver import resolve_caller
from agent_server.mcp import OpenCalls, mcp_app
from agent_server.mcp.back_channel import find_answer, mark_session, read_marks
from agent_server.questions import Answers, Asked, Inquiry, Reply, form_schema
from agent_server.settings import Settings
from agent_server.signals import QuestionAnswered, Signals
from agent_server.tool import Tool
from tests.conftest import everything, fetch
from tests.mcp.asking_tools import ASKING, Runs, order_fins
from tests.mcp.conftest import HELLO, Mode, Notebook, serve_mcp
from tests.mcp.notes import TOOLS, Gate, Notes

FORM: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}}


@pytest.fixture
def tools() -> Mapping[str, Tool[..., Any]]:
    return {**TOOLS, **ASKING}


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def resources(runs: Runs, gate: Gate) -> Mapping[type[Any], Any]:
    return {Runs: runs, Gate: gate}


class User:
    """The user of a client, who gives these answers one after the other."""

    def __init__(self, *answers: types.ElicitResult) -> None:
        self.answers, self.asked = list(answers), list[types.ElicitRequestParams]()

    async def answer(self, context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        self.asked.append(params)
        return self.answers.pop(0)


def yes(**content: Any) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content=content)


def text_of(result: Any) -> str:
    assert isinstance(result.content[0], types.TextContent)
    return result.content[0].text


async def test_a_tool_asks_and_goes_on_with_the_answers(notebook: Notebook, mode: Mode) -> None:
    user = User(yes(size=42, color="blue"), yes(sure=True))
    async with notebook.client(mode, elicitation_callback=user.answer) as client:
        result = await client.call_tool("order_fins", {"pairs": 2})
    assert text_of(result) == "2 blue fins of 42"
    assert [asked.message for asked in user.asked] == ["Which size?", "Order 2 of 42?"]
    assert isinstance(user.asked[0], types.ElicitRequestFormParams)
    assert user.asked[0].requested_schema == {
        "type": "object",
        "properties": {
            "size": {
                "type": "integer",
                "title": "Size",
                "description": "Your size in Europe.",
                "minimum": 30,
                "maximum": 50,
            },
            "color": {"type": "string", "title": "Color", "enum": ["red", "blue"], "default": "red"},
            "name": {"type": "string", "title": "Name"},
        },
        "required": ["size"],
    }
    # What the runs before the last one wrote is rolled back.
    assert await notebook.notes() == ["begun", "2 blue fins of 42"]
    assert await fetch(notebook.database.url, "select count(*) from client_question") == [(0,)]


@pytest.mark.parametrize(("action", "says"), [("decline", "declined"), ("cancel", "dismissed")])
async def test_a_tool_is_told_that_its_user_said_no(
    notebook: Notebook, mode: Mode, action: Literal["decline", "cancel"], says: str
) -> None:
    user = User(types.ElicitResult(action=action))
    async with notebook.client(mode, elicitation_callback=user.answer) as client:
        assert text_of(await client.call_tool("order_fins", {"pairs": 2})) == says


async def test_an_answer_that_the_form_does_not_take_is_an_error_without_its_value(
    notebook: Notebook, mode: Mode
) -> None:
    user = User(yes(size=999))
    async with notebook.client(mode, elicitation_callback=user.answer) as client:
        result = await client.call_tool("order_fins", {"pairs": 2})
    assert result.is_error
    assert "invalid_input: The user's answer cannot be used: size: " in text_of(result)
    assert "999" not in text_of(result)
    assert await notebook.notes() == []


async def test_a_tool_asks_to_open_an_address_and_its_runs_have_one_key(
    notebook: Notebook, mode: Mode, runs: Runs
) -> None:
    user = User(types.ElicitResult(action="accept"))
    async with notebook.client(mode, elicitation_callback=user.answer) as client:
        result = await client.call_tool("pay", {})
    assert isinstance(user.asked[0], types.ElicitRequestURLParams)
    assert user.asked[0].url == "https://bank.example/pay"
    assert result.structured_content == {"answer": "Accepted", "key": runs.keys[0]}
    assert runs.keys == [runs.keys[0]] * 2


async def test_a_client_that_cannot_be_asked_is_told_so(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        for name, arguments in {"order_fins": {"pairs": 2}, "pay": {}}.items():
            if mode == "modern":
                with pytest.raises(MCPError, match="The tool has to ask its user") as refused:
                    await client.call_tool(name, arguments)
                kind = "form" if name == "order_fins" else "url"
                needed = {"code": "conflict", "requiredCapabilities": {"elicitation": {kind: {}}}}
                assert (refused.value.error.code, refused.value.error.data) == (-32021, needed)
                continue
            result = await client.call_tool(name, arguments)
            assert result.is_error
            assert text_of(result).startswith("conflict: The tool has to ask its user")
    assert await notebook.notes() == []


async def test_who_reads_no_stream_is_told_so(notebook: Notebook) -> None:
    session = await begin(notebook)
    headers: dict[str, str | None] = {"Mcp-Session-Id": session, "Accept": "application/json"}
    answer = (await notebook.send(body("order_fins", pairs=2), headers)).json()
    assert answer["result"]["content"][0]["text"].startswith("conflict: The tool has to ask its user")


async def test_where_nobody_can_be_asked_the_error_says_where_one_can(runtime: Runtime, me: Caller) -> None:
    for surface in ("rest", "agent", "cli"):
        with pytest.raises(Conflict, match="cannot do so here: call it over MCP"):
            await call_tool(runtime, order_fins, {"pairs": 1}, caller=me, surface=surface)


@pytest.fixture
def runtime(database: Database) -> Runtime:
    return Runtime(settings=Settings(), database=database)


async def test_a_client_hears_of_progress_and_of_what_the_tool_says(notebook: Notebook, mode: Mode) -> None:
    heard: list[tuple[float, float | None, str | None]] = []
    logged: list[tuple[str, Any]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        logged.append((params.level, params.data))

    async with notebook.client(mode, logging_callback=log) as client:
        result = await client.call_tool("work", {}, progress_callback=hear)
    assert text_of(result) == "done"
    assert heard == [(1, 2, "part 1"), (2, 2, "part 2")]
    # Of the protocol of 2026 only who asks with the request hears of it.
    assert logged == ([("info", "half done"), ("warning", "odd")] if mode == "legacy" else [])


async def test_a_client_of_2026_hears_what_it_asked_for(notebook: Notebook) -> None:
    answer = await notebook.post(
        "modern", "tools/call", {"name": "work", "arguments": {}}, meta={types.LOG_LEVEL_META_KEY: "warning"}
    )
    assert [message["params"]["data"] for message in messages(answer.text) if "params" in message] == ["odd"]


async def test_a_client_that_wants_progress_hears_that_a_silent_call_goes_on(
    notebook: Notebook, mode: Mode, gate: Gate
) -> None:
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)
        gate.open.set()

    async with notebook.client(mode) as client:
        assert text_of(await client.call_tool("keep_silent", {}, progress_callback=hear)) == "done"
    assert heard


async def test_what_a_question_quotes_hides_nothing(notebook: Notebook, mode: Mode) -> None:
    user = User(types.ElicitResult(action="decline"))
    async with notebook.client(mode, elicitation_callback=user.answer) as client:
        await client.call_tool("quote", {"text": "a\u202eb\x1b[2J\nc"})
    assert user.asked[0].message == "About a\\u202eb\\u001b[2J\nc?"


async def test_progress_is_not_sent_to_who_did_not_ask_for_it(notebook: Notebook, mode: Mode) -> None:
    answer = await notebook.post(mode, "tools/call", {"name": "work", "arguments": {}})
    assert "notifications/progress" not in answer.text


# By hand: the wire of both generations, and what is refused.


def messages(stream: str) -> Sequence[dict[str, Any]]:
    return [json.loads(line[5:]) for line in stream.splitlines() if line.startswith("data:") and line[5:].strip()]


def body(name: str, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


async def begin(notebook: Notebook, capabilities: dict[str, Any] = FORM) -> str:
    answer = await notebook.post("legacy", "initialize", {**HELLO, "capabilities": capabilities})
    return str(answer.headers["Mcp-Session-Id"])


@contextlib.asynccontextmanager
async def open_question(
    notebook: Notebook, session: str, name: str, **arguments: Any
) -> AsyncIterator[tuple[dict[str, Any], AsyncIterator[dict[str, Any]]]]:
    """The first question on the stream of a call, and the messages after it."""
    headers = {
        "Authorization": f"Bearer {notebook.key}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2025-11-25",
        "Mcp-Session-Id": session,
    }
    async with (
        asyncio.timeout(30),
        httpx.AsyncClient(timeout=30) as http,
        http.stream("POST", notebook.url, json=body(name, **arguments), headers=headers) as response,
    ):
        lines = response.aiter_lines()
        following = (json.loads(line[5:]) async for line in lines if line.startswith("data:") and line[5:].strip())
        question = await anext(following)
        assert question["method"] == "elicitation/create"
        yield question, following


def reply(question: dict[str, Any], **content: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": content}}


async def test_an_older_client_that_can_ask_is_asked_before_something_is_lost(notebook: Notebook) -> None:
    session = await begin(notebook)
    async with open_question(notebook, session, "drop_note", text="fins") as (question, following):
        assert question["params"]["message"] == 'Drop note (text: "fins")? This cannot be undone.'
        assert await notebook.notes() == []
        sent = await notebook.send(reply(question, confirm=True), {"Mcp-Session-Id": session})
        assert sent.status_code == 202
        (result,) = [message async for message in following]
    assert result["result"]["structuredContent"]["text"] == "dropped: fins"
    assert await notebook.notes() == ["dropped: fins"]


@pytest.mark.parametrize(
    "answer",
    [
        {"result": {"action": "decline"}},
        {"result": {"action": "cancel"}},
        {"result": {"action": "accept"}},
        {"result": {"action": "accept", "content": {"confirm": "true"}}},
        {"result": {"action": "accept", "content": {"confirm": False}}},
        {"result": {}},
        {"error": {"code": -1, "message": "no"}},
    ],
    ids=str,
)
async def test_without_a_plain_yes_of_an_older_client_nothing_is_done(
    notebook: Notebook, answer: dict[str, Any]
) -> None:
    session = await begin(notebook)
    async with open_question(notebook, session, "drop_note", text="fins") as (question, following):
        await notebook.send({"jsonrpc": "2.0", "id": question["id"], **answer}, {"Mcp-Session-Id": session})
        (result,) = [message async for message in following]
    assert result["result"]["isError"]
    assert "nothing was done" in result["result"]["content"][0]["text"]
    assert await notebook.notes() == []


async def test_a_question_that_has_changed_is_put_to_an_older_client_anew(notebook: Notebook) -> None:
    session = await begin(notebook)
    user = User(yes(confirm=True), yes(confirm=True))

    async def change(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        if not user.asked:
            await notebook.post("legacy", "tools/call", {"name": "add_note", "arguments": {"text": "mask"}})
        return await user.answer(context, params)

    async with notebook.client("legacy", elicitation_callback=change) as client:
        result = await client.call_tool("drop_notes", {})
    assert not result.is_error
    assert "mask" not in user.asked[0].message
    assert "mask" in user.asked[1].message
    assert session  # another one of the same caller's is not in the way


@pytest.mark.parametrize("capabilities", [{}, {"elicitation": {"url": {}}}], ids=str)
async def test_an_older_client_that_declared_no_form_has_its_call_made(
    notebook: Notebook, capabilities: dict[str, Any]
) -> None:
    session = await begin(notebook, capabilities)
    answer = await notebook.send(body("drop_note", text="fins"), {"Mcp-Session-Id": session})
    assert '"isError":true' not in answer.text
    assert await notebook.notes() == ["dropped: fins"]


async def test_the_answer_of_another_caller_is_not_taken(notebook: Notebook) -> None:
    async with everything(notebook.database) as session_of_database:
        key = (await issue_key(session_of_database, new_id(), name="other", scopes=["*"])).text
    session = await begin(notebook)
    async with open_question(notebook, session, "drop_note", text="fins") as (question, following):
        stranger = replace(notebook, key=key)
        for other in (session, await begin(stranger)):
            sent = await stranger.send(reply(question, confirm=True), {"Mcp-Session-Id": other})
            assert sent.status_code == 202  # as to an answer that nobody waits for
        for id in ("00000000-0000-7000-8000-000000000000", "x", 7, None):
            await notebook.send({**reply(question, confirm=True), "id": id}, {"Mcp-Session-Id": session})
        assert await fetch(notebook.database.url, "select answer from client_question") == [(None,)]
        assert await notebook.notes() == []
        await notebook.send(reply(question, confirm=False), {"Mcp-Session-Id": session})
        assert len([message async for message in following]) == 1
        await notebook.send(reply(question, confirm=True), {"Mcp-Session-Id": session})
    assert await notebook.notes() == []


async def test_an_answer_that_reaches_another_replica_finds_its_call(
    database: Database,
    settings: Settings,
    resources: Mapping[type[Any], Any],
    notebook: Notebook,
    tools: Mapping[str, Tool[..., Any]],
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        replicas = []
        for _ in range(2):
            signals = Signals(database, new_id())
            calls = OpenCalls(tell_answered=partial(_tell, signals))
            signals.question_answered = calls.wake_here
            await signals.start()
            stack.push_async_callback(signals.close)
            app = mcp_app(
                Runtime(settings=settings, database=database, resources=resources),
                tools,
                name="notes",
                version="1.0",
                instructions="",
                resolve=partial(resolve_caller, database),
                calls=calls,
            )
            replicas.append(replace(notebook, url=await stack.enter_async_context(serve_mcp(app))))
        first, second = replicas
        session = await begin(second)
        async with open_question(first, session, "order_fins", pairs=2) as (question, following):
            await second.send(reply(question, size=40), {"Mcp-Session-Id": session})
            await second.send(reply(await anext(following), sure=True), {"Mcp-Session-Id": session})
            result = await anext(following)
    assert result["result"]["content"][0]["text"] == "2 red fins of 40"


def _tell(signals: Signals, id: Any) -> None:
    signals.send(QuestionAnswered(id))


async def call_modern(notebook: Notebook, key: str | None = None, **params: Any) -> dict[str, Any]:
    headers: dict[str, str | None] = {"Authorization": f"Bearer {key or notebook.key}"}
    call = {"name": "order_fins", "arguments": {"pairs": 2}, **params}
    answer: dict[str, Any] = (await notebook.post("modern", "tools/call", call, headers, FORM)).json()
    return answer


SIZE = {"answer": {"action": "accept", "content": {"size": 40}}}
SURE = {"answer": {"action": "accept", "content": {"sure": True}}}


async def test_a_state_that_is_sent_twice_runs_the_tool_once(notebook: Notebook) -> None:
    first = (await call_modern(notebook))["result"]["requestState"]
    second = (await call_modern(notebook, requestState=first, inputResponses=SIZE))["result"]["requestState"]
    answers = await asyncio.gather(*(call_modern(notebook, requestState=second, inputResponses=SURE) for _ in range(5)))
    assert sorted("result" in answer for answer in answers) == [False] * 4 + [True]
    for state in (first, second):
        late = await call_modern(notebook, requestState=state, inputResponses=SURE)
        assert late["error"]["data"] == {"code": "not_found"}
    assert await notebook.notes() == ["begun", "2 red fins of 40"]


@pytest.mark.parametrize(
    "change",
    [
        {"arguments": {"pairs": 3}},
        {"arguments": {}},
        {"name": "pay", "arguments": {}},
        {"inputResponses": {}},
        {"inputResponses": {"confirm": SIZE["answer"]}},
        {"requestState": "ask:"},
        {"requestState": "ask:00000000-0000-7000-8000-000000000000"},
    ],
    ids=str,
)
async def test_an_answer_to_another_call_is_refused_and_the_question_stays(
    notebook: Notebook, change: dict[str, Any]
) -> None:
    state = (await call_modern(notebook))["result"]["requestState"]
    refused = await call_modern(notebook, **({"requestState": state, "inputResponses": SIZE} | change))
    assert refused["error"]["code"] == types.INVALID_PARAMS
    again = await call_modern(notebook, requestState=state, inputResponses=SIZE)
    assert again["result"]["resultType"] == "input_required"


async def test_the_state_of_another_caller_is_refused(notebook: Notebook) -> None:
    state = (await call_modern(notebook))["result"]["requestState"]
    async with everything(notebook.database) as session:
        key = (await issue_key(session, new_id(), name="other", scopes=["*"])).text
    refused = await call_modern(notebook, key, requestState=state, inputResponses=SIZE)
    assert refused["error"]["data"] == {"code": "not_found"}
    assert await fetch(notebook.database.url, "select count(*) from client_question") == [(1,)]


# Over stdio the SDK puts the questions of an older client.


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_over_stdio_the_user_is_asked_too(database: Database, me: Caller, mode: Any) -> None:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "tests.mcp.stdio_server", database.url, str(me.id), "*"],
        cwd=Path(__file__).parents[2],
    )
    user = User(yes(size=42), yes(sure=True), yes(confirm=True), types.ElicitResult(action="decline"))
    async with Client(server, mode=mode, elicitation_callback=user.answer) as client:
        ordered = await client.call_tool("order_fins", {"pairs": 2})
        dropped = await client.call_tool("drop_note", {"text": "fins"})
        kept = await client.call_tool("drop_note", {"text": "mask"})
    assert text_of(ordered) == "2 red fins of 42"
    assert not dropped.is_error
    assert kept.is_error
    async with everything(database) as session:
        assert await Notes(session, me).texts() == ["begun", "2 red fins of 42", "dropped: fins"]


# Properties.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda some: st.lists(some) | st.dictionaries(st.text(), some),
)


@given(
    JSON
    | st.fixed_dictionaries({"id": JSON, "result": JSON})
    | st.fixed_dictionaries({"id": st.uuids().map(str), "result": st.dictionaries(st.text(), JSON)})
)
def test_only_an_answer_with_the_id_of_a_question_is_read_as_one(message: Any) -> None:
    found = find_answer(message)
    if found is not None:
        id, answer = found
        assert str(id) == message["id"] or id.hex == message["id"].replace("-", "").lower()
        assert json.loads(answer) == storable(message["result"])
    elif isinstance(message, dict) and isinstance(message.get("id"), str) and isinstance(message.get("result"), dict):
        assert len(message["id"].replace("-", "")) != 32 or not message["id"].isascii()


@given(st.sets(st.sampled_from(["form", "url"])), st.text("0123456789abcdef", min_size=32, max_size=32))
def test_a_session_remembers_what_its_client_can_be_asked(kinds: set[str], id: str) -> None:
    declared: dict[str, Any] = {"params": {"capabilities": {"elicitation": {kind: {} for kind in kinds}}}}
    assert read_marks(mark_session(id, declared)) == {f"{kind}s" for kind in kinds or ["form"]}
    assert read_marks(mark_session(id, {"params": {"capabilities": {}}})) == set()


ANSWERS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["accept", "decline"])), max_size=5)


@given(ANSWERS, st.lists(st.sampled_from("abc"), max_size=5))
def test_answers_count_for_the_same_questions_in_the_same_order_only(
    given_before: list[tuple[str, Literal["accept", "decline"]]], questions: list[str]
) -> None:
    answers = Answers(key="k", can=frozenset({"forms", "urls"}))
    for message, action in given_before:
        answers = answers.add(Inquiry(message), Reply(action))
    same = 0
    while same < min(len(given_before), len(questions)) and given_before[same][0] == questions[same]:
        assert answers.find(same, Inquiry(questions[same])).action == given_before[same][1]
        same += 1
    if same < len(questions):
        with pytest.raises(Asked) as asked:
            answers.find(same, Inquiry(questions[same]))
        assert len(asked.value.answers.given) == same


def test_a_form_asks_for_plain_values_only() -> None:
    class Inner(BaseModel):
        x: int

    class Nested(BaseModel):
        inner: Inner

    with pytest.raises(TypeError, match=r"Nested\.inner: a form asks for texts"):
        form_schema(Nested)
