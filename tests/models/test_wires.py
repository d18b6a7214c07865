"""What providers say in words of their own, each in its own wire protocol, through the client that users have."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import async_playwright, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent_server.testing.serving import serving
from tests.commands import agent_server
from tests.conftest import ROOT
from tests.needs import find_chromium
from tests.server import Client, Start
from tests.web.conftest import ARGUMENTS

# litellm loads more with the first call of each provider, and pydantic warns about how it is written.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

Reply = tuple[int, dict[str, str], str]
"""A status, headers and a body."""

SSE = {"Content-Type": "text/event-stream"}


def events(*bodies: Any) -> str:
    """Server-sent events. Those of Anthropic have their type as the name of the event, too."""
    named = [f"event: {b['type']}\n" if isinstance(b, dict) and "type" in b else "" for b in bodies]
    return "".join(
        f"{name}data: {b if isinstance(b, str) else json.dumps(b)}\n\n" for name, b in zip(named, bodies, strict=True)
    )


def openai(text: str = "", finish: str = "stop", **delta: Any) -> Reply:
    def chunk(delta: Any, finish: str | None) -> dict[str, Any]:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": choices}

    usage = {
        **chunk({}, None),
        "choices": [],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
    return (
        200,
        SSE,
        events(chunk({"role": "assistant", "content": text, **delta}, None), chunk({}, finish), usage, "[DONE]"),
    )


def anthropic(*blocks: dict[str, Any], stop: str = "end_turn") -> Reply:
    usage = {"input_tokens": 7, "output_tokens": 3}
    message: dict[str, Any] = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "usage": usage,
    }
    said: list[Any] = [{"type": "message_start", "message": message}]
    for i, block in enumerate(blocks):
        kind = block["type"]
        said.append(
            {
                "type": "content_block_start",
                "index": i,
                "content_block": {
                    "type": kind,
                    kind: "",
                    **({} if kind != "tool_use" else {"id": block["id"], "name": block["name"], "input": {}}),
                },
            }
        )
        for name in ("text", "thinking", "signature"):
            if name in block:
                said.append(
                    {"type": "content_block_delta", "index": i, "delta": {"type": f"{name}_delta", name: block[name]}}
                )
        if kind == "tool_use":
            said.append(
                {
                    "type": "content_block_delta",
                    "index": i,
                    "delta": {"type": "input_json_delta", "partial_json": json.dumps(block["input"])},
                }
            )
        said.append({"type": "content_block_stop", "index": i})
    said += [{"type": "message_delta", "delta": {"stop_reason": stop}, "usage": usage}, {"type": "message_stop"}]
    return 200, SSE, events(*said)


def gemini(text: str = "", finish: str = "STOP", **more: Any) -> Reply:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": finish, "index": 0}
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}
    return 200, SSE, events({"candidates": [candidate], "usageMetadata": usage, **more})


def ollama(text: str = "", done: str = "stop") -> Reply:
    lines = [
        {"model": "m", "message": {"role": "assistant", "content": text}, "done": False},
        {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": done, "prompt_eval_count": 7, "eval_count": 3},
    ]  # fmt: skip
    return 200, {"Content-Type": "application/x-ndjson"}, "".join(json.dumps(line) + "\n" for line in lines)


def error(status: int, body: Any, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Type": "application/json", **named}, json.dumps(body)


@dataclass
class Wire:
    """A server that gives these replies, the last one again and again."""

    replies: list[Reply]
    requests: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        self.requests.append(await request.json())
        status, headers, body = self.replies[min(len(self.requests), len(self.replies)) - 1]
        return Response(body, status, headers)


NAMES = {"anthropic": "anthropic/claude-haiku-5-5", "gemini": "gemini/gemini-flash-latest", "groq": "groq/m", "ollama": "ollama/m", "openai": "m"}  # fmt: skip


@pytest.fixture
def speak(start: Start, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Starts a server whose model is at a provider that gives these replies."""

    @asynccontextmanager
    async def speak(provider: str, *replies: Reply, **settings: Any) -> AsyncIterator[tuple[Client, Wire]]:
        wire = Wire(list(replies))
        if litellm := sys.modules.get("litellm"):
            litellm.in_memory_llm_clients_cache.flush_cache()  # its clients belong to the event loop of another test
        async with serving(Starlette(routes=[Route("/{path:path}", wire.answer, methods=["POST"])])) as base:
            monkeypatch.setenv(f"{provider.upper()}_API_BASE", f"{base}/v1" if provider == "groq" else base)
            at = {"openai_base_url": f"{base}/v1"} if provider == "openai" else {"openai_base_url": None}
            keys = {f"{provider}_api_key": "k"} if provider in ("anthropic", "gemini", "groq") else {}
            async with start(**{"model": NAMES[provider], "model_retries": 1, **at, **keys, **settings}) as client:
                yield client, wire

    return speak


