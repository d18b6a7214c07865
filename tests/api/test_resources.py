"""/api/resources: what MCP clients read by an address, with the same rights."""

import base64
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from agent_server.mcp.metadata import PATH
from tests.server import Client, Start

TOOLS = '''
from agent_server import ToolContext, resource


@resource("shop://hours", scope="shop:read")
async def hours(context: ToolContext) -> dict[str, int]:
    """When the shop is open."""
    return {"from": 9, "to": 17}


@resource("shop://logo", scope="shop:read", mime_type="image/png")
async def logo(context: ToolContext) -> bytes:
    """The logo of the shop."""
    return b"\\x89PNG"


@resource("staff://plan", scope="staff:read")
async def plan(context: ToolContext) -> str:
    """Who works when."""
    return "Ann"


@resource("shop://shelves/{+path}", scope="shop:read")
async def shelf(context: ToolContext, path: str) -> str:
    """What is on a shelf."""
    return path
'''
PROMPT = "---\nname: docs\ndescription: Answers.\nknowledge: [pages]\n---\nAnswer.\n"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    for path, text in (
        ("tools/shop.py", TOOLS),
        ("prompts/docs.md", PROMPT),
        *((f"content/pages/{name}.md", f"# Page {name}\n\nText of {name}.\n") for name in ("a", "b", "c ü")),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


async def _ask(client: Client, key: str, path: str, **query: Any) -> httpx.Response:
    return await client.http.get(path, params=query, headers={"Authorization": f"Bearer {key}"})


async def _list_over_mcp(client: Client, key: str) -> list[str]:
    headers = {"Authorization": f"Bearer {key}", "MCP-Protocol-Version": "2025-11-25", "Accept": "application/json"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "resources/list", "params": {}}
    answer = await client.http.post(PATH, json=body, headers=headers)
    return [each["uri"] for each in answer.json()["result"]["resources"]]


async def _list_all(client: Client, key: str, limit: int) -> list[str]:
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await _ask(client, key, "/api/resources", limit=limit, **cursor)).json()
        assert len(page["items"]) <= limit
        found += [each["uri"] for each in page["items"]]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


async def test_a_caller_lists_and_reads_what_it_may_and_nothing_else(start_other: Start, shop: Path) -> None:
    async with start_other(root=shop) as client:
        everything, mine = await client.new_key(), await client.new_key("shop:read")
        pages = ["content://pages/a.md", "content://pages/b.md", f"content://pages/{quote('c ü')}.md"]
        listed = await _list_all(client, everything, 200)
        assert listed == ["shop://hours", "shop://logo", "staff://plan", *pages]
        for limit in range(1, len(listed) + 1):
            assert await _list_all(client, everything, limit) == listed
        assert await _list_all(client, mine, 1) == ["shop://hours", "shop://logo"]
        for key in (everything, mine):
            assert await _list_over_mcp(client, key) == await _list_all(client, key, 200)
        templates = (await _ask(client, mine, "/api/resources/templates")).json()
        assert [each["uri"] for each in templates] == ["shop://shelves/{+path}"]

        async def read(uri: str, key: str = mine) -> tuple[int, dict[str, Any]]:
            answer = await _ask(client, key, "/api/resources/read", uri=uri)
            return answer.status_code, answer.json()

        assert await read("shop://hours") == (
            200,
            {"uri": "shop://hours", "mime_type": "application/json", "text": '{"from":9,"to":17}', "blob": None},
        )
        _, logo = await read("shop://logo")
        assert (logo["mime_type"], base64.b64decode(logo["blob"])) == ("image/png", b"\x89PNG")
        assert (await read("shop://shelves/a/b%20c"))[1]["text"] == "a/b c"
        assert (await read(pages[2], everything))[1]["text"] == "# Page c ü\n\nText of c ü.\n"
        for uri, code in ((pages[0], "forbidden"), ("staff://plan", "forbidden"), ("shop://nowhere", "not_found")):
            status, body = await read(uri)
            assert (status, body["code"]) == ({"forbidden": 403, "not_found": 404}[code], code), uri
        for cursor in ("nonsense", "cjpzaG9wOi8vaG91cnM", "eDphYmM", "ZDoA"):
            answer = await _ask(client, everything, "/api/resources", cursor=cursor)
            # One that names a resource is of use; nothing else is.
            assert answer.status_code == (200 if cursor.startswith("cjpz") else 422), cursor


async def test_guests_and_other_users_read_nothing_of_a_callers(client: Client) -> None:
    conversation = (await client.ask("Hello"))["conversation_id"]
    uri = f"conversation://{conversation}"
    assert "Hello" in (await client.get("/api/resources/read", uri=uri))["text"]
    theirs = await _ask(client, await client.new_key(), "/api/resources/read", uri=uri)
    assert (theirs.status_code, theirs.json()["code"]) == (404, "not_found")
    guest = (await client.http.post("/api/session", json={})).json()["token"]
    for path in ("/api/resources", "/api/resources/templates", "/api/resources/read?uri=content://safety/flying.md"):
        assert (await client.http.get(path)).status_code == 401
        assert (await client.http.get(path, headers={"Authorization": f"Bearer {guest}"})).status_code == 403
    acts = (await client.get("/api/me/audit"))["items"]
    assert [act["surface"] for act in acts if act["action"] == "conversation"] == ["rest"]
