"""`agent-server mcp install` and `inspect`: a client's file gets this server and keeps all else."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_server.commands.context import CommandContext
from agent_server.commands.mcp_clients import CLIENTS, install
from agent_server.settings import load_settings
from tests.commands import agent_server
from tests.conftest import ROOT

SMALL = ROOT / "agent_server" / "scaffold"
USER_FILES = {
    "claude-desktop": ".config/Claude/claude_desktop_config.json",
    "cursor": ".cursor/mcp.json",
    "vscode": ".config/Code/User/mcp.json",
}
PROJECT_FILES = {"claude-code": ".mcp.json", "cursor": ".cursor/mcp.json", "vscode": ".vscode/mcp.json"}
URL = "https://agents.example/mcp"


def run(home: Path, *arguments: str, stdin: str = "y\n") -> tuple[int, str]:
    """The exit code of `mcp install` for a user with this home, and what it said."""
    variables = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "AGENT_SERVER_WORKSPACE": str(SMALL)}
    done = agent_server("mcp", "install", *arguments, cwd=home, stdin=stdin, **variables)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("client", USER_FILES)
def test_a_client_gets_a_server_that_it_starts(tmp_path: Path, client: str) -> None:
    file = tmp_path / USER_FILES[client]
    code, said = run(tmp_path, client)
    assert code == 0, said
    entry = json.loads(file.read_text())[CLIENTS[client].servers]["agent-server"]
    assert Path(entry["command"]).is_file()
    assert entry["args"] == ["mcp", "--workspace", str(SMALL)]
    assert str(file) in said
    # What is there already is not written again, and nobody is asked.
    code, said = run(tmp_path, client, stdin="")
    assert (code, "has this server already" in said) == (0, True)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("client", PROJECT_FILES)
def test_a_project_gets_a_server_at_an_address_and_no_key(tmp_path: Path, client: str) -> None:
    code, said = run(tmp_path, client, "--project", ".", "--url", URL, "--name", "divers")
    assert code == 0, said
    whole = json.loads((tmp_path / PROJECT_FILES[client]).read_text())
    entry = whole[CLIENTS[client].servers]["divers"]
    assert entry["url"] == URL
    assert entry["headers"]["Authorization"].startswith("Bearer ${")
    # VS Code asks its user for what its files name.
    asked = {f"${{input:{each['id']}}}" for each in whole.get("inputs", [])}
    assert asked == ({entry["headers"]["Authorization"].removeprefix("Bearer ")} if client == "vscode" else set())
    assert run(tmp_path, client, "--project", ".", "--url", URL, "--name", "divers", stdin="")[0] == 0


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_without_a_yes_nothing_is_written(tmp_path: Path, answer: str) -> None:
    file = tmp_path / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text('{"mcpServers": {"other": {"command": "x"}}}')
    code, said = run(tmp_path, "cursor", stdin=answer)
    assert (code, "Nothing was written" in said) == (1, True)
    assert file.read_text() == '{"mcpServers": {"other": {"command": "x"}}}'
    assert len(list(file.parent.iterdir())) == 1


UNWRITABLE = {
    "comments": b'{\n  // mine\n  "servers": {}\n}',
    "a list": b"[]",
    "servers that are a list": b'{"servers": []}',
    "no UTF-8": b'{"servers": {"\xff": 1}}',
    "inputs that are an object": b'{"servers": {}, "inputs": {}}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", UNWRITABLE.values(), ids=UNWRITABLE)
def test_a_file_that_would_lose_something_stays_and_what_to_add_is_shown(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / ".vscode" / "mcp.json"
    file.parent.mkdir()
    file.write_bytes(content)
    code, said = run(tmp_path, "vscode", "--project", ".", "--url", URL)
    assert (code, '"servers"' in said, "by hand" in said) == (1, True, True), said
    assert file.read_bytes() == content
    assert len(list(file.parent.iterdir())) == 1


MISTAKES = {
    ("coursor",): "did you mean 'cursor'?",
    ("claude-desktop", "--url", URL): "Connectors",
    ("claude-desktop", "--project", "."): "leave --project out",
    ("claude-code",): "--project",
    ("claude-code", "--project", "nowhere"): "is no folder",
    ("cursor", "--name", " "): "--name",
    ("cursor", "--url", URL, "--toolset", "shop"): f"{URL}/shop",
    ("cursor", "--url", "agents.example/mcp"): "is no address",
    ("cursor", "--url", "http://[/mcp"): "is no address",
    ("cursor", "--url", "https://ann:secret@agents.example/mcp"): "password",
}


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_a_mistake_is_named_and_nothing_is_written(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, said = run(tmp_path, *arguments)
    assert (code, MISTAKES[arguments] in said, "ann:secret" in said) == (1, True, False), said
    assert list(tmp_path.iterdir()) == []


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    whole=st.dictionaries(st.text(max_size=8), _VALUES, max_size=4),
    servers=st.dictionaries(st.text(max_size=8), _VALUES, max_size=4),
    name=st.text(min_size=1, max_size=8).filter(str.strip),
)
def test_whatever_else_a_file_holds_is_kept_and_the_file_as_it_was_lies_beside(
    tmp_path_factory: pytest.TempPathFactory, whole: dict[str, Any], servers: dict[str, Any], name: str
) -> None:
    folder = tmp_path_factory.mktemp("project")
    before = {**whole, "mcpServers": servers}
    file = folder / ".mcp.json"
    file.write_text(json.dumps(before))
    context = CommandContext(load_settings(workspace=SMALL))
    assert asyncio.run(install(context, "claude-code", URL, name, folder, None, yes=True)) == 0
    after = json.loads(file.read_text())
    entry = after["mcpServers"].pop(name)
    assert entry["url"] == URL
    assert after == {**before, "mcpServers": {key: value for key, value in servers.items() if key != name}}
    (kept,) = folder.glob("*.bak")
    assert json.loads(kept.read_text()) == before
    assert asyncio.run(install(context, "claude-code", URL, name, folder, None, yes=False)) == 0
    shutil.rmtree(folder)


def test_a_link_to_a_file_stays_one_and_the_file_keeps_its_rights(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    real.write_text("{}")
    real.chmod(0o600)
    (tmp_path / ".mcp.json").symlink_to(real)
    context = CommandContext(load_settings(workspace=SMALL))
    assert asyncio.run(install(context, "claude-code", URL, "divers", tmp_path, None, yes=True)) == 0
    assert (tmp_path / ".mcp.json").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert list(json.loads(real.read_text())["mcpServers"]) == ["divers"]


def test_inspect_shows_what_a_client_is_offered(tmp_path: Path, stocked_url: str) -> None:
    variables = {"DATABASE_URL": stocked_url, "AGENT_SERVER_MODEL": "offline"}
    shown = agent_server("mcp", "inspect", "--json", "--workspace", str(ROOT), cwd=tmp_path, **variables)
    offers = json.loads(shown.stdout)
    assert {"list_tasks", "search_knowledge"} <= {tool["name"] for tool in offers["tools"]}
    # Several pages of them.
    assert len({resource["uri"] for resource in offers["resources"]}) == len(offers["resources"]) > 50
    assert {"conversation://{id}", "passage://{id}"} <= {each["uriTemplate"] for each in offers["templates"]}
    told = agent_server("mcp", "inspect", "--workspace", str(ROOT), cwd=tmp_path, **variables).stdout
    assert f"{len(offers['tools'])} tools, about " in told
