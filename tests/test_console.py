"""The console in development shows what a person needs: requests, what they can do something about, no more."""

import io
import sys
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from agent_server.log import configure_logging
from tests.server import Client


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    yield from record("INFO", monkeypatch)


def record(level: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    written = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", written)
        configure_logging(level, "console")
    yield written
    configure_logging("WARNING", "console")


async def test_a_request_is_one_line_and_what_a_page_asks_for_by_itself_is_none(
    client: Client, console: io.StringIO
) -> None:
    for path in ("/", "/static/app.js", "/static/no-such.js", "/favicon.ico", "/health", "/readyz"):
        await client.http.get(path)
    await client.ask("Add fins to my list")
    await client.http.get("/api/conversations")
    page, chat, refused = console.getvalue().splitlines()
    assert page == "GET / 200 0.0 s"
    assert chat.startswith("POST /api/chat 200 ") and chat.endswith(" s")
    assert refused == "GET /api/conversations 401 0.0 s"


@given(path=st.text(max_size=40))
def test_no_path_writes_a_second_line_or_a_command_to_the_terminal(path: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for console in record("INFO", monkeypatch):
            structlog.get_logger().info("http.request", method="GET", path=f"/{path}", status=404, latency_ms=1234.5)
            line = console.getvalue().removesuffix("\n")
    assert line.isprintable()
    method, _, status, seconds, unit = line.split(" ")
    assert (method, status, seconds, unit) == ("GET", "404", "1.2", "s")


def test_what_fails_is_shown_also_of_what_a_page_asks_for(console: io.StringIO) -> None:
    structlog.get_logger().info("http.request", method="GET", path="/static/app.js", status=500, latency_ms=3.0)
    structlog.get_logger().info("turn.done", agent="safety")
    structlog.get_logger().warning("model.fault", model="m", reason="is overloaded")
    request, fault = console.getvalue().splitlines()
    assert request == "GET /static/app.js 500 0.0 s"
    assert "model.fault" in fault and "is overloaded" in fault


def test_a_stop_that_waits_says_for_what_and_how_long(console: io.StringIO) -> None:
    structlog.get_logger().info("server.stopping", seconds=25.0)
    structlog.get_logger().info("server.stopping", seconds=0.0)
    assert console.getvalue().splitlines() == [
        "Stopping. Answers that are being given have 25 s; press ctrl-C again to stop at once."
    ]


def test_at_debug_everything_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for console in record("DEBUG", monkeypatch):
        structlog.get_logger().info("http.request", method="GET", path="/static/x", status=200, latency_ms=1.0)
        structlog.get_logger().info("turn.done", agent="safety")
        assert "http.request" in console.getvalue() and "turn.done" in console.getvalue()
