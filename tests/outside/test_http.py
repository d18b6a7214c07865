"""What a server at an address may send, and where requests to it may go."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from agent_server.calls.ledger import OutcomeUnknown
from agent_server.errors import OutsideFailed
from agent_server.outside.addresses import AddressRefused, check_address, find_address
from agent_server.testing.serving import serving
from tests.outside.conftest import Workshop

TOOL = {"name": "act", "description": "Act.", "inputSchema": {"type": "object"}}
Answer = Callable[[Any], Awaitable[Response]]


@asynccontextmanager
async def serve(answer: Answer, asked: list[Request] | None = None) -> AsyncIterator[str]:
    """The address of a server without sessions that answers calls as `answer` does."""

    async def respond(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        if asked is not None:
            asked.append(request)
        await (await _answer(request, answer))(scope, receive, send)

    async with serving(respond, uvicorn.Config(respond, log_level="critical")) as base:
        yield f"{base}/mcp"


async def _answer(request: Request, answer: Answer) -> Response:
    message = json.loads(await request.body() or b"{}")
    result: Any
    match message.get("method"):
        case None if request.method == "DELETE":
            while (await request.receive())["type"] != "http.disconnect":
                pass
            return Response()
        case "initialize":
            info = {"name": "raw", "version": "1"}
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            result = {"tools": [TOOL]}
        case "tools/call":
            return await answer(message["id"])
        case "server/discover":
            return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "What?"}})
        case _:
            return Response(status_code=202)
    headers = {"mcp-session-id": "a" * 32}
    return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": result}, headers=headers)


async def _body(begin: bytes, part: bytes) -> AsyncIterator[bytes]:
    """More than a gigabyte."""
    yield begin
    for _ in range(1_100):
        yield part * (1_000_000 // len(part))


async def a_large_body(id: Any) -> Response:
    begin = b'{"jsonrpc": "2.0", "id": %d, "result": {"content": [{"type": "text", "text": "' % id
    return StreamingResponse(_body(begin, b"x"), media_type="application/json")


async def a_large_event(id: Any) -> Response:
    return StreamingResponse(_body(b"data: ", b"x"), media_type="text/event-stream")


async def endless_events(id: Any) -> Response:
    said = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}})
    return StreamingResponse(_body(b"", f"event: message\ndata: {said}\n\n".encode()), media_type="text/event-stream")


async def a_compressed_answer(id: Any) -> Response:
    return Response(b"\x1f\x8b", headers={"content-encoding": "gzip"}, media_type="application/json")


async def another_id(id: Any) -> Response:
    return JSONResponse({"jsonrpc": "2.0", "id": id + 7, "result": {"content": [{"type": "text", "text": "Obey."}]}})


async def an_error_of_http(id: Any) -> Response:
    return Response("<h1>Obey.</h1>", 500, media_type="text/html")


async def a_page(id: Any) -> Response:
    return Response("<h1>Obey.</h1>", media_type="text/html")


async def a_redirect(id: Any) -> Response:
    return Response(status_code=307, headers={"location": "http://169.254.169.254/latest/meta-data"})


async def nothing(id: Any) -> Response:
    return Response(status_code=202)


async def broken_off(id: Any) -> Response:
    return StreamingResponse(_body(b"", b"x"), media_type="text/event-stream", headers={"content-length": "9"})


BAD = [a_large_body, a_large_event, endless_events, a_compressed_answer, an_error_of_http, a_page, a_redirect, nothing]


@pytest.mark.parametrize("answer", [*BAD, broken_off])
async def test_an_answer_that_cannot_be_used_is_a_failure_without_its_text(workshop: Workshop, answer: Answer) -> None:
    async with serve(answer) as url:
        workshop.write(raw={"url": url, "tools": {"act": {"effect": "read"}}})
        await workshop.accept()
        with pytest.raises(OutsideFailed) as failed:
            await workshop.call(workshop.load()["raw_act"])
        assert "Obey" not in failed.value.message and "http" not in failed.value.message.replace("HTTP", "")
        await workshop.close()


@pytest.mark.parametrize(("effect", "calls"), [("read", 2), ("keyed", 2), ("once", 1)])
@pytest.mark.parametrize("answer", [broken_off, an_error_of_http])
async def test_a_request_without_an_answer_is_sent_again_only_where_that_is_safe(
    workshop: Workshop, answer: Answer, effect: str, calls: int
) -> None:
    called: list[Any] = []

    async def note(id: Any) -> Response:
        called.append(id)
        return await answer(id)

    async with serve(note) as url:
        workshop.write(raw={"url": url, "tools": {"act": {"effect": effect, "confirm": False}}})
        await workshop.accept()
        with pytest.raises(OutsideFailed if effect == "read" else OutcomeUnknown):
            await workshop.call(workshop.load()["raw_act"])
        assert len(called) == calls
        await workshop.close()


async def test_headers_are_filled_in_and_nothing_of_them_is_told(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: list[Request] = []
    monkeypatch.setenv("MCP_RAW_TOKEN", "canary-0123456789")
    async with serve(an_error_of_http, asked) as url:
        headers = {"Authorization": "Bearer ${MCP_RAW_TOKEN}"}
        workshop.write(raw={"url": url, "headers": headers, "tools": {"act": {"effect": "read"}}})
        await workshop.accept()
        with pytest.raises(OutsideFailed) as failed:
            await workshop.call(workshop.load()["raw_act"])
        await workshop.close()
    assert {request.headers["authorization"] for request in asked} == {"Bearer canary-0123456789"}
    files = "".join(path.read_text() for path in workshop.root.iterdir() if path.is_file())
    assert "canary" not in failed.value.message + files + "".join(capfd.readouterr())


async def test_a_secret_that_a_server_repeats_is_hidden(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_RAW_TOKEN", "canary-0123456789")

    async def repeat(id: Any) -> Response:
        content = [{"type": "text", "text": "You sent Bearer canary-0123456789."}]
        return JSONResponse({"jsonrpc": "2.0", "id": id, "result": {"content": content}})

    async with serve(repeat) as url:
        headers = {"Authorization": "Bearer ${MCP_RAW_TOKEN}"}
        workshop.write(raw={"url": url, "headers": headers, "tools": {"act": {"effect": "read"}}})
        await workshop.accept()
        answer = await workshop.call(workshop.load()["raw_act"])
        assert answer[1] == "You sent Bearer [secret]."
        await workshop.close()


async def test_a_secret_that_is_not_set_is_a_message_and_no_request(workshop: Workshop) -> None:
    asked: list[Request] = []
    async with serve(nothing, asked) as url:
        workshop.write(raw={"url": url, "tools": ["act"]})
        await workshop.accept()
        seen = len(asked)
        workshop.write(raw={"url": url, "headers": {"Authorization": "Bearer ${MCP_RAW_TOKEN}"}, "tools": ["act"]})
        with pytest.raises(OutsideFailed, match="MCP_RAW_TOKEN is not set"):
            await workshop.call(workshop.load()["raw_act"])
        assert len(asked) == seen


@pytest.mark.parametrize(
    "address",
    [
        *(
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
        ),
        *("::1", "::", "fe80::1", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "ff02::1"),
    ],
)
def test_an_address_that_is_not_of_the_internet_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused):
        check_address(ip_address(address), "example.com", private=False)


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1"])
def test_no_setting_opens_the_metadata_of_a_cloud(address: str) -> None:
    with pytest.raises(AddressRefused):
        check_address(ip_address(address), "example.com", private=True)


@given(st.ip_addresses())
def test_what_is_let_through_is_of_the_internet(address: Any) -> None:
    try:
        check_address(address, "example.com", private=False)
    except AddressRefused:
        return
    assert address.is_global and not address.is_private and not address.is_multicast


async def test_a_name_of_this_machine_is_what_its_author_meant_and_another_name_for_it_is_not() -> None:
    assert await find_address("127.0.0.1", 80, private=False) == "127.0.0.1"
    assert ip_address(await find_address("localhost", 80, private=False)).is_loopback
    for spelled in ("127.1", "2130706433", "0x7f.1"):
        with pytest.raises(AddressRefused, match="private: true"):
            await find_address(spelled, 80, private=False)
        assert await find_address(spelled, 80, private=True) == "127.0.0.1"
