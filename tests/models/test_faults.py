"""Every way a model can fail, by a local server that fails like that: what the client sees, what the provider is asked,
and which model answers in the end."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsStr
from sqlalchemy import text as sql
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agent_server.testing import Call, Calls, Cut, Refuse, Say, Step, scripted_openai
from agent_server.testing.serving import serving
from tests.conftest import everything
from tests.server import Client, Start
from tests.sse import read_frames, text_of, types_of
from tests.turns.ledger import until

Frames = Callable[[], AsyncIterator[bytes]]
Answer = Frames | tuple[int, dict[str, str]]
"""A stream, or a status with headers."""


def chunk(content: str | None = None, finish: str | None = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": {"role": "assistant", "content": content, **delta}, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "x", "choices": [choice]}
    return f"data: {json.dumps(body)}\n\n".encode()


def tool_call(name: str, arguments: str) -> bytes:
    function = {"name": name, "arguments": arguments}
    return chunk(tool_calls=[{"index": 0, "id": "call_0", "type": "function", "function": function}])


END = chunk(finish="stop") + b"data: [DONE]\n\n"


async def right() -> AsyncIterator[bytes]:
    yield chunk("the right answer") + END


async def stalls_at_once() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def stalls_in_the_middle() -> AsyncIterator[bytes]:
    yield chunk("the wrong ")
    await asyncio.Event().wait()


async def drips() -> AsyncIterator[bytes]:
    while True:
        yield chunk("drip ")
        await asyncio.sleep(0.02)


async def is_cut() -> AsyncIterator[bytes]:
    yield chunk("the wrong ")
    raise ConnectionResetError("the test cuts the stream here")


async def ends_without_a_finish() -> AsyncIterator[bytes]:
    yield chunk("the wrong ")


async def is_done_without_a_finish() -> AsyncIterator[bytes]:
    yield chunk("the wrong ") + b"data: [DONE]\n\n"


async def ends_within_a_call() -> AsyncIterator[bytes]:
    yield tool_call("create_task", '{"title": "Bu')


async def fails_in_the_stream() -> AsyncIterator[bytes]:
    yield chunk("the wrong ") + b'data: {"error": {"message": "overloaded, sk-secret0123456789abcdef"}}\n\n'


async def is_no_json() -> AsyncIterator[bytes]:
    yield chunk("the wrong ") + b"data: <html>\n\n"


async def says_nothing() -> AsyncIterator[bytes]:
    yield chunk("") + END


async def only_reasons() -> AsyncIterator[bytes]:
    yield chunk(reasoning_content="Hmm.") + END


async def says_blanks() -> AsyncIterator[bytes]:
    yield chunk(" \n") + END


async def says_10_megabytes() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield chunk("x" * 100_000)
    yield END


async def says_10_megabytes_at_once() -> AsyncIterator[bytes]:
    yield chunk("x" * 10_000_000) + END


async def calls_with_10_megabytes() -> AsyncIterator[bytes]:
    yield tool_call("create_task", '{"title": "')
    for _ in range(100):
        yield chunk(tool_calls=[{"index": 0, "function": {"arguments": "x" * 100_000}}])
    yield END


@dataclass
class Provider:
    """A server of Chat Completions that gives these answers, the last one again and again."""

    answers: list[Answer]
    requests: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    async def completions(self, request: Request) -> Response:
        self.requests.append(await request.json())
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if isinstance(answer, tuple):
            status, headers = answer
            return JSONResponse({"error": {"message": "no, sk-secret0123456789abcdef"}}, status, headers)
        return StreamingResponse(answer(), media_type="text/event-stream")


@asynccontextmanager
async def provider(*answers: Answer) -> AsyncIterator[Provider]:
    made = Provider(list(answers))
    routes = [Route("/v1/chat/completions", made.completions, methods=["POST"])]
    async with serving(Starlette(routes=routes)) as base:
        made.url = f"{base}/v1"
        yield made


async def events_of(client: Client, turn_id: str) -> list[str]:
    """The kinds of a turn's events."""
    log = await client.http.get(f"/api/turns/{turn_id}/events", headers=client.auth)
    assert "sk-secret" not in log.text
    return [line.removeprefix("event: ") for line in log.text.splitlines() if line.startswith("event: ")]


