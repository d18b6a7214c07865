"""A client of a large catalogue is listed a few tools and finds the others."""

from pathlib import Path

import pytest

from agent_server.mcp.finding import MOST, ToolIndex
from agent_server.settings import Settings
from agent_server.workspace import load_workspace
from tests.mcp.conftest import MODES, Mode, Notebook
from tests.mcp.notes import TOOLS
from tests.mcp.test_toolsets import read
from tests.test_workspace import checked, lay_out

ROOT = Path(__file__).parent.parent.parent
JUDGED = {
    "put buying fins on my to-do list": "create_task",
    "add a reminder to call the dentist": "create_task",
    "which tasks are still open": "list_tasks",
    "the fins are bought, tick that off": "complete_task",
    "mark a task as finished": "complete_task",
    "remove a task for good": "delete_task",
    "rename a task": "update_task",
    "push a task to another due date": "update_task",
    "details of one task": "get_task",
    "where can I dive in March": "list_destinations",
    "dive destinations for beginners": "list_destinations",
    "read about one destination": "get_destination",
    "find wrecks deeper than 30 metres": "search_sites",
    "dive sites near a place": "search_sites",
    "what are the hazards of a dive site": "get_site",
    "have somebody contact me by e-mail": "capture_lead",
    "who left their address": "list_leads",
    "what do you know about me": "read_profile",
    "remember that I am an advanced diver": "update_profile",
    "search the content for decompression sickness": "search_knowledge",
    "read a whole document": "read_document",
    "which pages are in the content": "list_documents",
    "how many conversations do I have": "count_conversations",
    "find an earlier chat about sharks": "search_conversations",
    "erase a conversation": "delete_conversation",
    "change the title of a chat": "rename_conversation",
    "messages of a conversation": "list_messages",
    "show a form for leaving an address": "offer_form",
}
FIRST = 0.75
"""The share of judged requests whose tool is to come first."""


@pytest.fixture
def settings() -> Settings:
    return Settings(mcp_find_tools=3, mcp_listed_tools=("count_notes",))


def test_the_right_tool_is_found_for_judged_requests() -> None:
    index = ToolIndex(list(load_workspace(ROOT).tools.values()))
    found = {request: [tool.name for tool in index.rank(request)][:MOST] for request in JUDGED}
    missed = {request: found[request] for request, tool in JUDGED.items() if tool not in found[request]}
    assert missed == {}
    first = [request for request, tool in JUDGED.items() if found[request][0] == tool]
    assert len(first) >= FIRST * len(JUDGED), {r: f for r, f in found.items() if f[0] != JUDGED[r]}


@pytest.mark.parametrize("mode", MODES)
async def test_nobody_finds_a_tool_that_they_may_not_use(notebook: Notebook, mode: Mode) -> None:
    key = await notebook.issue_key("notes:read")
    async with notebook.client(mode, key) as client:
        for query in ("delete a note", "drop notes", "mail a note", "zzz"):
            found = (await client.call_tool("find_tools", {"query": query})).structured_content or {}
            names = {tool["name"] for tool in found["tools"]} | set(found.get("names", ()))
            assert names <= {name for name, tool in TOOLS.items() if tool.scope == "notes:read"}
            assert names or query != "zzz"


@pytest.mark.parametrize("mode", MODES)
async def test_a_tool_that_is_found_can_be_called(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {"find_tools", "count_notes"}
        result = await client.call_tool("find_tools", {"query": "add a note"})
        tool = (result.structured_content or {})["tools"][0]
        assert (tool["name"], tool["inputSchema"]["required"]) == ("add_note", ["text"])
        assert not (await client.call_tool(tool["name"], {"text": "found"})).is_error
        wrong = await client.call_tool("find_tools", {})
        assert wrong.is_error
        assert "query" in wrong.content[0].text  # type: ignore[union-attr]
    assert await notebook.notes() == ["found"]
    # Who may call no more than so many is listed them, and has nothing to find.
    key = await notebook.issue_key("notes:send")
    few = await notebook.post(mode, "tools/list", {}, {"Authorization": f"Bearer {key}"})
    assert {tool["name"] for tool in read(few)["result"]["tools"]} == {"mail_note", "share_note"}


def test_a_name_in_the_settings_that_stands_for_no_tool_is_a_mistake(tmp_path: Path) -> None:
    prompt = "---\nname: a\ndescription: An agent.\n---\nYou answer.\n"
    setting = 'AGENT_SERVER_MCP_LISTED_TOOLS=["search_knowlege"]\n'
    [told] = checked(lay_out(tmp_path, {"prompts/a.md": prompt, ".env": setting}))
    assert "there is no tool 'search_knowlege'; did you mean 'search_knowledge'?" in told
