"""A part of the tools, served apart at an address of its own."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import mcp_types as types
import pytest
from mcp import Client

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.changes import Changes
from agent_server.db import Database
from agent_server.errors import InvalidInput
from agent_server.identity.resolver import create_resolver
from agent_server.mcp import Offers, Watching, mcp_app
from agent_server.mcp.process import create_mcp
from agent_server.settings import Issuer, Settings
from agent_server.testing import AgentServer
from agent_server.toolsets import Toolset, read_toolsets
from tests.mcp.conftest import MODES, Mode, Notebook, serve_mcp
from tests.mcp.notes import DOCUMENTS, TOOLS
from tests.mcp.offered import RESOURCES, create_offers
from tests.mcp.test_sessions import next_of, open_session
from tests.server import Start
from tests.test_workspace import TOOL, checked, lay_out

TOOLSETS = {
    "look": Toolset(description="Only looks.", effect="read"),
    "desk": Toolset(tools=("add_note", "drop_note"), prompts=("tidy",), resources=("content://{+path}",)),
    "post": Toolset(scopes=("notes:send",)),
}
BARE = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"]


@pytest.fixture
def offers(tmp_path: Path, changes: Changes, database: Database, settings: Settings) -> Offers:
    renew = create_resolver(settings, database, agents=(), staff=()).renew
    offers = create_offers(tmp_path, Watching(changes, renew, database, seconds=0.2))
    return replace(offers, workspace=replace(offers.workspace, toolsets=TOOLSETS))


def at(notebook: Notebook, toolset: str) -> Notebook:
    return replace(notebook, url=f"{notebook.url}/{toolset}")


def read(answer: httpx.Response) -> Any:
    """The message of an answer in either form."""
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = text.rpartition("data: ")[2]
    return httpx.Response(200, text=text).json()


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_not_in_the_set_is_not_there(notebook: Notebook, mode: Mode) -> None:
    look, post = at(notebook, "look"), at(notebook, "post")
    asked: list[tuple[Notebook, str, dict[str, Any]]] = [
        (look, "tools/call", {"name": "add_note", "arguments": {"text": "a"}}),
        (look, "tools/call", {"name": "drop_notes", "arguments": {}}),
        (look, "prompts/get", {"name": "tidy"}),
        (look, "completion/complete", {"ref": {"type": "ref/prompt", "name": "tidy"}, "argument": {"name": "x", "value": ""}}),
        (post, "resources/read", {"uri": "notes://all"}),
        (post, "resources/read", {"uri": "content://safety/flying.md"}),
        (post, "completion/complete", {"ref": {"type": "ref/resource", "uri": "notes://{number}"}, "argument": {"name": "number", "value": ""}}),
        (post, "completion/complete", {"ref": {"type": "ref/resource", "uri": "content://{+path}"}, "argument": {"name": "path", "value": ""}}),
    ]  # fmt: skip
    for client, method, params in asked:
        told = read(await client.post(mode, method, params))
        assert told["error"]["code"] in (types.INVALID_PARAMS, types.METHOD_NOT_FOUND), (method, params, told)
    # Not even by a suggestion: the nearest names are outside.
    told = read(await look.post(mode, "tools/call", {"name": "drop_not"}))
    assert "drop_note" not in told["error"]["message"].partition(";")[2]
    assert await notebook.notes() == []


@pytest.mark.parametrize("mode", MODES)
async def test_a_set_lists_what_it_has_and_serves_it(notebook: Notebook, mode: Mode) -> None:
    async with at(notebook, "look").client(mode) as client:
        listed = {tool.name for tool in (await client.list_tools()).tools}
        assert listed == {name for name, tool in TOOLS.items() if tool.effect == "read"}
        assert client.instructions == "Only looks."
        # Of the scope that its tools need; those of the content need another one.
        assert {each.uri for each in (await client.list_resources()).resources} == {"notes://all", "notes://map"}
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["look", "plan"]
    async with at(notebook, "desk").client(mode) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {"add_note", "drop_note"}
        assert client.instructions == "Notes."
        called = await client.call_tool("add_note", {"text": "from the desk"})
        assert called.structured_content == {"text": "from the desk", "topic": None}
        assert {each.uri.partition(":")[0] for each in (await client.list_resources()).resources} == {"content"}
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["tidy"]
    async with notebook.client(mode) as client:
        assert len((await client.list_tools()).tools) == len(TOOLS)
    assert await notebook.notes() == ["from the desk"]


@pytest.mark.parametrize("mode", MODES)
async def test_a_question_is_answered_where_its_tool_is(notebook: Notebook, mode: Mode) -> None:
    async def confirm(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"confirm": True})

    desk = at(notebook, "desk")
    if mode == "modern":
        capable: dict[str, Any] = {"elicitation": {"form": {}}}
        call: dict[str, Any] = {"name": "drop_note", "arguments": {"text": "a"}}
        asked = read(await desk.post(mode, "tools/call", call, capabilities=capable))["result"]
        answered = call | {
            "requestState": asked["requestState"],
            "inputResponses": {"confirm": {"action": "accept", "content": {"confirm": True}}},
        }
        elsewhere = read(await at(notebook, "look").post(mode, "tools/call", answered, capabilities=capable))
        assert elsewhere["error"]["code"] == types.INVALID_PARAMS
        assert await notebook.notes() == []
    async with desk.client(mode, elicitation_callback=confirm) as client:
        assert not (await client.call_tool("drop_note", {"text": "b"})).is_error
    assert await notebook.notes() == ["dropped: b"]


async def test_nobody_watches_an_address_outside_of_the_set(notebook: Notebook, changes: Changes) -> None:
    for toolset, is_there in (("look", True), ("post", False)):
        async with open_session(notebook.key, f"{notebook.url}/{toolset}") as session:
            told = await session.send(f"{notebook.url}/{toolset}", "resources/subscribe", uri="notes://all")
            assert ("result" in told) == is_there
            if not is_there:  # nor by a subscription of the same session elsewhere
                await session.send(notebook.url, "resources/subscribe", uri="notes://all")
                async with session.stream(f"{notebook.url}/{toolset}") as stream:
                    await session.send(notebook.url, "tools/call", name="add_note", arguments={"text": "a"})
                    changes.announce("tools")
                    assert await next_of(stream) == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


@pytest.mark.parametrize("mode", MODES)
async def test_a_refusal_leads_to_the_metadata_of_the_set(notebook: Notebook, mode: Mode) -> None:
    post = at(notebook, "post")
    refused = await post.post(mode, "tools/list", {}, {"Authorization": None})
    assert refused.status_code == 401
    challenge = refused.headers["www-authenticate"]
    assert challenge.endswith('/.well-known/oauth-protected-resource/mcp/post"')
    key = await notebook.issue_key("notes:read")
    sent = await post.post(
        mode, "tools/call", {"name": "mail_note", "arguments": {"text": "a"}}, {"Authorization": f"Bearer {key}"}
    )
    assert sent.status_code == 403
    # Nothing that this address does not need, though the key holds it.
    assert 'scope="notes:send"' in sent.headers["www-authenticate"]


async def test_a_token_for_the_whole_is_one_for_a_part_and_none_for_a_part_is_one_for_more(
    database: Database, me: Caller, offers: Offers
) -> None:
    asked: list[tuple[str, ...]] = []

    async def resolve(_: str, /, *, address: str | None, audience: Any) -> Caller:
        asked.append(tuple(audience))
        return Caller(id=me.id, kind="user", scopes=frozenset({"notes:send"}))

    issuer = Issuer(issuer="https://login.example.com", audience=("x",), jwks_url="https://login.example.com/jwks")
    settings = Settings(public_url="https://api.example.com/", issuers=(issuer,))
    app = mcp_app(
        Runtime(settings=settings, database=database), TOOLS, name="notes", version="1", instructions="",
        resolve=resolve, documents=DOCUMENTS, offers=offers,
    )  # fmt: skip
    async with serve_mcp(app) as url:
        notebook = Notebook(url, me, "token", database, None)  # type: ignore[arg-type]  # no tool of this test waits
        headers: dict[str, str | None] = {"Host": "api.example.com"}
        for one in (notebook, at(notebook, "post")):
            assert (await one.post("modern", "tools/list", {}, headers)).status_code == 200
    whole, part = "https://api.example.com/mcp", "https://api.example.com/mcp/post"
    assert asked == [(whole,), (whole, part)]


TOOLS_FILE = TOOL.format(name="count_things") + TOOL.format(name="list_things").replace("things:read", "shelf:read")


async def test_a_workspace_declares_its_sets_in_a_file(start_other: Start, tmp_path: Path) -> None:
    root = lay_out(
        tmp_path / "shelf", {"tools/things.py": TOOLS_FILE, "toolsets.yaml": "shelf:\n  scopes: [shelf:read]\n"}
    )
    async with start_other(root) as server:
        listed = await server.http.post(
            "/mcp/shelf", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, headers=server.auth
        )
        assert [tool["name"] for tool in listed.json()["result"]["tools"]] == ["list_things"]
        unknown = await server.http.post("/mcp/shelves", json={}, headers=server.auth)
        assert unknown.status_code == 404
        document = (await server.http.get("/.well-known/oauth-protected-resource/mcp/shelf")).json()
    assert document["resource"].endswith("/mcp/shelf")
    assert document["scopes_supported"] == ["shelf:read"]


def test_every_mistake_in_the_file_is_named(tmp_path: Path) -> None:
    text = """\