async def ask(client: Client, message: str = "hello", **more: Any) -> dict[str, Any]:
    body = {"message": message, "stream": False, "agent": "tasks", **more}
    answer: dict[str, Any] = (await client.http.post("/api/chat", json=body, headers=client.auth)).json()
    return answer


RIGHT = {
    "openai": openai("right"),
    "groq": openai("right"),
    "anthropic": anthropic({"type": "text", "text": "right"}),
    "gemini": gemini("right"),
    "ollama": ollama("right"),
}


@pytest.mark.parametrize("provider", RIGHT)
async def test_each_provider_is_asked_to_count_tokens(speak: Any, provider: str) -> None:
    async with speak(provider, RIGHT[provider]) as (client, _):
        answer = await ask(client)
    assert (answer["text"], answer["finish_reason"], answer["notes"]) == ("right", "stop", [])
    assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (7, 3)


SHAPED = '{"city": "Rome"}'
SHAPES = {
    "openai": openai(SHAPED),
    "groq": openai(SHAPED),
    "anthropic": anthropic({"type": "text", "text": SHAPED}),
    "gemini": gemini(SHAPED),
    "ollama": ollama(SHAPED),
}


def write_agent(root: Path, *, tools: bool = False) -> Path:
    """An agent whose answers are data."""
    (root / "prompts").mkdir()
    shape = "{type: object, properties: {city: {type: string}}, required: [city], additionalProperties: false}"
    head = f"knowledge: []\noutput: {shape}\n" + ("tools: [list_documents]\n" if tools else "")
    (root / "prompts" / "tasks.md").write_text(f"---\nname: tasks\ndescription: x\n{head}---\nHelp.\n")
    return root


@pytest.mark.parametrize("tools", [False, True], ids=["alone", "with tools"])
@pytest.mark.parametrize("provider", SHAPES)
async def test_an_answer_of_each_provider_is_data(speak: Any, provider: str, tools: bool, tmp_path: Path) -> None:
    async with speak(provider, SHAPES[provider], root=write_agent(tmp_path, tools=tools)) as (client, wire):
        answer = await ask(client)
    assert (answer["text"], answer["output"], len(wire.requests)) == (SHAPED, {"city": "Rome"}, 1)
    assert "city" in json.dumps(wire.requests)


NO_SHAPE = {
    "a server": ("openai", {"message": "response_format of type json_schema is not supported"}),
    "a schema that is refused": ("openai", {"code": "invalid_json_schema", "message": "Invalid schema for response_format"}),
    "a provider through litellm": ("anthropic", {"type": "invalid_request_error", "message": "output_format: Extra inputs are not permitted"}),
    "a model that has none": ("gemini", {"code": 400, "status": "INVALID_ARGUMENT", "message": "JSON mode is not enabled for this model"}),
}  # fmt: skip


@pytest.mark.parametrize(("provider", "said"), NO_SHAPE.values(), ids=NO_SHAPE)
async def test_a_provider_that_refuses_the_shape_is_asked_without_it_from_then_on(
    speak: Any, provider: str, said: dict[str, Any], tmp_path: Path
) -> None:
    refusal, right = error(400, {"type": "error", "error": said}), SHAPES[provider]
    async with speak(provider, refusal, right, root=write_agent(tmp_path)) as (client, wire):
        for asked in (2, 3):
            answer = await ask(client)
            assert (answer["text"], answer["output"], len(wire.requests)) == (SHAPED, {"city": "Rome"}, asked)
    refused, *taken = map(json.dumps, wire.requests)
    assert any(word in refused for word in ("response_format", "output_format", "response_schema"))
    assert not any(word in sent for sent in taken for word in ("response_format", "output_format", "response_schema"))