async def asked(client: Client, message: str = "hello", **more: Any) -> dict[str, Any]:
    body = {"message": message, "stream": False, **more}
    answer: dict[str, Any] = (await client.http.post("/api/chat", json=body, headers=client.auth)).json()
    return answer


AGAIN: dict[str, tuple[Answer, str, int, dict[str, float]]] = {
    "over its limit": ((429, {"Retry-After": "0"}), "over its limit", 0, {}),
    "status 500": ((500, {}), "status 500", 0, {}),
    "stalls at once": (stalls_at_once, "said nothing for 1.1 seconds", 0, {"model_first_token_timeout": 1.1}),
    "stalls in the middle": (stalls_in_the_middle, "said nothing for 1.2 seconds", 1, {"model_token_timeout": 1.2}),
    "takes too long": (drips, "took too long", 1, {"model_call_timeout": 1.3}),
    "is cut": (is_cut, "broke off", 1, {}),
    "ends without a finish": (ends_without_a_finish, "broke off", 1, {}),
    "is done without a finish": (is_done_without_a_finish, "broke off", 1, {}),
    "ends within a call": (ends_within_a_call, "broke off", 0, {}),
    "fails in the stream": (fails_in_the_stream, "is overloaded", 1, {}),
    "is no JSON": (is_no_json, "could not be read", 1, {}),
    "says nothing": (says_nothing, "answered with nothing", 0, {}),
    "only reasons": (only_reasons, "answered with nothing", 1, {}),
    "says blanks": (says_blanks, "answered with nothing", 1, {}),
}


@pytest.mark.parametrize(("answer", "reason", "shown", "timeouts"), AGAIN.values(), ids=AGAIN)
async def test_a_fault_that_may_pass_is_asked_again_and_what_was_shown_is_taken_back(
    start: Start, answer: Answer, reason: str, shown: int, timeouts: dict[str, float]
) -> None:
    async with (
        provider(answer, right, answer) as model,
        start(openai_base_url=model.url, model="m", model_retries=1, **timeouts) as client,
    ):
        good = await asked(client)
        assert (good["text"], good["error"], len(model.requests)) == ("the right answer", None, 2)
        kinds = await events_of(client, good["turn_id"])
        assert (kinds[-1], kinds.count("done"), kinds.count("reset")) == ("done", 1, shown)
        bad = await asked(client)
        assert (bad["status"], bad["error"]["code"], len(model.requests)) == ("failed", "model_failed", 4)
        assert reason in bad["error"]["message"]
        kinds = await events_of(client, bad["turn_id"])
        assert (kinds[-1], kinds.count("failed"), kinds.count("reset")) == ("failed", 1, 2 * shown)


ONCE: dict[str, tuple[Answer, str]] = {
    "400": ((400, {}), "status 400"),
    "401": ((401, {}), "refused the key"),
    "404": ((404, {}), "does not know the model"),
    "10 MB": (says_10_megabytes, "longer than 1,000,000 characters"),
    "10 MB at once": (says_10_megabytes_at_once, "longer than 1,000,000 characters"),
    "10 MB of arguments": (calls_with_10_megabytes, "longer than 1,000,000 characters"),
}


@pytest.mark.parametrize(("answer", "reason"), ONCE.values(), ids=ONCE)
async def test_a_fault_that_will_not_pass_is_not_asked_again(start: Start, answer: Answer, reason: str) -> None:
    async with provider(answer) as model, start(openai_base_url=model.url, model="m") as client:
        bad = await asked(client)
        assert (bad["status"], bad["error"]["code"], len(model.requests)) == ("failed", "model_failed", 1)
        assert reason in bad["error"]["message"]
        kinds = await events_of(client, bad["turn_id"])
        assert (kinds[-1], kinds.count("reset")) == ("failed", 1 if "text" in kinds else 0)
        assert (await asked(client, id=bad["conversation_id"]))["status"] == "failed"  # the conversation is not stuck


