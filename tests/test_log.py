"""The log: a line says what it belongs to, and no line has a secret or a person's data, in either format."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog
from dirty_equals import IsFloat, IsPartialDict, IsStr

from agent_server.identity.credentials import resolve_caller
from agent_server.log import configure_logging, masked
from tests.server import Start

CANARIES = {
    "key of ours": "ask_01a1fc2db63673dc88212073b2c175f8.cheBurJx5axOXiiFEc8O18FK1rwsTmW7tahwpSp2b6o",
    "guest token": "asg_01a1fc2db63673dc88212073b2c175f8.cheBurJx5axOXiiFEc8O18FK1rwsTmW7tahwpSp2b6o",
    "OpenAI key": "sk-proj-Zk3vBq8mN2xLr7TtYw5c",
    "Anthropic key": "sk-ant-api03-Zk3vBq8mN2xLr7TtYw5cAAAA",
    "Groq key": "gsk_Zk3vBq8mN2xLr7TtYw5cZk3vBq8mN2xL",
    "Gemini key": "AIzaSyD-Zk3vBq8mN2xLr7TtYw5cZk3vBq8mN2x",
    "GitHub token": "ghp_Zk3vBq8mN2xLr7TtYw5cZk3vBq8mN2xLr7Tt",
    "bearer": "Bearer Zk3vBq8mN2xLr7TtYw5c",
    "basic": "Basic YWRhOm9wZW5zLWV2ZXJ5dGhpbmc=",
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.dBjftJeZ4CVPmB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    "e-mail": "ada.lovelace+dive@mail.example.co.uk",
    "phone": "+44 20 7946 0958",
    "phone in one": "+442079460958",
    "card": "4111 1111 1111 1111",
    "card in one": "4111111111111111",
    "IBAN": "DE89 3704 0044 0532 0130 00",
    "IBAN in one": "GB29NWBK60161331926819",
    "address of a database": "postgresql://ada:opens-everything@db.example/app",
    "the driver's": "postgresql+asyncpg://ada:opens-everything@db.example:5432/app",
}
KEPT = [
    "tools/todo/tasks.py:41",
    "01a1fc30-2385-73b3-824b-64bd685c1840",
    "2026-11-21T03:39:35.735736Z",
    "7.123456789012",
    "GET /api/conversations/01a1fc30-2385-73b3-824b-64bd685c1840 200",
    "postgresql://db.example/app",
    "a depth of 30 m for 25 minutes",
    "the basic course",
]


@pytest.fixture(params=["json", "console"])
def lines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, in each of the formats."""
    yield from _recorded(request.param, monkeypatch)


@pytest.fixture
def json_lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    yield from _recorded("json", monkeypatch)


def _recorded(format: Literal["json", "console"], monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    written = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", written)
        configure_logging("INFO", format)
    yield written
    structlog.contextvars.clear_contextvars()
    configure_logging("WARNING", "console")


def secret_of(canary: str) -> str:
    """The part that must not be seen: of an address its password, of a header its credential."""
    if "://" in canary:
        return "opens-everything"
    return canary.split(" ")[1] if canary.startswith(("Bearer", "Basic")) else canary


@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES)
def test_a_secret_is_masked_wherever_it_stands(canary: str, lines: io.StringIO) -> None:
    log = structlog.get_logger()
    log.info(f"Said {canary}, then left")
    log.info("x", value=canary, nested={"a": [{"b": (canary, 1)}]}, object=ValueError(canary), items={canary})
    log.info("x", **{"nested": {canary: 1}})
    structlog.contextvars.bind_contextvars(bound=canary)
    log.info("x")
    logging.getLogger("a.library").warning("%s said %s", "it", canary)
    try:
        try:
            raise KeyError(canary)
        except KeyError as error:
            raise RuntimeError(f"after {canary}") from error
    except RuntimeError:
        log.exception("failed")
        logging.getLogger("a.library").exception("failed")
    text = lines.getvalue()
    assert text.count("Traceback") >= 2, text
    assert secret_of(canary) not in text, text


@pytest.mark.parametrize("key", ["password", "api_key", "X-Api-Key", "Authorization", "cookie", "refresh_token", "dsn"])
def test_a_value_whose_name_says_that_it_is_secret_is_masked_whatever_it_is(key: str, lines: io.StringIO) -> None:
    structlog.get_logger().info("x", **{key: "tame"}, nested={key: "tame"}, headers=[(key, "kept"), {key: ["tame"]}])
    assert "tame" not in lines.getvalue(), lines.getvalue()


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_secret_is_kept(text: str) -> None:
    assert masked(text) == text


def test_the_usage_of_a_model_is_not_taken_for_a_secret(json_lines: io.StringIO) -> None:
    structlog.get_logger().info("turn.done", usage={"input_tokens": 10, "output_tokens": 5})
    assert json.loads(json_lines.getvalue())["usage"] == {"input_tokens": 10, "output_tokens": 5}


def test_a_json_line_has_the_traceback_in_one_line(json_lines: io.StringIO) -> None:
    try:
        raise RuntimeError("no")
    except RuntimeError:
        structlog.get_logger().exception("tool.failed", tool="divide")
    (line,) = json_lines.getvalue().splitlines()
    assert json.loads(line) == IsPartialDict(
        event="tool.failed",
        level="error",
        tool="divide",
        timestamp=IsStr,
        exception=IsStr(regex="(?s).*RuntimeError.*"),
    )


def test_a_line_is_one_write_so_that_those_of_several_workers_do_not_mingle(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Unbuffered(io.StringIO):
        """As stderr is with `PYTHONUNBUFFERED=1`, which images for containers set."""

        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Unbuffered())
        configure_logging("INFO", "console")
    structlog.get_logger().info("ours")
    logging.getLogger("a.library").warning("theirs")
    configure_logging("WARNING", "console")
    assert written == [IsStr(regex="(?s).*ours.*\n"), IsStr(regex="(?s).*theirs.*\n")]


async def test_a_tool_call_over_http_leaves_lines_that_say_whose_it_was(start: Start, json_lines: io.StringIO) -> None:
    async with start() as client:
        me = str((await resolve_caller(client.server.database, client.key)).id)
        answer = await client.ask("Add call ada@example.com on +44 20 7946 0958 to my list")
        given = {**client.auth, "X-Request-Id": "r-1"}
        await client.http.post("/api/tools/create_task", json={"title": "x"}, headers=given)
        await client.http.post(
            "/api/tools/create_task", json={"title": ""}, headers={"Authorization": "Bearer no-such-key"}
        )
    written = [json.loads(line) for line in json_lines.getvalue().splitlines()]
    in_chat, over_rest = [line for line in written if line["event"] == "tool.called"]
    assert in_chat == IsPartialDict(
        tool="create_task", surface="agent", outcome="ok", caller=me, latency_ms=IsFloat(gt=0), request_id=IsStr,
        conversation_id=answer["conversation_id"], turn_id=answer["turn_id"],
    )  # fmt: skip
    assert over_rest == IsPartialDict(
        tool="create_task", surface="rest", outcome="ok", caller=me, latency_ms=IsFloat(gt=0), request_id="r-1"
    )
    request = next(line for line in written if line["event"] == "http.request" and line["request_id"] == "r-1")
    assert request == IsPartialDict(method="POST", path="/api/tools/create_task", status=200, caller=me)
    assert written[-1] == IsPartialDict(event="http.request", status=401)
    text = json_lines.getvalue()
    for private in ("ada@example.com", "7946", "no-such-key", client.key):
        assert private not in text
