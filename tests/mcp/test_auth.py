"""Who may speak MCP over HTTP, and what the others are told."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest
from inline_snapshot import snapshot
from mcp.shared.exceptions import MCPError
from mcp_types import CLIENT_CAPABILITIES_META_KEY, PROTOCOL_VERSION_META_KEY
from starlette.types import Message

from agent_server.audit import AuditRepository
from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.db import Database, new_id
from agent_server.identity.credentials import issue_guest, issue_key, revoke_key
from agent_server.identity.resolver import resolve_caller
from agent_server.mcp import McpApp, mcp_app
from agent_server.settings import Settings
from tests.conftest import everything
from tests.mcp.conftest import VERSIONS, Mode, Notebook, serve_mcp
from tests.mcp.notes import TOOLS, Gate

ADD = {"name": "add_note", "arguments": {"text": "Buy fins"}}


async def test_without_a_token_the_answer_is_401_with_a_bearer_challenge(notebook: Notebook, mode: Mode) -> None:
    answer = await notebook.post(mode, "tools/call", ADD, {"Authorization": None})

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == (
        f'Bearer scope="conversations:read knowledge:read notes:read", resource_metadata="{metadata_of(notebook)}"'
    )
    assert answer.json() == snapshot(
        {
            "jsonrpc": "2.0",
            "id": None,
            "error": {
                "code": -32600,
                "message": "unauthorized: MCP needs an API key: send `Authorization: Bearer <API key>`",
                "data": {"code": "unauthorized"},
            },
        }
    )


async def test_a_token_that_is_not_ours_is_401(notebook: Notebook, mode: Mode) -> None:
    nobody = "00000000000000000000000000000000.AAAA"
    for header in (
        "Bearer nonsense",
        f"Bearer ask_{nobody}",
        f"Bearer asg_{nobody}",
    ):
        answer = await notebook.post(mode, "tools/list", {}, {"Authorization": header})

        assert answer.status_code == 401
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith(
            'Bearer error="invalid_token", scope="conversations:read knowledge:read notes:read", error_desc'
        )
        assert challenge.endswith(f', resource_metadata="{metadata_of(notebook)}"')


async def test_what_is_no_bearer_token_is_no_error_of_a_token(notebook: Notebook, mode: Mode) -> None:
    for header in ("Bearer", "Basic dXM6cGFzcw==", ""):
        answer = await notebook.post(mode, "tools/list", {}, {"Authorization": header})

        assert answer.status_code == 401
        assert "error" not in answer.headers["www-authenticate"]


def metadata_of(notebook: Notebook) -> str:
    return notebook.url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")


async def test_a_revoked_key_is_401(notebook: Notebook, mode: Mode) -> None:
    async with everything(notebook.database) as session:
        issued = await issue_key(session, notebook.me.id, name="old", scopes=["*"])
        await revoke_key(session, issued.row.id)

    answer = await notebook.post(mode, "tools/list", {}, {"Authorization": f"Bearer {issued.text}"})

    assert answer.status_code == 401


async def test_a_key_counts_only_in_the_authorization_header(notebook: Notebook, mode: Mode) -> None:
    key = notebook.key
    elsewhere: list[tuple[str, dict[str, str | None]]] = [
        ("", {"Cookie": f"authorization=Bearer {key}; token={key}"}),
        (f"?access_token={key}&token={key}", {}),
        ("", {"X-Api-Key": key, "X-Guest-Token": key}),
    ]
    for query, headers in elsewhere:
        sender = replace(notebook, url=notebook.url + query)
        answer = await sender.post(mode, "tools/list", {}, {"Authorization": None, **headers})

        assert answer.status_code == 401


async def test_a_guest_is_told_that_a_key_is_needed(notebook: Notebook, mode: Mode) -> None:
    async with everything(notebook.database) as session:
        guest = await issue_guest(session, new_id(), hours=1)

    answer = await notebook.post(mode, "tools/list", {}, {"Authorization": f"Bearer {guest.token}"})

    assert answer.status_code == 403
    assert answer.headers["www-authenticate"] == (
        'Bearer error="insufficient_scope", error_description="A guest may only chat; MCP needs an API key (`agent-server key create` makes one)"'
        f', resource_metadata="{metadata_of(notebook)}"'
    )
    assert answer.json() == snapshot(
        {
            "jsonrpc": "2.0",
            "id": None,
            "error": {
                "code": -32600,
                "message": "forbidden: A guest may only chat; MCP needs an API key (`agent-server key create` makes one)",
                "data": {"code": "forbidden"},
            },
        }
    )


async def test_a_missing_scope_is_403_with_that_scope_in_the_challenge(notebook: Notebook, mode: Mode) -> None:
    key = await notebook.issue_key("notes:read")

    answer = await notebook.post(mode, "tools/call", ADD, {"Authorization": f"Bearer {key}"})

    assert answer.status_code == 403
    assert answer.headers["www-authenticate"] == (
        'Bearer error="insufficient_scope", scope="notes:read notes:write", '
        'error_description="add_note needs the scope notes:write, which this caller lacks", '
        f'resource_metadata="{metadata_of(notebook)}"'
    )
    assert answer.json() == snapshot(
        {
            "jsonrpc": "2.0",
            "id": None,
            "error": {
                "code": -32600,
                "message": "forbidden: add_note needs the scope notes:write, which this caller lacks",
                "data": {"code": "forbidden", "scope": "notes:write"},
            },
        }
    )
    assert await notebook.notes() == []


async def test_a_missing_scope_is_on_record(notebook: Notebook, mode: Mode) -> None:
    key = await notebook.issue_key("notes:read")
    await notebook.post(mode, "tools/call", ADD, {"Authorization": f"Bearer {key}"})

    async with everything(notebook.database) as session:
        rows = (await session.execute(AuditRepository(session, notebook.me).visible())).scalars().all()
    assert [(row.action, row.outcome, row.surface) for row in rows] == [("add_note", "forbidden", "mcp")]


async def test_the_scope_of_documents_is_asked_for_as_that_of_tools_is(notebook: Notebook, mode: Mode) -> None:
    key = await notebook.issue_key("notes:read")
    params = {"uri": "content://safety/flying.md"}

    answer = await notebook.post(mode, "resources/read", params, {"Authorization": f"Bearer {key}"})

    assert answer.status_code == 403
    assert 'scope="knowledge:read notes:read"' in answer.headers["www-authenticate"]


async def test_headers_that_name_another_tool_do_not_open_the_door(notebook: Notebook) -> None:
    key = await notebook.issue_key("notes:read")
    headers: dict[str, str | None] = {"Authorization": f"Bearer {key}", "Mcp-Name": "list_notes"}

    answer = await notebook.post("modern", "tools/call", ADD, headers)

    assert answer.status_code == 403
    assert await notebook.notes() == []


async def test_a_client_shows_its_user_why_it_was_refused(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode, await notebook.issue_key("notes:read")) as client:
        with pytest.raises(MCPError) as refused:
            await client.call_tool("add_note", {"text": "Buy fins"})

    assert refused.value.message == "forbidden: add_note needs the scope notes:write, which this caller lacks"


async def test_another_host_is_refused(notebook: Notebook, mode: Mode) -> None:
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"):
        answer = await notebook.post(mode, "tools/call", ADD, {"Host": host})

        assert answer.status_code == 421
    assert await notebook.notes() == []


async def test_this_machine_and_the_allowed_hosts_are_served(notebook: Notebook, mode: Mode) -> None:
    for host in ("localhost", "localhost:9", "127.0.0.1", "[::1]:9", "api.example.com", "api.example.com:443"):
        answer = await notebook.post(mode, "tools/list", {}, {"Host": host})

        assert answer.status_code == 200


async def test_a_page_of_another_origin_is_refused(notebook: Notebook, mode: Mode) -> None:
    answer = await notebook.post(mode, "tools/call", ADD, {"Origin": "https://evil.example"})

    assert answer.status_code == 403
    assert await notebook.notes() == []


async def test_a_page_of_an_allowed_host_is_served(notebook: Notebook, mode: Mode) -> None:
    answer = await notebook.post(mode, "tools/list", {}, {"Origin": "https://api.example.com"})

    assert answer.status_code == 200


async def test_a_body_over_the_limit_is_413(notebook: Notebook, mode: Mode) -> None:
    answer = await notebook.post(mode, "tools/call", {"name": "add_note", "arguments": {"text": "x" * 1_048_576}})

    assert answer.status_code == 413
    assert answer.json()["error"]["data"] == {"code": "too_large"}


async def test_a_body_without_a_length_is_limited_as_well(notebook: Notebook) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    async with httpx.AsyncClient() as http:
        answer = await http.post(notebook.url, content=chunks(), headers={"Authorization": f"Bearer {notebook.key}"})

    assert answer.status_code == 413


async def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_failure(app: McpApp, notebook: Notebook) -> None:
    sent: list[Message] = [
        {"type": "http.request", "body": b'{"jsonrpc"', "more_body": True},
        {"type": "http.disconnect"},
    ]
    answered: list[Message] = []

    async def receive() -> Message:
        return sent.pop(0)

    async def send(message: Message) -> None:
        answered.append(message)

    headers = [(b"authorization", f"Bearer {notebook.key}".encode())]
    await app.routes[0].app({"type": "http", "method": "POST", "path": "/mcp", "headers": headers}, receive, send)

    assert answered == []


async def test_only_post_is_served(notebook: Notebook, mode: Mode) -> None:
    headers = {
        "Authorization": f"Bearer {notebook.key}",
        "Accept": "text/event-stream",
        "MCP-Protocol-Version": VERSIONS[mode],
    }
    async with httpx.AsyncClient() as http:
        answers = [await http.request(method, notebook.url, headers=headers) for method in ("GET", "DELETE", "PUT")]

    assert [(answer.status_code, answer.headers["allow"]) for answer in answers] == [(405, "POST")] * 3


async def test_the_address_is_served_with_and_without_a_slash(notebook: Notebook, mode: Mode) -> None:
    for sender in (notebook, replace(notebook, url=notebook.url + "/")):
        answer = await sender.post(mode, "tools/list", {})

        assert answer.status_code == 200


async def test_white_space_around_header_values_does_not_matter(notebook: Notebook) -> None:
    """httptools, which uvicorn prefers, leaves it there; an HTTP client would not send it."""
    port = httpx.URL(notebook.url).port
    meta = {PROTOCOL_VERSION_META_KEY: VERSIONS["modern"], CLIENT_CAPABILITIES_META_KEY: {}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {**ADD, "_meta": meta}})
    head = [
        "POST /mcp HTTP/1.1",
        f"Host: localhost:{port}",
        f"Authorization: Bearer {notebook.key}  ",
        "Accept: application/json, text/event-stream",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"MCP-Protocol-Version: {VERSIONS['modern']}  ",
        "Mcp-Method:   tools/call \t",
        "Mcp-Name: add_note ",
        "Connection: close",
    ]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([*head, "", body]).encode())
    status, *_ = (await reader.read()).split(b"\r\n")
    writer.close()
    await writer.wait_closed()

    assert status == b"HTTP/1.1 200 OK"
    assert await notebook.notes() == ["Buy fins"]


async def test_while_the_database_is_away_the_answer_is_503(settings: Settings, me: Caller, mode: Mode) -> None:
    away = Database("postgresql://nobody@127.0.0.1:9/nothing")
    runtime = Runtime(settings=settings, database=away)
    app = mcp_app(runtime, TOOLS, name="n", version="1", instructions="", resolve=partial(resolve_caller, away))
    key = f"ask_{me.id.hex}.AAAA"
    async with serve_mcp(app) as url:
        answer = await Notebook(url, me, key, away, Gate()).post(mode, "tools/list", {})
    await away.close()

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["error"]["data"] == {"code": "unavailable"}


@pytest.mark.parametrize("method", ["initialize", "server/discover", "tools/list", "ping", "nonsense"])
async def test_nothing_is_told_to_whoever_has_no_credential(notebook: Notebook, mode: Mode, method: str) -> None:
    answer = await notebook.post(mode, method, {}, {"Authorization": None})

    assert answer.status_code == 401
    assert not any(told in answer.text for told in (*TOOLS, "Notes."))


@pytest.mark.parametrize("body", [[], [[]]], ids=["batch", "batch of a batch"])
async def test_a_batch_passes_no_call_by_the_check(notebook: Notebook, mode: Mode, body: list[Any]) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": ADD}
    batch = [[call]] if body else [{"jsonrpc": "2.0", "id": 0, "method": "ping"}, call]
    headers = {
        "Authorization": f"Bearer {await notebook.issue_key('notes:read')}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": VERSIONS[mode],
    }
    async with httpx.AsyncClient() as http:
        refused = await http.post(notebook.url, json=batch, headers=headers)
        allowed = await http.post(
            notebook.url, json=batch, headers=headers | {"Authorization": f"Bearer {notebook.key}"}
        )

    assert (refused.status_code, allowed.status_code) == (403, 400)
    assert await notebook.notes() == []


@pytest.mark.parametrize(
    "encode",
    [lambda text: text.encode("utf-16"), lambda text: text[:-1].encode()],
    ids=["UTF-16", "cut off"],
)
async def test_a_body_that_we_cannot_read_is_no_call(
    notebook: Notebook, mode: Mode, encode: Callable[[str], bytes]
) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": ADD}
    headers = {
        "Authorization": f"Bearer {await notebook.issue_key('notes:read')}",
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": VERSIONS[mode],
        "Mcp-Method": "tools/call",
        "Mcp-Name": "add_note",
    }
    async with httpx.AsyncClient() as http:
        answer = await http.post(notebook.url, content=encode(json.dumps(call)), headers=headers)

    assert answer.status_code == 400
    assert await notebook.notes() == []


async def test_lists_hold_what_the_caller_may_use_and_are_for_it_alone(notebook: Notebook) -> None:
    everybody = {"Authorization": f"Bearer {await notebook.issue_key('notes:send')}"}
    listed = {}
    for method in ("tools/list", "resources/list", "resources/templates/list"):
        result = (await notebook.post("modern", method, {}, {**everybody})).json()["result"]
        assert result["cacheScope"] == "private"
        listed[method] = next(value for value in result.values() if isinstance(value, list))

    assert [tool["name"] for tool in listed.pop("tools/list")] == ["mail_note", "share_note"]
    assert listed == {"resources/list": [], "resources/templates/list": []}
