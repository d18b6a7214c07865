"""The lean client says, asks and answers what the SDK's own client does, whatever a server sends."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, ModelSettings, function_tool, handoff
from agents.agent_output import AgentOutputSchema
from agents.models.interface import ModelTracing
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.shared import Reasoning
from pydantic import BaseModel

from agent_server.errors import ModelFailed
from agent_server.models.answer import answer
from agent_server.models.lean.sse import EventStream
from agent_server.models.providers import Models
from agent_server.settings import load_settings
from agent_server.testing.wire import InProcess, Reply

CLIENTS = ("lean", "sdk")
Parts = list[bytes]


class Recorded:
    """A model that sends one body, in these parts, and keeps what it was asked."""

    name = "m"
    complaint: str | None = None

    def __init__(self, parts: Parts, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.parts, self.status, self.headers = parts, status, headers or {}
        self.requests: list[dict[str, Any]] = []

    async def reply(self, request: dict[str, Any]) -> Reply:
        self.requests.append(request)

        async def body() -> AsyncGenerator[bytes]:
            for part in self.parts:
                yield part

        return Reply(self.status, body(), headers=self.headers)


class Shown:
    """What an answer shows: its words and thoughts, each since they were last taken back."""

    def __init__(self) -> None:
        self.said, self.thought, self.voids = "", "", list[tuple[str, str]]()

    async def add(self, delta: str) -> None:
        self.said += delta

    async def think(self, delta: str) -> None:
        self.thought += delta

    async def void(self) -> None:
        self.voids.append((self.said, self.thought))
        self.said = self.thought = ""

    def shorten(self) -> None: ...


def open_models(client: str, model: Recorded, **more: Any) -> Models:
    chosen = load_settings(openai_base_url="http://model.invalid/v1", model_client=client, model_retries=0, **more)
    return Models(chosen, transport=InProcess(model))


async def read_answer(client: str, model: Recorded) -> tuple[Any, ...]:
    """What one client makes of the answer of a model: the response, or the failure, and what was shown."""
    models, shown = open_models(client, model), Shown()

    async def open(name: str) -> Any:
        chosen = await models.get(name)
        return lambda _: ask(chosen)

    try:
        _, response = await answer(models, "openai/m", open, shown, ends=float("inf"))
        body = response.model_dump(mode="json", exclude_unset=True)
        assert body.pop("created_at") > 0
        ended: Any = body
    except ModelFailed as error:
        fault: Any = error.__cause__
        ended = (error.message, fault.kind, fault.again, fault.after)
    finally:
        await models.close()
    return ended, shown.said, shown.thought, shown.voids


def ask(model: Any, input: Any = "hello", chosen: ModelSettings | None = None, **more: Any) -> Any:
    asked = {"tools": [], "output_schema": None, "handoffs": [], "system_instructions": None, **more}
    kept = {"previous_response_id": None, "conversation_id": None, "prompt": None}
    return model.stream_response(
        input=input, model_settings=chosen or ModelSettings(), tracing=ModelTracing.DISABLED, **asked, **kept
    )


TEXTS = st.sampled_from(["Hello", " you", "", "Größe 日本", "\ud83d", "\ude00", "<think>", "so", "</think>", "\n\n"])
ARGUMENTS = st.sampled_from(["", "{}", '{"a":', " 1}", '{"title": "Bü"}']) | st.just({"a": 1})
PIECES = st.fixed_dictionaries(
    {"index": st.sampled_from([0, 0, 1, None])},
    optional={
        "id": st.sampled_from(["call_1", "call_2", "", None]),
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {}, optional={"name": st.sampled_from(["look", "list_", "tasks", None]), "arguments": ARGUMENTS}
        ),
        "extra_content": st.just({"google": {"thought_signature": "signed"}}),
    },
)
DELTAS = st.one_of(
    st.fixed_dictionaries({"content": TEXTS | st.none()}, optional={"role": st.just("assistant")}),
    st.fixed_dictionaries({"refusal": st.sampled_from(["I cannot", " do that", ""])}),
    st.fixed_dictionaries({"tool_calls": st.lists(PIECES, min_size=1, max_size=2)}, optional={"content": st.none()}),
)
THOUGHTS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"reasoning_content": TEXTS}, optional={"content": st.sampled_from(["", None])}),
    st.fixed_dictionaries({"reasoning": TEXTS}, optional={"reasoning_details": st.just([{}])}),
)
USAGES = st.sampled_from(
    [
        {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": None},
    ]
)
ENDS = st.sampled_from(["stop", "tool_calls", "length", "content_filter", None])
ODD = st.sampled_from(
    [
        "",
        "<html>",
        "[" * 9,
        '{"error": {"message": "overloaded, sk-secret0123456789abcdef", "code": 529}}',
        '{"error": "no"}',
        '{"error": {"message": "maximum context length is 2048 tokens", "code": 400}}',
    ]
)


@st.composite
def streams(draw: Any) -> Parts:
    """A stream as some server may send it, in parts that are cut anywhere."""

    def chunk(delta: Any, finish: str | None = None, **more: Any) -> str:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
        body = {"id": id, "object": "chat.completion.chunk", "created": 0, "model": "x", "choices": choices}
        return json.dumps(body | more, ensure_ascii=draw(st.booleans()) or "\\ud" in json.dumps(delta))

    id = draw(st.sampled_from(["c", None]))
    deltas = [*draw(st.lists(THOUGHTS, max_size=3)), *draw(st.lists(DELTAS, max_size=7))]
    said = [chunk(delta) for delta in deltas]
    if draw(st.booleans()):
        said.insert(0, chunk({}, choices=[]))
    if finish := draw(ENDS):
        said.append(chunk(draw(st.sampled_from([{}, {"content": "."}])), finish))
    if usage := draw(st.none() | USAGES):
        said.append(chunk({}, choices=[], usage=usage))
    if draw(st.integers(0, 4)) == 0:
        said.insert(draw(st.integers(0, len(said))), draw(ODD))
    if draw(st.booleans()):
        said.append("[DONE]")
    begin = draw(st.sampled_from(["", ": hello\n\n", "\ufeff", "event: x\nid: 7\n", "data:\n\n"]))
    space, end = draw(st.sampled_from([" ", ""])), draw(st.sampled_from(["\n", "\r\n", "\r"]))
    body = (begin + "".join(f"data:{space}{data}\n\n" for data in said)).replace("\n", end).encode()
    cuts = sorted({0, len(body), *draw(st.lists(st.integers(0, len(body)), max_size=6))})
    return [body[a:b] for a, b in itertools.pairwise(cuts)]


@settings(max_examples=100, deadline=None)
@given(streams())
async def test_both_clients_make_the_same_of_a_stream(parts: Parts) -> None:
    lean, sdk = [await read_answer(client, Recorded(parts)) for client in CLIENTS]
    assert lean == sdk


ERRORS: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "a page": (502, b"<html>Bad Gateway</html>", {"content-type": "text/html"}),
    "a page of success": (200, b"<html>Hello</html>", {"content-type": "text/html"}),
    "no stream": (200, b'{"choices": [{"message": {"content": "hi"}}]}', {"content-type": "application/json"}),
    "nothing": (200, b"", {}),
    "a wait": (429, b'{"error": {"message": "slow down"}}', {"retry-after": "7"}),
    "a wait in words": (429, b'{"error": {"message": "Please try again in 6.5s."}}', {}),
    "no credit": (429, b'{"error": {"code": "insufficient_quota"}}', {}),
    "the key": (401, b'{"error": {"message": "Incorrect API key"}}', {}),
    "too long": (400, b'{"object": "error", "message": "maximum context length is 4096", "code": 400}', {}),
    "declined": (400, b'{"error": {"code": "content_filter", "message": "filtered"}}', {}),
    "no tools": (404, b'{"error": {"message": "No endpoints found that support tool use."}}', {}),
    "a text": (503, b'"busy"', {}),
    "a list": (500, b"[1]", {}),
}


@pytest.mark.parametrize(("status", "body", "headers"), ERRORS.values(), ids=ERRORS)
async def test_both_clients_make_the_same_of_a_refusal(status: int, body: bytes, headers: dict[str, str]) -> None:
    lean, sdk = [await read_answer(client, Recorded([body], status, headers)) for client in CLIENTS]
    if isinstance(lean[0], dict):
        assert lean[0]["incomplete_details"] == sdk[0]["incomplete_details"] == {"reason": "content_filter"}
    else:
        assert lean == sdk


@function_tool
def look(what: str, deep: bool = False) -> str:
    """Look something up."""
    return what


class Form(BaseModel):
    name: str


OTHER = handoff(Agent(name="other", handoff_description="Knows more."))
CALL = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"what": "fins"}'}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "Größe 日本"}
THOUGHT = {
    "type": "reasoning",
    "id": "__fake_id__",
    "summary": [{"type": "summary_text", "text": "Hm."}],
    "provider_data": {"model": "m", "response_id": "c"},
}
PICTURE = [{"type": "input_image", "image_url": "data:image/png;base64,eA==", "detail": "low"}]
SAID = {
    "type": "message",
    "id": "__fake_id__",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
    "provider_data": {"model": "m"},
}
_GROUPS: list[list[Any]] = [
    [{"role": "user", "content": "hello"}],
    [{"role": "assistant", "content": "Hi."}],
    [{"role": "user", "content": PICTURE}],
    [CALL, OUTPUT],
    [THOUGHT, CALL, OUTPUT],
    [THOUGHT, SAID, CALL, OUTPUT],
    [CALL, {**CALL, "call_id": "call_2"}, OUTPUT, {**OUTPUT, "call_id": "call_2"}],
    [SAID],
]
ITEMS = st.lists(st.sampled_from(_GROUPS), min_size=1, max_size=6).map(
    lambda groups: [item for group in groups for item in group]
)
SETTINGS = st.builds(
    ModelSettings,
    temperature=st.none() | st.just(0.5),
    top_p=st.none() | st.just(0.9),
    max_tokens=st.none() | st.just(99),
    tool_choice=st.sampled_from([None, "auto", "required", "none", "look"]),
    parallel_tool_calls=st.sampled_from([None, True, False]),
    reasoning=st.sampled_from([None, Reasoning(effort="low")]),
    metadata=st.none() | st.just({"a": "b"}),
    extra_body=st.none() | st.just({"top_k": 5, "temperature": 0.1}),
    extra_args=st.none() | st.just({"seed": 7, "stop": ["x"]}),
    extra_headers=st.none() | st.just({"X-Extra": "1"}),
    top_logprobs=st.none() | st.just(2),
)


@settings(max_examples=60, deadline=None)
@given(
    ITEMS | st.just("hello"),
    SETTINGS,
    st.sampled_from([None, "You help."]),
    st.sampled_from([[], [look]]),
    st.sampled_from([[], [OTHER]]),
    st.sampled_from([None, AgentOutputSchema(str), AgentOutputSchema(Form)]),
)
async def test_both_clients_ask_the_same_and_begin_the_same_response(
    input: Any, chosen: ModelSettings, instructions: str | None, tools: Any, handoffs: Any, schema: Any
) -> None:
    stop = {"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    asked, responses = [], []
    for client in CLIENTS:
        model = Recorded([f"data: {json.dumps(stop)}\n\n".encode()])
        models = open_models(client, model)
        more = {"system_instructions": instructions, "tools": tools, "handoffs": handoffs, "output_schema": schema}
        events = [event async for event in ask(await models.get("openai/m"), input, chosen, **more)]
        await models.close()
        asked.append(model.requests)
        responses.append(events[-1].response.model_dump(mode="json", exclude_unset=True, exclude={"created_at"}))
    assert asked[0] == asked[1]
    assert responses[0] == responses[1]


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=9), max_size=6),
    st.data(),
)
def test_data_of_events_arrives_wherever_the_stream_is_cut(texts: list[str], data: Any) -> None:
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    body = "".join(f"data: {text}{end}{end}" for text in texts).encode()
    cuts = sorted({0, len(body), *data.draw(st.lists(st.integers(0, len(body))))})
    stream = EventStream()
    read = [text for a, b in itertools.pairwise(cuts) for text in stream.read(body[a:b])]
    assert read == [text for text in texts if text]


async def test_the_environments_proxy_is_asked_and_a_password_in_netrc_is_not_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heads: list[str] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        body = b'{"data": [{"id": "m"}]}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    (tmp_path / "netrc").write_text("machine behind.invalid login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    for address, sent in (("behind.invalid", "Bearer k"), ("a:b@behind.invalid", "Basic YTpi")):
        models = Models(load_settings(openai_base_url=f"http://{address}/v1", openai_api_key="k"))
        assert await models.find_served() == "m"
        await models.close()
        assert heads[-1].startswith("GET http://behind.invalid/v1/models HTTP/1.1")
        assert f"Authorization: {sent}" in heads[-1]
    server.close()