@contextmanager
def nobody_listens() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def nobody_accepts() -> Iterator[int]:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()[1]


@pytest.mark.parametrize("port", [nobody_listens, nobody_accepts])
async def test_a_provider_that_cannot_be_reached_is_said_to_be(start: Start, port: Any) -> None:
    with port() as number:
        url = f"http://127.0.0.1:{number}/v1"
        async with start(openai_base_url=url, model="m", model_connect_timeout=0.2, model_retries=1) as client:
            bad = await asked(client)
    assert bad["error"] == {"code": "model_failed", "message": "The model's provider cannot be reached"}


async def test_a_turn_that_is_out_of_time_ends_in_the_middle_of_a_call(start: Start) -> None:
    async with (
        provider(stalls_at_once) as model,
        start(openai_base_url=model.url, turn_timeout=1.5, model="m") as client,
    ):
        bad = await asked(client)
        assert (bad["status"], bad["error"]["code"], len(model.requests)) == ("failed", "timed_out", 1)
        assert (await events_of(client, bad["turn_id"]))[-1] == "failed"


async def test_a_call_is_not_made_again_when_the_turn_would_be_out_of_time_by_then(start: Start) -> None:
    async with (
        provider((429, {"Retry-After": "9"})) as model,
        start(openai_base_url=model.url, model="m", turn_timeout=8.0) as client,
    ):
        bad = await asked(client)
        assert (bad["error"]["code"], len(model.requests)) == ("model_failed", 1)
        assert "over its limit" in bad["error"]["message"]


async def test_the_model_is_told_of_a_call_that_cannot_be_made_and_so_are_the_client_and_later_turns(
    start: Start,
) -> None:
    script: list[Step] = [
        Call("create_task", '{"title": "Bu'),
        Call("no_such_tool", {"x": 1}),
        Say("Sorry."),
        Say("As I said."),
    ]
    async with scripted_openai(script) as model, start(openai_base_url=model.url, model="m") as client:
        body = {"message": "fins", "agent": "tasks"}
        async with client.http.stream("POST", "/api/chat", json=body, headers=client.auth) as response:
            frames = [frame async for frame in read_frames(response)]
        assert types_of(frames).count("tool-output-error") == 2
        assert (text_of(frames), len(model.requests)) == ("Sorry.", 3)
        told = [m["content"] for m in model.requests[2]["messages"] if m["role"] == "tool"]
        assert told == [
            IsStr(regex="invalid_input: The arguments of create_task are not JSON.*"),
            "not_found: There is no tool 'no_such_tool' here",
        ]
        await asked(client, "What was that?", id=response.headers["X-Conversation-Id"])
        given = model.requests[3]["messages"]
        assert [m["content"] for m in given if m["role"] == "tool"] == told


