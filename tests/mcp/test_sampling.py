"""A tool asks the model of its caller's client, and for the folders that the client works in."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import mcp_types as types
import pytest
from pydantic import BaseModel, FileUrl

from agent_server import Accepted, Ask, Dismissed, ListRoots, Sample, Sampled, ToolContext, tool
from agent_server.db import new_id
from agent_server.identity.credentials import issue_key
from agent_server.tool import Tool
from tests.conftest import everything
from tests.mcp.conftest import HELLO, VERSIONS, Mode, Notebook
from tests.mcp.notes import TOOLS, Notes
from tests.mcp.test_toolsets import read
from tests.server import Start

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")


class Name(BaseModel):
    """A name."""

    name: str


@tool(scope="notes:write", effect="stored")
async def write_poem(context: ToolContext, about: str) -> str:
    """Have the client's model write a poem, and keep it."""
    await context.repository(Notes).write("begun")
    poem = await context.sample(f"A poem about {about}", max_tokens=50, system="Be short.", name="poem")
    if isinstance(poem, Dismissed):
        return "refused"
    return (await context.repository(Notes).write(f"{poem.text} by {poem.model}")).text


@tool(scope="notes:read", effect="read")
async def list_folders(context: ToolContext) -> list[str]:
    """The folders of the client."""
    roots = await context.roots()
    return ["refused"] if isinstance(roots, Dismissed) else [f"{root.name}: {root.uri}" for root in roots]


@tool(scope="notes:read", effect="read")
async def ask_everything(context: ToolContext) -> str:
    """Ask three things at once."""
    name, poem, roots = await context.ask_all(Ask("Who are you?", Name, "who"), Sample("A poem"), ListRoots("folders"))
    assert isinstance(name, Accepted)
    assert isinstance(poem, Sampled)
    return f"{name.data.name} {poem.text} {len(roots)}"


@tool(scope="notes:read", effect="read")
async def tell_abilities(context: ToolContext) -> list[str]:
    """What the client can be asked."""
    return [what for what in ("forms", "urls", "samples", "roots") if context.can_ask(what)]


@pytest.fixture
def tools() -> Mapping[str, Tool[..., Any]]:
    return {**TOOLS, **{each.name: each for each in (write_poem, list_folders, ask_everything, tell_abilities)}}


ASKED: list[types.CreateMessageRequestParams] = []


async def sample(_: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    ASKED.append(params)
    return types.CreateMessageResult(role="assistant", content=types.TextContent(text="Blue."), model="poet")


async def refuse(_: Any, params: types.CreateMessageRequestParams) -> types.ErrorData:
    return types.ErrorData(code=-1, message="User rejected sampling request")


async def list_roots(_: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri=FileUrl("file:///home/me"), name="Mine")])


async def fill_in(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"name": "Ada"})


def text_of(result: Any) -> str:
    assert isinstance(result.content[0], types.TextContent)
    return result.content[0].text


async def test_a_tool_asks_the_clients_model_and_for_its_folders(notebook: Notebook, mode: Mode) -> None:
    ASKED.clear()
    async with notebook.client(
        mode, sampling_callback=sample, list_roots_callback=list_roots, elicitation_callback=fill_in
    ) as client:
        assert text_of(await client.call_tool("write_poem", {"about": "fins"})) == "Blue. by poet"
        [params] = ASKED
        assert (params.max_tokens, params.system_prompt) == (50, "Be short.")
        assert params.messages[0].content == types.TextContent(text="A poem about fins")
        folders = await client.call_tool("list_folders", {})
        assert folders.structured_content == {"result": ["Mine: file:///home/me"]}
        assert text_of(await client.call_tool("ask_everything", {})) == "Ada Blue. 1"
    # What the run before the answer wrote is rolled back.
    assert await notebook.notes() == ["begun", "Blue. by poet"]


async def test_a_client_is_asked_for_nothing_that_it_has_not_declared(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode, elicitation_callback=fill_in) as client:
        abilities = await client.call_tool("tell_abilities", {})
        assert (abilities.structured_content or {})["result"] == ["forms", "urls"]
    asking: list[tuple[str, str, dict[str, Any]]] = [
        ("write_poem", "sampling", {"about": "x"}),
        ("list_folders", "roots", {}),
    ]
    for name, needs, arguments in asking:
        answer = await notebook.post(mode, "tools/call", {"name": name, "arguments": arguments})
        told = read(answer)
        if mode == "modern":
            assert answer.status_code == 400
            assert (told["error"]["code"], told["error"]["data"]["requiredCapabilities"]) == (-32021, {needs: {}})
        else:
            assert told["result"]["content"][0]["text"].startswith("conflict: The tool has to ask")
    assert await notebook.notes() == []


