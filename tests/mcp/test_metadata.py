"""What an OAuth client learns of `/mcp` before it has a token."""

import pytest

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.db import Database
from agent_server.mcp import canonical_address, mcp_app
from agent_server.settings import Issuer, Settings
from tests.mcp.conftest import Notebook, serve_mcp
from tests.mcp.notes import DOCUMENTS, TOOLS
from tests.server import Client

PATHS = ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"]


@pytest.mark.parametrize("path", PATHS)
async def test_the_document_names_the_resource_and_the_scopes_that_are_not_for_staff(client: Client, path: str) -> None:
    answer = await client.http.get(path)
    document = answer.json()

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    tools = {tool.scope for tool in client.server.workspace.tools.values()}
    assert {"tasks:read", "tasks:write", "knowledge:read"} <= set(document["scopes_supported"]) <= tools
    assert not {"leads:read", "users:read", "users:write", "audit:read", "*"} & set(document.pop("scopes_supported"))
    assert document == {
        "resource": f"{client.http.base_url}/mcp",
        "bearer_methods_supported": ["header"],
        "resource_name": "Agent server",
    }


@pytest.mark.parametrize("path", PATHS)
async def test_pages_of_any_origin_may_read_it_and_nobody_may_do_more(client: Client, path: str) -> None:
    origin = {"Origin": "https://client.example", "Access-Control-Request-Method": "GET"}
    read = await client.http.get(path, headers=origin)
    asked = await client.http.options(path, headers=origin | {"Access-Control-Request-Headers": "mcp-protocol-version"})
    assert (read.status_code, read.headers["access-control-allow-origin"]) == (200, "*")
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "*")
    assert asked.headers["access-control-allow-methods"] == "GET"
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await client.http.request(method, path, headers=client.auth)).status_code == 405


async def test_the_challenge_leads_to_the_document_of_the_resource_that_was_asked_for(client: Client) -> None:
    refused = await client.http.post("/mcp", json={})
    challenge = refused.headers["www-authenticate"]
    address = challenge.partition('resource_metadata="')[2].partition('"')[0]
    assert (await client.http.get(address)).json()["resource"] == str(client.http.base_url.join("/mcp"))


async def test_a_server_that_knows_its_public_address_never_says_another(database: Database, me: Caller) -> None:
    async def resolve(_: str, /, *, address: str | None, audience: object) -> Caller:
        return Caller(id=me.id, kind="user", scopes=frozenset({"notes:read", "elsewhere:read"}))

    issuer = Issuer(issuer="https://login.example.com", audience=("x",), jwks_url="https://login.example.com/jwks")
    settings = Settings(public_url="https://api.example.com/", issuers=(issuer,))
    app = mcp_app(
        Runtime(settings=settings, database=database), TOOLS, name="notes", version="1", instructions="",
        resolve=resolve, documents=DOCUMENTS,
    )  # fmt: skip
    assert canonical_address(settings) == "https://api.example.com/mcp"
    async with serve_mcp(app) as url:
        notebook = Notebook(url, me, "token", database, None)  # type: ignore[arg-type]  # no tool of this test waits
        headers: dict[str, str | None] = {"Host": "evil.example"}
        for sent in (headers, headers | {"Authorization": None}):
            call = {"name": "mail_note", "arguments": {"text": "a"}}
            challenge = (await notebook.post("modern", "tools/call", call, sent)).headers["www-authenticate"]
            assert "evil" not in challenge
            at = "https://api.example.com/.well-known/oauth-protected-resource/mcp"
            assert challenge.endswith(f'resource_metadata="{at}"')
        assert (
            'scope="notes:read notes:send"'
            in (await notebook.post("modern", "tools/call", call, headers)).headers["www-authenticate"]
        )


@pytest.mark.parametrize("host", ['a" b', "a\\b", "a/b", ""])
async def test_a_host_that_is_none_is_not_repeated(notebook: Notebook, host: str) -> None:
    answer = await notebook.post("modern", "tools/list", {}, {"Authorization": None, "Host": host})
    if answer.status_code == 401:
        assert 'resource_metadata="http://localhost/' in answer.headers["www-authenticate"]
    else:
        assert answer.status_code == 400