async def test_an_answer_through_litellm_that_ends_without_a_finish_is_not_taken_for_one(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with provider(ends_without_a_finish, right, ends_without_a_finish) as model:
        monkeypatch.setenv("GROQ_API_BASE", model.url)
        async with start(openai_base_url=None, model="groq/some-model", groq_api_key="k", model_retries=1) as client:
            answer = await asked(client)
            assert (answer["text"], len(model.requests)) == ("the right answer", 2)
            assert (await events_of(client, answer["turn_id"])).count("reset") == 1
            bad = await asked(client)
            assert (bad["error"]["message"], len(model.requests)) == ("The model's answer broke off", 4)


@pytest.mark.parametrize("name", ["groq", "cerebras"])
async def test_a_call_through_litellm_that_fails_is_made_again_by_nobody_else(
    start: Start, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with provider((500, {"Retry-After": "0"})) as model:
        monkeypatch.setenv(f"{name.upper()}_API_BASE", model.url)
        monkeypatch.setenv(f"{name.upper()}_API_KEY", "k")
        async with start(openai_base_url=None, model=f"{name}/some-model") as client:
            assert (await asked(client))["error"]["code"] == "model_failed"
            assert len(model.requests) == 3


async def test_a_model_that_keeps_failing_is_left_alone_and_the_turn_says_so(start: Start) -> None:
    async with (
        provider((503, {"Retry-After": "0"})) as model,
        start(openai_base_url=model.url, model="m", model_retries=2) as client,
    ):
        for _ in range(2):
            assert "status 503" in (await asked(client))["error"]["message"]
        assert len(model.requests) == 6
        bad = await asked(client)
        assert (bad["error"]["code"], len(model.requests)) == ("model_failed", 6)
        assert "left alone" in bad["error"]["message"]
        assert (await events_of(client, bad["turn_id"]))[-1] == "failed"


def first_and_second(first: Step, second: Step) -> Callable[[dict[str, Any]], Step]:
    return lambda request: first if request["model"] == "first" else second


@pytest.mark.parametrize(
    ("fault", "requests"),
    [(Refuse(500, {"Retry-After": "0"}), 3), (Refuse(401), 1), (Cut("the wrong "), 3)],
    ids=["used up its retries", "will not pass", "cut"],
)
async def test_the_fallback_answers_where_the_first_model_cannot_and_is_named(
    start: Start, fault: Step, requests: int
) -> None:
    async with (
        scripted_openai(first_and_second(fault, Say("the second's answer"))) as model,
        start(openai_base_url=model.url, model="first", model_fallback="second") as client,
    ):
        frames = await client.chat("hello")
        shown = types_of(frames)
        last = len(shown) - shown[::-1].index("data-reset") if "data-reset" in shown else 0
        assert text_of(frames[last:]) == "the second's answer"
        assert [r["model"] for r in model.requests] == ["first"] * requests + ["second"]
        start_of, finish = frames[0].data["messageMetadata"], frames[-2].data["messageMetadata"]
        assert finish["usage"]["model"] == "openai/second"
        messages = await client.get(f"/api/conversations/{start_of['conversationId']}/messages")
        assert (messages["items"][1]["text"], messages["items"][1]["model"]) == ("the second's answer", "openai/second")


async def test_a_model_that_is_left_alone_is_not_asked_before_the_fallback(start: Start) -> None:
    refusal = Refuse(500, {"Retry-After": "0"})
    async with (
        scripted_openai(first_and_second(refusal, Say("the second's answer"))) as model,
        start(openai_base_url=model.url, model="first", model_fallback="second") as client,
    ):
        for _ in range(3):
            assert (await asked(client))["text"] == "the second's answer"
        assert [r["model"] for r in model.requests] == [*["first"] * 3, "second"] * 2 + ["second"]


async def test_the_fallback_has_its_own_retries_and_its_failure_is_the_turns(start: Start) -> None:
    async with (
        scripted_openai(first_and_second(Refuse(401), Refuse(500, {"Retry-After": "0"}))) as model,
        start(openai_base_url=model.url, model="first", model_fallback="second") as client,
    ):
        bad = await asked(client)
        assert (bad["error"]["code"], len(model.requests)) == ("model_failed", 4)
        assert "status 500" in bad["error"]["message"]


async def test_a_model_without_its_key_has_the_fallback_too_which_may_be_no_model_at_all(start: Start) -> None:
    async with start(model="openai/gpt-x", openai_base_url=None, model_fallback="offline") as client:
        answer = await asked(client, "How long do I wait before flying after a single dive?")
        assert answer["sources"]
        assert answer["usage"]["model"] == "offline"


async def test_an_agent_with_a_model_of_its_own_falls_back_as_well(start_other: Start, tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    prompt = "---\nname: sage\ndescription: Answers.\nmodel: first\nknowledge: []\n---\nAnswer.\n"
    (tmp_path / "prompts" / "sage.md").write_text(prompt)
    async with (
        scripted_openai(first_and_second(Refuse(404), Say("the second's answer"))) as model,
        start_other(tmp_path, openai_base_url=model.url, model="third", model_fallback="second") as client,
    ):
        assert (await asked(client))["text"] == "the second's answer"
        assert [r["model"] for r in model.requests] == ["first", "second"]


async def tasks_of(client: Client) -> list[str]:
    listed = await client.http.post("/api/tools/list_tasks", json={}, headers=client.auth)
    return sorted(task["title"] for task in listed.json()["items"])


async def test_a_provider_that_numbers_its_calls_anew_in_each_answer_has_each_of_them_made(start: Start) -> None:
    def create(title: str) -> Call:
        return Call("create_task", {"title": title}, id="call_0")

    script: list[Step] = [create("A"), create("B"), Calls((create("C"), create("D"))), Say("Done."), create("E")]
    async with scripted_openai(script) as model, start(openai_base_url=model.url, model="m") as client:
        first = await asked(client, "please", agent="tasks")
        assert [tool["output"]["title"] for tool in first["tools"]] == ["A", "B", "C", "D"]
        await asked(client, "one more", agent="tasks", id=first["conversation_id"])
        assert await tasks_of(client) == ["A", "B", "C", "D", "E"]
        results = [m for m in model.requests[-1]["messages"] if m["role"] == "tool"]
        # the two that were made at once ended in any order
        assert sorted(json.loads(m["content"])["title"] for m in results) == ["A", "B", "C", "D", "E"]
        assert len({m["tool_call_id"] for m in results}) == 5


async def test_an_answer_that_comes_whole_is_written_in_one_transaction_after_its_acceptance(start: Start) -> None:
    async with scripted_openai([Say("Eighteen")]) as model, start(openai_base_url=model.url, model="m") as client:
        answer = await asked(client, "How long do I wait before flying after a single dive?")
        kinds = await events_of(client, answer["turn_id"])
        assert kinds == ["passages", "agent", "text", "text_done", "done"]
        async with everything(client.server.database) as session:
            # `at` is the time at which the transaction of an event began
            counted = sql("select count(distinct at) from event where turn_id = :id")
            assert (await session.execute(counted, {"id": answer["turn_id"]})).scalar_one() == 1


async def test_first_words_are_written_before_the_rest_where_another_turn_runs(start: Start) -> None:
    go_on = asyncio.Event()
    async with (
        scripted_openai([Say("Slowly and well.", hold=(1, go_on)), Say("Eighteen")]) as model,
        start(openai_base_url=model.url, model="m") as client,
    ):
        other = asyncio.create_task(asked(client, "How deep is deep?"))

        async def is_asked() -> bool:
            return bool(model.requests)

        await until(is_asked)
        answer = await asked(client, "How long do I wait before flying after a single dive?")
        go_on.set()
        await other
        async with everything(client.server.database) as session:
            counted = sql("select count(distinct at) from event where turn_id = :id")
            assert (await session.execute(counted, {"id": answer["turn_id"]})).scalar_one() == 2


async def test_what_is_put_into_a_running_turn_stands_where_the_model_first_saw_it_also_after_a_takeover(
    start: Start,
) -> None:
    answering, go_on = asyncio.Event(), asyncio.Event()

    async def calls_when_told() -> AsyncIterator[bytes]:
        answering.set()
        await go_on.wait()
        yield tool_call("list_tasks", "{}") + END

    async def calls() -> AsyncIterator[bytes]:
        yield tool_call("list_tasks", "{}") + END

    async with (
        provider(calls_when_told, calls, stalls_in_the_middle) as asked_first,
        provider(right) as asked_then,
        start(openai_base_url=asked_first.url, model="m") as here,
        start(openai_base_url=asked_then.url, model="m") as there,
    ):
        there.key = here.key
        body: dict[str, Any] = {"message": "my tasks", "agent": "tasks"}
        async with here.http.stream("POST", "/api/chat", json=body, headers=here.auth) as response:
            conversation, turn = response.headers["X-Conversation-Id"], response.headers["X-Turn-Id"]
            await answering.wait()
            for message in ("only the open ones", "oldest first"):
                steer = {"message": message, "id": conversation, "on_busy": "steer"}
                async with here.http.stream("POST", "/api/chat", json=steer, headers=here.auth) as joined:
                    assert joined.headers["X-Turn-Id"] == turn
            go_on.set()
            async for frame in read_frames(response):
                if frame.data["type"] == "text-delta":
                    break
        async with everything(here.server.database) as session:
            await session.execute(sql("update turn set owner = gen_random_uuid() where id = :id"), {"id": turn})
        await there.http.get(f"/api/turns/{turn}/events", headers=there.auth)
        given = [
            [m["content"] if m["role"] == "user" else m["role"] for m in request["messages"][1:]]
            for request in [*asked_first.requests, *asked_then.requests]
        ]
        to_the_second = ["my tasks", "assistant", "tool", "assistant", "only the open ones\n\noldest first"]
        to_the_third = [*to_the_second, "assistant", "tool"]
        assert given == [["my tasks"], to_the_second, to_the_third, to_the_third]
        messages = (await there.get(f"/api/conversations/{conversation}/messages"))["items"]
        assert [m["text"] for m in messages] == ["my tasks", "only the open ones", "oldest first", "the right answer"]
        assert (await events_of(there, turn)).count("steered") == 2


async def only_has_a_role() -> AsyncIterator[bytes]:
    yield chunk("")
    yield chunk()
    await asyncio.Event().wait()


async def test_a_chunk_with_a_role_alone_does_not_end_the_wait_for_the_first_word(start: Start) -> None:
    async with (
        provider(only_has_a_role, right) as model,
        start(openai_base_url=model.url, model="m", model_first_token_timeout=1.1) as client,
    ):
        answer = await asked(client)
        assert (answer["text"], len(model.requests)) == ("the right answer", 2)


@pytest.mark.parametrize("arguments", ["", "{", '{"status": "op', '{"status": "open"}'])
async def test_a_call_that_was_cut_off_by_the_longest_answer_is_not_made(start: Start, arguments: str) -> None:
    async def is_cut_off() -> AsyncIterator[bytes]:
        yield tool_call("list_tasks", arguments) + chunk(finish="length") + b"data: [DONE]\n\n"

    async with provider(is_cut_off, right) as model, start(openai_base_url=model.url, model="m") as client:
        answer = await asked(client, agent="tasks")
    assert answer["text"] == "the right answer"
    assert "were cut off" in answer["tools"][0]["error"]
    (told,) = [m["content"] for m in model.requests[1]["messages"] if m["role"] == "tool"]
    assert "were cut off" in told


@pytest.mark.parametrize("through", ["openai", "litellm"])
@pytest.mark.parametrize("index", [0, None], ids=["the same index", "no index"])
async def test_calls_of_one_answer_have_their_own_arguments(
    start: Start, monkeypatch: pytest.MonkeyPatch, index: int | None, through: str
) -> None:
    async def calls_twice() -> AsyncIterator[bytes]:
        for n, title in enumerate(("Buy fins", "Service the regulator")):
            function = {"name": "create_task", "arguments": json.dumps({"title": title})}
            yield chunk(tool_calls=[{"index": index, "id": f"c{n}", "type": "function", "function": function}])
        yield chunk(finish="tool_calls") + b"data: [DONE]\n\n"

    async with provider(calls_twice, right) as model:
        monkeypatch.setenv("GROQ_API_BASE", model.url)
        where: dict[str, Any] = {"openai_base_url": model.url, "model": "m"}
        if through == "litellm":
            where = {"openai_base_url": None, "model": "groq/m", "groq_api_key": "k"}
        # The first call loads litellm's parts, and a call that is made again would have the next answer.
        async with start(**where, model_first_token_timeout=60) as client:
            answer = await asked(client, agent="tasks")
    assert [use["input"]["title"] for use in answer["tools"]] == ["Buy fins", "Service the regulator"]
    assert [use["error"] for use in answer["tools"]] == [None, None]


async def test_a_character_in_two_halves_arrives_as_one(start: Start) -> None:
    async def halves() -> AsyncIterator[bytes]:
        for half in ("Good \ud83d", "\ude00 morning"):
            yield chunk(half)
        yield END

    async with provider(halves) as model, start(openai_base_url=model.url, model="m") as client:
        assert (await asked(client))["text"] == "Good \U0001f600 morning"