DECLINED = {
    "a refusal of Anthropic": ("anthropic", anthropic(stop="refusal")),
    "a block of Gemini": ("gemini", (200, SSE, events({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7}}))),
    "safety of Gemini": ("gemini", (200, SSE, events({"candidates": [{"finishReason": "SAFETY", "index": 0}]}))),
    "a filter in the stream": ("openai", openai(finish="content_filter")),
    "a refusal of OpenAI": ("openai", openai(refusal="I cannot help with that.")),
    "a filter of Azure": ("openai", error(400, {"error": {"code": "content_filter", "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", "innererror": {"code": "ResponsibleAIPolicyViolation"}}})),
    "a filter through litellm": ("groq", error(400, {"error": {"code": "content_filter", "message": "The response was filtered."}})),
    "moderation of a gateway": ("openai", error(403, {"error": {"code": 403, "message": "Your chosen model requires moderation and your input was flagged"}})),
}  # fmt: skip


@pytest.mark.parametrize(("provider", "reply"), DECLINED.values(), ids=DECLINED)
async def test_a_refusal_is_an_answer_and_no_failure(speak: Any, provider: str, reply: Reply) -> None:
    async with speak(provider, reply, model_retries=2) as (client, wire):
        for n in range(1, 8):  # more than open a breaker
            answer = await ask(client)
            assert (answer["status"], answer["error"], len(wire.requests)) == ("done", None, n)
        assert answer["text"].strip()
        assert answer["finish_reason"] == "content_filter"