a: {tools: [count_thing]}
b: {scopes: [things:write]}
c: {}
d: {effect: stored}
e: {effect: read, tool: [count_things]}
f: {effect: read, prompts: [nobody], resources: ["things://all"]}
G h: {effect: read}
i: {tools: count_things}
j: {tools: [count_things], scopes: [shelf:read]}
k: {effect: read}
k: {effect: read}
"""
    root = lay_out(tmp_path / "w", {"tools/things.py": TOOLS_FILE, "toolsets.yaml": text})
    # What there is instead is said behind "There are".
    assert [told.partition(" There are")[0] for told in checked(root)] == [
        "toolsets.yaml:1: a: there is no tool 'count_thing'; did you mean 'count_things'?",
        "toolsets.yaml:2: b: there is no scope 'things:write'; did you mean 'things:read'?",
        "toolsets.yaml:3: c: says nothing of its tools; give it `tools`, `effect: read` or `scopes`",
        "toolsets.yaml:4: d: effect: there is only `effect: read`, which leaves out the tools that change something",
        "toolsets.yaml:5: e: tool is no key of a toolset; did you mean 'tools'?",
        "toolsets.yaml:6: f: there is no prompt 'nobody'; there are none",
        "toolsets.yaml:6: f: there is no resource 'things://all'; there are content://{+path}, conversation://{id}, "
        "passage://{id}",
        "toolsets.yaml:7: G h: is no name of a toolset: it is part of an address, as in `front-desk`, of a-z, 0-9, - and _",
        "toolsets.yaml:8: i: tools is a list of names, as in `tools: [one, two]`",
        "toolsets.yaml:9: j: has no tool: none fits all that it says; take out a key",
        "toolsets.yaml:11: k: stands in line 10 already; name each toolset once",
    ]


@pytest.mark.parametrize("text", ["a: [", "- a", "a: {tools: [x]"])
def test_a_file_that_is_none_is_a_mistake(tmp_path: Path, text: str) -> None:
    (tmp_path / "toolsets.yaml").write_text(text)
    found, mistakes = read_toolsets(tmp_path, TOOLS, {}, RESOURCES)
    assert not found
    assert [mistake.file for mistake in mistakes] == ["toolsets.yaml"]
    assert "front matter" not in mistakes[0].message


def test_without_a_file_there_are_no_sets(tmp_path: Path) -> None:
    none: Mapping[str, Toolset] = {}
    assert read_toolsets(tmp_path, TOOLS, {}, RESOURCES) == (none, [])


async def test_a_set_is_served_over_standard_input_as_well(agent_server: AgentServer) -> None:
    server = agent_server.server
    offered = replace(server, workspace=replace(server.workspace, toolsets={"tasks": Toolset(scopes=("tasks:read",))}))
    async with Client(create_mcp(offered, agent_server.as_caller("*").caller, "tasks")) as client:
        listed = {tool.name for tool in (await client.list_tools()).tools}
    assert listed == {name for name, tool in server.workspace.tools.items() if tool.scope == "tasks:read"} != set()
    with pytest.raises(InvalidInput, match=r"there is no toolset 'task'; did you mean 'tasks'"):
        create_mcp(offered, agent_server.as_caller("*").caller, "task")