async def test_a_refusal_of_the_user_is_one(notebook: Notebook) -> None:
    async with notebook.client("legacy", sampling_callback=refuse) as client:
        assert text_of(await client.call_tool("write_poem", {"about": "fins"})) == "refused"


async def test_questions_are_known_by_their_names_and_answered_together(notebook: Notebook) -> None:
    able: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {}}
    call: dict[str, Any] = {"name": "ask_everything", "arguments": {}}
    asked = read(await notebook.post("modern", "tools/call", call, capabilities=able))["result"]
    assert {name: one["method"] for name, one in asked["inputRequests"].items()} == {
        "who": "elicitation/create",
        "answer_2": "sampling/createMessage",
        "folders": "roots/list",
    }
    answers: dict[str, Any] = {
        "who": {"action": "accept", "content": {"name": "Bo"}},
        "answer_2": {"role": "assistant", "content": {"type": "text", "text": "Red."}, "model": "m"},
    }
    again = call | {"requestState": asked["requestState"], "inputResponses": answers}
    missing = read(await notebook.post("modern", "tools/call", again, capabilities=able))
    assert missing["error"]["message"].startswith("inputResponses.folders")
    # An answer of another kind is none, and uses nothing up.
    answers["folders"] = answers["who"]
    assert "error" in read(await notebook.post("modern", "tools/call", again, capabilities=able))
    answers["folders"] = {"roots": []}
    # Nor is that of another caller.
    other = {"Authorization": f"Bearer {await other_key(notebook)}"}
    assert "error" in read(await notebook.post("modern", "tools/call", again, {**other}, capabilities=able))
    done = read(await notebook.post("modern", "tools/call", again, capabilities=able))
    assert done["result"]["content"][0]["text"] == "Bo Red. 0"


async def other_key(notebook: Notebook) -> str:
    async with everything(notebook.database) as session:
        return (await issue_key(session, new_id(), name="other", scopes=["*"])).text


WORKSPACE = Path(__file__).parent / "conformance" / "workspace"


async def test_what_a_model_wrote_reaches_the_call_on_another_replica(start_other: Start) -> None:
    async with start_other(WORKSPACE) as here, start_other(WORKSPACE) as there:
        headers = {
            **here.auth,
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": VERSIONS["legacy"],
        }
        hello = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": HELLO | {"capabilities": {"sampling": {}}},
        }
        begun = await there.http.post("/mcp", json=hello, headers=headers)
        headers["Mcp-Session-Id"] = begun.headers["Mcp-Session-Id"]
        call = {
            "jsonrpc": "2.0",
            "id": 2,
            "method": "tools/call",
            "params": {"name": "test_sampling", "arguments": {"prompt": "Hello"}},
        }
        async with (
            httpx.AsyncClient(base_url=here.http.base_url, timeout=30) as http,
            http.stream("POST", "/mcp", json=call, headers=headers) as response,
        ):
            lines = response.aiter_lines()
            asked = json.loads(await anext(line[6:] async for line in lines if line.startswith("data: {")))
            assert (asked["method"], asked["params"]["maxTokens"]) == ("sampling/createMessage", 100)
            wrote = {"role": "assistant", "content": {"type": "text", "text": "Hi."}, "model": "m"}
            answer = {"jsonrpc": "2.0", "id": asked["id"], "result": wrote}
            stranger = {**headers, "Authorization": f"Bearer {await there.new_key()}"}
            lie = {**answer, "result": {**wrote, "content": {"type": "text", "text": "A lie."}}}
            assert (await there.http.post("/mcp", json=lie, headers=stranger)).status_code == 202
            assert (await there.http.post("/mcp", json=answer, headers=headers)).status_code == 202
            last = json.loads(await anext(line[6:] async for line in lines if line.startswith("data: {")))
    assert last["result"]["content"][0]["text"] == "LLM response: Hi."
