"""Resources that are functions of a workspace, as clients of MCP read them."""

import base64
import json
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from mcp.shared.exceptions import MCPError

from agent_server import ToolContext, resource
from agent_server.caller import Caller
from agent_server.conversations.models import Conversation, Item
from agent_server.db import Database, new_id
from agent_server.identity.credentials import issue_key
from agent_server.workspace import read_workspace
from tests.conftest import everything, fetch
from tests.mcp.conftest import Mode, Notebook
from tests.mcp.offered import PNG, filed_note, one_note


async def talk(database: Database, owner: Caller, *said: str, title: str = "Fins") -> str:
    """The id of a conversation in which the user and an agent spoke in turn."""
    id = new_id()
    async with everything(database) as session:
        session.add(Conversation(id=id, owner_id=owner.id, title=title, next_turn=len(said) + 1))
        await session.flush()
        for n, text in enumerate(said):
            role = ("user", "assistant")[n % 2]
            body = {"role": role, "content": text}
            place: dict[str, Any] = {"owner_id": owner.id, "conversation_id": id, "turn_no": n // 2 + 1, "k": n % 2 + 1}
            session.add(
                Item(**place, turn_id=new_id(), role=role, text=text, agent="guide" if n % 2 else None, body=body)
            )
    return str(id)


async def test_a_conversation_of_another_caller_cannot_be_read(
    notebook: Notebook, mode: Mode, other: Caller, database: Database
) -> None:
    theirs = await talk(database, other, "My secret")
    nobodys = str(new_id())
    said: list[str] = []
    async with notebook.client(mode) as client:
        for id in (theirs, nobodys):
            with pytest.raises(MCPError) as missing:
                await client.read_resource(f"conversation://{id}")
            assert missing.value.code == types.INVALID_PARAMS
            said.append(missing.value.message.replace(id, "ID"))
        ref = types.ResourceTemplateReference(uri="conversation://{id}")
        assert (await client.complete(ref, {"name": "id", "value": ""})).completion.values == []
    assert said[0] == said[1]


async def test_a_conversation_is_read_as_a_transcript(notebook: Notebook, mode: Mode, database: Database) -> None:
    mine = await talk(database, notebook.me, "Which fins?", "Long ones.")
    async with notebook.client(mode) as client:
        (read,) = (await client.read_resource(f"conversation://{mine}")).contents
        ref = types.ResourceTemplateReference(uri="conversation://{id}")
        by_title = (await client.complete(ref, {"name": "id", "value": "fin"})).completion.values
    assert isinstance(read, types.TextResourceContents)
    assert read.mime_type == "text/markdown"
    first, *said = read.text.split("\n\n")
    assert first == "# Fins"
    assert said[0].startswith("**User**, 20") and said[1] == "Which fins?"
    assert said[2].startswith("**Assistant (guide)**, 20") and said[3] == "Long ones.\n"
    assert by_title == [mine]


async def test_resources_are_listed_and_templates_beside_them(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        resources = (await client.list_resources()).resources
        templates = (await client.list_resource_templates()).resource_templates
    assert [each.uri for each in resources] == [
        "notes://all",
        "notes://map",
        "content://destinations/%C3%BCber%20uns.md",
        "content://safety/flying.md",
    ]
    assert resources[0].model_dump(exclude_none=True) == snapshot(
        {
            "name": "all_notes",
            "title": "All notes",
            "uri": "notes://all",
            "description": "The caller's notes.",
            "mime_type": "text/markdown",
            "icons": [{"src": "https://example.com/notes.png"}],
        }
    )
    assert [each.uri_template for each in templates] == [
        "content://{+path}",
        "conversation://{id}",
        "notes://{kind}/{+path}",
        "notes://{number}",
    ]
    assert templates[3].model_dump(exclude_none=True) == snapshot(
        {
            "name": "one_note",
            "title": "One note",
            "uri_template": "notes://{number}",
            "description": "One of the caller's notes, by its number.",
            "mime_type": "application/json",
        }
    )


async def test_a_function_is_read_as_text_bytes_or_json(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        await client.call_tool("add_note", {"text": "fins"})
        (text,) = (await client.read_resource("notes://all")).contents
        (picture,) = (await client.read_resource("notes://map")).contents
        (note,) = (await client.read_resource("notes://1")).contents
        (filed,) = (await client.read_resource("notes://log/a%20b/c.md")).contents
    assert text == types.TextResourceContents(uri="notes://all", mime_type="text/markdown", text="- fins")
    blob = base64.b64encode(PNG).decode()
    assert picture == types.BlobResourceContents(uri="notes://map", mime_type="image/png", blob=blob)
    assert isinstance(note, types.TextResourceContents)
    assert (note.mime_type, json.loads(note.text)) == ("application/json", {"number": 1, "text": "fins"})
    assert isinstance(filed, types.TextResourceContents)
    assert filed.text == "log: a b/c.md"


async def test_a_function_reads_its_callers_rows_alone(
    notebook: Notebook, mode: Mode, other: Caller, database: Database
) -> None:
    async with everything(database) as session:
        key = await issue_key(session, other.id, name="test", scopes=["*"])
    async with notebook.client(mode) as client:
        await client.call_tool("add_note", {"text": "mine"})
    async with notebook.client(mode, key.text) as client:
        (read,) = (await client.read_resource("notes://all")).contents
        with pytest.raises(MCPError, match="There is no note 1"):
            await client.read_resource("notes://1")
    assert isinstance(read, types.TextResourceContents)
    assert read.text == ""


@pytest.mark.parametrize("uri", ["notes://all", "notes://1", "conversation://x"])
async def test_a_caller_without_the_scope_is_told_which_one_it_needs(notebook: Notebook, mode: Mode, uri: str) -> None:
    key = await notebook.issue_key("knowledge:read")
    scope = "conversations:read" if uri.startswith("conversation") else "notes:read"
    refused = await notebook.post(mode, "resources/read", {"uri": uri}, {"Authorization": f"Bearer {key}"})
    assert refused.status_code == 403
    assert scope in refused.headers["www-authenticate"]
    async with notebook.client(mode, key) as client:
        assert [each.uri.split("/")[0] for each in (await client.list_resources()).resources] == ["content:"] * 2
        assert [e.name for e in (await client.list_resource_templates()).resource_templates] == ["document"]
        ref = types.ResourceTemplateReference(uri="notes://{number}")
        with pytest.raises(MCPError, match="forbidden"):
            await client.complete(ref, {"name": "number", "value": ""})


@pytest.mark.parametrize(
    "uri",
    ["notes://0", "notes://x", "notes://", "notes://9", "notes://huh/a", "notes://%00", "nothing:at/all", "notes"],
)
async def test_an_address_where_nothing_is_is_an_error_that_names_it(notebook: Notebook, mode: Mode, uri: str) -> None:
    async with notebook.client(mode) as client:
        with pytest.raises(MCPError) as missing:
            await client.read_resource(uri)
    assert missing.value.code == types.INVALID_PARAMS
    assert missing.value.data["uri"] == uri


async def test_a_part_of_an_address_is_completed_by_its_function_or_its_type(notebook: Notebook, mode: Mode) -> None:
    async def complete(uri: str, name: str, value: str) -> list[str]:
        ref = types.ResourceTemplateReference(uri=uri)
        return (await client.complete(ref, {"name": name, "value": value})).completion.values

    async with notebook.client(mode) as client:
        for text in ("a", "b"):
            await client.call_tool("add_note", {"text": text})
        assert await complete("notes://{number}", "number", "") == ["1", "2"]
        assert await complete("notes://{number}", "number", "2") == ["2"]
        assert await complete("notes://{kind}/{+path}", "kind", "li") == ["list"]
        assert await complete("notes://{kind}/{+path}", "path", "a") == []
        assert await complete("content://{+path}", "path", "saf") == ["safety/flying.md"]
        for uri, name in (("notes://{none}", "none"), ("notes://{number}", "none"), ("content://{+path}", "none")):
            with pytest.raises(MCPError) as wrong:
                await complete(uri, name, "")
            assert wrong.value.code == types.INVALID_PARAMS


async def test_a_read_is_on_record_as_a_call_is(notebook: Notebook, url: str) -> None:
    async with notebook.client("modern") as client:
        await client.read_resource("notes://all")
    recorded = "select surface, action, outcome from audit where action = 'all_notes'"
    assert await fetch(url, recorded) == [("mcp", "all_notes", "ok")]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_an_address_gives_the_values_that_it_was_made_of(path: str) -> None:
    assert filed_note.match(filed_note.address(kind="log", path=path)) == {"kind": "log", "path": path}


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(TEXTS, TEXTS)
def test_values_that_stand_beside_a_dash_may_have_one(a: str, b: str) -> None:
    @resource("pair://{a}-{b}", scope="notes:read")
    async def pair(context: ToolContext, a: str, b: str) -> str:
        """Say both."""
        return a + b

    assert pair.match(pair.address(a=a, b=b)) == {"a": a, "b": b}


@given(st.text())
def test_any_address_is_matched_or_not(uri: str) -> None:
    matched = one_note.match(uri)
    assert matched is None or uri.startswith("notes://")


WRONG = {
    '"orders"': '\'orders\' is no address; one is a scheme and what it names, as in "orders://open" or "orders://{id}"',
    '"orders://{id"': '\'orders://{id\' is no address; one is a scheme and what it names, as in "orders://open" or "orders://{id}"',
    '"content://{id}"': "content: is the server's own; choose another scheme",
    '"orders://{number}"': "{number} in the address is no parameter; it takes id",
    '"orders://open"': "id is not in the address; write it there, as in orders://open/{id}, or take it out",
    '"orders://{id}{number}"': "behind a name in the address comes a sign, as in {a}/{b} or {a}-{b}; write one",
    '"orders://{+id}/{+number}"': "two names in the address take slashes; nobody could say where the first one ends",
    '"orders://{id}/{id}"': "id is twice in the address; name each once",
    '"orders://{id}", mime_type="picture"': "mime_type 'picture' is none, as in text/markdown",
    '"orders://{id}", icon="picture.png"': "icon is the address of a picture, https: or data:image/",
    '"orders://{id}", complete={"number": find}': "complete: number is no parameter; there are id",
    '"orders://{id}", complete={"id": print}': "complete: id must be `async def` and take (context: ToolContext, value: str)",
    '"conversation://{id}"': "conversation://{id} is the address of conversation already, the server's own; change one",
}
MODULE = '''from agent_server import ToolContext, resource


async def find(context: ToolContext, value: str) -> list[str]:
    return []


@resource(%s, scope="orders:read")
async def order(context: ToolContext, id: str) -> str:
    """An order."""
    return id
'''


@pytest.mark.parametrize("declared", WRONG)
def test_a_wrong_declaration_is_named_with_file_and_line(declared: str, tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "orders.py").write_text(MODULE % declared)
    _, mistakes = read_workspace(tmp_path)
    said = [str(mistake) for mistake in mistakes]
    expected = WRONG[declared]
    assert any(each.startswith("tools/orders.py:8: resource order: ") for each in said), said
    assert any(expected in each for each in said), said


def test_two_resources_of_one_address_or_one_name_are_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    first = MODULE % '"orders://{id}"'
    (tmp_path / "tools" / "first.py").write_text(first)
    (tmp_path / "tools" / "second.py").write_text(first.replace("async def order", "async def bill"))
    (tmp_path / "tools" / "third.py").write_text(first.replace("orders://", "bills://"))
    _, mistakes = read_workspace(tmp_path)
    assert [str(mistake) for mistake in mistakes] == snapshot(
        [
            "tools/second.py:8: resource bill: orders://{id} is the address of order already, tools/first.py:8; change one",
            "tools/third.py:8: resource order: there is one of this name already, tools/first.py:8; change one",
        ]
    )


async def test_a_resource_is_called_like_the_function_it_was_made_from() -> None:
    @resource("echo://{text}", scope="notes:read")
    async def echo(context: ToolContext, text: str) -> str:
        """Say it again."""
        return text

    assert await echo(None, text="hello") == "hello"  # type: ignore[arg-type]  # it does not look at the context