TOO_LONG = {
    "OpenAI": ("openai", error(400, {"error": {"code": "context_length_exceeded", "message": "This model's maximum context length is 2048 tokens."}})),
    "llama.cpp": ("openai", error(400, {"error": {"code": 400, "type": "exceed_context_size_error", "message": "the request exceeds the available context size"}})),
    "vLLM": ("openai", error(400, {"object": "error", "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens", "type": "BadRequestError", "code": 400})),
    "in the stream": ("openai", (200, SSE, events({"error": {"message": "maximum context length is 2048 tokens", "code": 400}}))),
    "Anthropic": ("anthropic", error(400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}})),
    "Gemini": ("gemini", error(400, {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."}})),
    "Groq": ("groq", error(413, {"error": {"code": "rate_limit_exceeded", "type": "tokens", "message": "Request too large for model on tokens per minute (TPM): Limit 6000, Requested 7000"}})),
}  # fmt: skip


@pytest.mark.parametrize(("provider", "reply"), TOO_LONG.values(), ids=TOO_LONG)
async def test_a_request_that_is_too_long_is_made_once_more_with_half_of_the_history_and_a_note_says_so(
    speak: Any, provider: str, reply: Reply
) -> None:
    right = RIGHT[provider]
    async with speak(provider, right, right, reply, right, reply) as (client, wire):
        first = await ask(client, "one " * 300)
        await ask(client, "two", id=first["conversation_id"])
        answer = await ask(client, "three", id=first["conversation_id"])
        assert (answer["text"], [note["code"] for note in answer["notes"]]) == ("right", ["history_shortened"])
        assert len(json.dumps(wire.requests[3])) < len(json.dumps(wire.requests[2]))
        assert "two" in json.dumps(wire.requests[3])
        failed = await ask(client, "four", id=first["conversation_id"])
        assert (failed["error"]["message"], len(wire.requests)) == ("The conversation is too long for the model", 6)


NAMED = {
    "overloaded": ("anthropic", error(529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}), "is overloaded", 2),
    "overloaded in the stream": ("anthropic", (200, SSE, events({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})), "is overloaded", 2),
    "529 of a server of one's own": ("openai", error(529, {"error": {"message": "busy"}}), "is overloaded", 2),
    "no tools": ("ollama", error(400, {"error": "registry.ollama.ai/library/m does not support tools"}), "cannot call tools", 1),
    "no tools at a gateway": ("openai", error(404, {"error": {"code": 404, "message": "No endpoints found that support tool use."}}), "cannot call tools", 1),
    "no credit": ("openai", error(429, {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}), "no credit left", 1),
    "no credit at Anthropic": ("anthropic", error(400, {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the Anthropic API."}}), "no credit left", 1),
    "nothing but thoughts": ("openai", openai(finish="length", reasoning_content="Hmm."), "longest answer before it said anything", 1),
    "a long wait": ("openai", error(429, {"error": {"message": "slow down"}}, Retry_After="77"), "is over its limit; try again in 77 seconds", 1),
    "a broken call": ("groq", (200, SSE, events({"error": {"message": "Failed to call a function.", "type": "invalid_request_error", "code": "tool_use_failed", "failed_generation": "x"}})), "cannot be read", 2),
}  # fmt: skip


@pytest.mark.parametrize(("provider", "reply", "words", "times"), NAMED.values(), ids=NAMED)
async def test_what_is_the_matter_with_a_provider_is_said(
    speak: Any, provider: str, reply: Reply, words: str, times: int
) -> None:
    async with speak(provider, reply) as (client, wire):
        answer = await ask(client)
    assert words in answer["error"]["message"]
    assert len(wire.requests) == times


@pytest.mark.parametrize(
    ("provider", "reply"),
    [
        ("openai", error(429, {"error": {"message": "slow down"}}, Retry_After="0")),
        ("openai", error(429, {"error": {"message": "slow down"}}, Retry_After="Thu, 01 Jan 2026 00:00:00 GMT")),
        ("openai", error(429, {"error": {"message": "slow down"}}, Retry_After_Ms="1")),
        ("openai", error(429, {"error": {"message": "Rate limit reached. Please try again in 2ms."}})),
        ("groq", error(429, {"error": {"message": "slow down"}}, Retry_After="0")),
        ("anthropic", error(429, {"error": {"type": "rate_limit_error", "message": "slow down"}}, Retry_After="0")),
        ("gemini", error(429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.001s"}]}})),
    ],
)  # fmt: skip
async def test_a_provider_that_says_when_to_come_again_is_asked_then(speak: Any, provider: str, reply: Reply) -> None:
    # Without a word from the provider the waits of so many retries would be longer than the turn may be.
    async with speak(provider, *[reply] * 5, RIGHT[provider], model_retries=5, turn_timeout=12) as (client, wire):
        assert (await ask(client))["text"] == "right"
    assert len(wire.requests) == 6


FRAMINGS: dict[str, Callable[[str], str]] = {
    "comments": lambda body: ": PROCESSING\n\n" + body,
    "CRLF": lambda body: body.replace("\n", "\r\n"),
    "CR": lambda body: body.replace("\n", "\r"),
    "no space": lambda body: body.replace("data: ", "data:"),
    "no end": lambda body: body.replace("data: [DONE]\n\n", ""),
    "a byte order mark": lambda body: "\ufeff" + body,
    "names and ids": lambda body: body.replace("data: ", "event: message\nid: 7\ndata: "),
    "empty data": lambda body: "data: \n\ndata:\n\n" + body.replace("data: [DONE]", "data: \n\ndata: [DONE]"),
}


@pytest.mark.parametrize("client", ["lean", "sdk"])
@pytest.mark.parametrize("frame", FRAMINGS.values(), ids=FRAMINGS)
async def test_an_event_stream_may_be_written_in_any_way(speak: Any, frame: Callable[[str], str], client: str) -> None:
    status, headers, body = openai("Größe 日本 👩‍👩‍👧 שלום")
    async with speak("openai", (status, headers, frame(body)), model_client=client) as (asked, _):
        assert (await ask(asked))["text"] == "Größe 日本 👩‍👩‍👧 שלום"


async def test_a_burst_of_one_caller_does_not_have_the_model_left_alone(speak: Any) -> None:
    limited = error(429, {"error": {"message": "slow down"}}, Retry_After="0")
    async with speak("openai", *[limited] * 12, openai("right"), model_retries=5) as (client, wire):
        for _ in range(2):
            assert "over its limit" in (await ask(client))["error"]["message"]
        assert (await ask(client))["text"] == "right"
        assert len(wire.requests) == 13


async def test_developers_are_told_what_the_provider_said_without_its_secrets(speak: Any) -> None:
    refusal = error(400, {"error": {"code": "bad_thing", "message": "No such thing as sk-secret0123456789abcdef"}})
    async with speak("openai", refusal, environment="development") as (client, _):
        message = (await ask(client))["error"]["message"]
    assert "status 400 (it said: 400 bad_thing No such thing as" in message
    assert "sk-secret" not in message
    async with speak("openai", refusal) as (client, _):
        assert (await ask(client))["error"]["message"] == "The model's provider answered with status 400"


@pytest.mark.needs("chromium")
async def test_developers_read_it_in_the_page_and_in_chat_as_well(speak: Any, stocked_url: str, tmp_path: Path) -> None:
    refusal = error(400, {"error": {"code": "bad_thing", "message": "No such thing as sk-secret0123456789abcdef"}})
    said = "status 400 (it said: 400 bad_thing No such thing as"
    async with speak("openai", refusal, environment="development") as (client, _):
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
            page = await browser.new_page()
            await page.goto(f"{client.http.base_url}/#key={client.key}")
            await page.get_by_label("Message", exact=True).fill("hello")
            await page.keyboard.press("Enter")
            log = page.get_by_role("log", name="Messages")
            await expect(log).to_contain_text(said, timeout=30_000)
            assert "sk-secret" not in await page.content()
            await browser.close()
        variables = {
            "AGENT_SERVER_WORKSPACE": str(ROOT),
            "AGENT_SERVER_MODEL": "m",
            "AGENT_SERVER_MODEL_RETRIES": "1",
            "DATABASE_URL": stocked_url,
            "OPENAI_API_KEY": "x",
            "OPENAI_BASE_URL": client.server.settings.openai_base_url,
        }
        for environment, is_told in {"development": True, "test": False}.items():
            answer = await asyncio.to_thread(
                agent_server, "chat", "hello", cwd=tmp_path, AGENT_SERVER_ENVIRONMENT=environment, **variables
            )
            read = " ".join(answer.stderr.split())
            assert "status 400" in read
            assert (said in read) is is_told
            assert "sk-secret" not in answer.stdout + answer.stderr


def list_tasks(**more: Any) -> Reply:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "list_tasks", "arguments": "{}"}}
    return openai("", "tool_calls", tool_calls=[call], **more)


async def test_a_server_gets_back_what_its_model_thought_with_the_result_of_the_tool(speak: Any) -> None:
    async with speak("openai", list_tasks(reasoning_content="I look."), openai("right"), openai("again")) as (
        client,
        wire,
    ):
        first = await ask(client)
        assert (first["text"], first["reasoning"]) == ("right", "I look.")
        assert [m.get("reasoning_content") for m in wire.requests[1]["messages"] if m.get("tool_calls")] == ["I look."]
        await ask(client, id=first["conversation_id"])
        assert "I look." not in json.dumps(wire.requests[2])
    thinks = {"type": "thinking", "thinking": "I look.", "signature": "signed"}
    uses = {"type": "tool_use", "id": "toolu_1", "name": "list_tasks", "input": {}}
    async with speak("anthropic", anthropic(thinks, uses, stop="tool_use"), RIGHT["anthropic"]) as (client, wire):
        assert (await ask(client))["reasoning"] == "I look."
        given = [m["content"] for m in wire.requests[1]["messages"] if m["role"] == "assistant"][-1]
        assert [(block["type"], block.get("signature")) for block in given] == [
            ("thinking", "signed"),
            ("tool_use", None),
        ]
        assert "thinking" not in wire.requests[0], "how much it thinks is left to the provider"


async def test_no_server_gets_back_what_was_thought_in_the_text(speak: Any) -> None:
    async with speak("openai", list_tasks(content="<think>I look.</think>"), openai("<think>Hm.</think>\n\nright")) as (
        client,
        wire,
    ):
        answer = await ask(client)
    assert (answer["text"], answer["reasoning"]) == ("right", "I look.\n\nHm.")
    assert "I look." not in json.dumps(wire.requests[1])


async def test_ollama_makes_room_for_what_it_is_sent(speak: Any) -> None:
    async with speak("ollama", ollama("right"), context_window=5_000) as (client, wire):
        await ask(client)
    assert wire.requests[0]["options"]["num_ctx"] == 5_000
