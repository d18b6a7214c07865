"""What `agent-server init` makes: a workspace without a mistake, that answers.

Every command runs in a process of its own, as for a user; `tools` of two workspaces cannot live in one.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from agent_server.knowledge.parse import content_files, read_content
from agent_server.settings import Settings, variable_of
from tests.conftest import database_url, execute


def agent_server(*arguments: str, cwd: Path, url: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, with none of our variables set but the database's."""
    ours = {variable_of(field) for field in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    if url is not None:
        environment["DATABASE_URL"] = url
    command = [sys.executable, "-m", "agent_server", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A new workspace."""
    made = agent_server("init", "mine", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    return tmp_path / "mine"


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    name = f"scaffold_{uuid4().hex}"
    asyncio.run(execute(postgres, f"create database {name}"))
    yield database_url(postgres, name)
    asyncio.run(execute(postgres, f"drop database {name} with (force)"))


def test_a_new_workspace_has_no_mistakes(workspace: Path) -> None:
    checked = agent_server("check", "--json", cwd=workspace)
    assert (checked.returncode, json.loads(checked.stdout)) == (0, [])


def test_a_new_workspace_has_its_own_tools_and_agent(workspace: Path) -> None:
    listed = agent_server("tool", "list", "--json", cwd=workspace)
    assert {"add_note", "list_notes"} <= {tool["name"] for tool in json.loads(listed.stdout)}
    rendered = agent_server("prompt", "render", "assistant", cwd=workspace)
    assert "{{" not in rendered.stdout
    assert "assistant" in rendered.stdout


def test_every_page_of_a_new_workspace_is_read(workspace: Path) -> None:
    pages, problems = read_content(workspace / "content")
    assert problems == []
    assert len(pages) == len(content_files(workspace / "content")) >= 2
    assert all(page.collection == "guide" and page.description for page in pages)


def test_a_new_workspace_keeps_its_data_and_keys_out_of_version_control(workspace: Path) -> None:
    assert {".data/", ".env"} <= set((workspace / ".gitignore").read_text().split())


def test_a_new_workspace_answers_from_its_content_and_calls_its_tools(workspace: Path, empty: str) -> None:
    found = agent_server("content", "search", "How do I write a tool?", "--json", cwd=workspace, url=empty)
    assert json.loads(found.stdout)["hits"][0]["document"] == "guide/tools.md", found.stderr
    asked = agent_server("chat", "How do I write a tool?", "--json", cwd=workspace, url=empty)
    events = [json.loads(line) for line in asked.stdout.splitlines()]
    assert "@tool" in "".join(event["text"] for event in events if event["kind"] == "text"), asked.stderr
    assert any(event["kind"] == "cited" for event in events)
    said = agent_server("chat", "Note that the release is on Friday", "--json", cwd=workspace, url=empty)
    assert '"add_note"' in said.stdout, said.stderr
    notes = agent_server("tool", "call", "list_notes", cwd=workspace, url=empty)
    assert [note["text"] for note in json.loads(notes.stdout)["items"]] == ["the release is on Friday"]


def test_its_readme_says_how_to_write_the_migration_that_production_asks_for(workspace: Path, empty: str) -> None:
    for command in (("db", "upgrade"), ("db", "revision", "notes"), ("db", "upgrade"), ("db", "check")):
        done = agent_server(*command, cwd=workspace, url=empty)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert command[1] == "check" or f"agent-server {' '.join(command[:2])}" in (workspace / "README.md").read_text()
    (migration,) = (workspace / "migrations" / "workspace").glob("*.py")
    assert "create_table('note'" in migration.read_text().replace('"', "'")


@pytest.mark.parametrize("there", ["file", "folder with something in it"])
def test_nothing_that_is_there_is_overwritten(there: str, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    if there != "file":
        target.mkdir()
    kept = target if there == "file" else target / "notes.txt"
    kept.write_text("mine")
    refused = agent_server("init", "mine", cwd=tmp_path)
    assert refused.returncode == 1
    assert "not empty" in refused.stderr
    assert kept.read_text() == "mine"
