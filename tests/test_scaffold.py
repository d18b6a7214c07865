"""What `agent-server init` makes: a workspace without a mistake, that answers.

Every command runs in a process of its own, as for a user; `tools` of two workspaces cannot live in one.
"""

import asyncio
import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_server.knowledge.files import content_files
from agent_server.knowledge.parse import read_content
from agent_server.testing import Say, copy_database, scripted_openai
from tests import zygote
from tests.commands import agent_server, environment
from tests.conftest import ROOT, fetch

OUR_PLUGINS = ("hypothesispytest", "inline_snapshot", "pytest_cov", "schemathesis", "xdist")
"""What pytest loads here and not for a user: half of the time of a short run."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `init` makes; read it, and leave it as it is."""
    folder = tmp_path_factory.mktemp("scaffold")
    done = agent_server("init", "mine", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "mine"


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Path:
    """A new workspace."""
    return Path(shutil.copytree(made, tmp_path / "mine"))


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    with copy_database(postgres) as url:
        yield url


def test_a_new_workspace_has_no_mistakes(workspace: Path) -> None:
    checked = agent_server("check", "--json", cwd=workspace)
    assert (checked.returncode, json.loads(checked.stdout)) == (0, [])


def test_every_page_of_a_new_workspace_is_read(made: Path) -> None:
    pages, problems = read_content(made / "content")
    assert problems == []
    assert len(pages) == len(content_files(made / "content")) >= 2
    assert all(page.collection == "guide" and page.description for page in pages)


def test_a_new_workspace_keeps_its_data_and_keys_out_of_version_control(made: Path) -> None:
    assert {".data/", ".env"} <= set((made / ".gitignore").read_text().split())


def test_a_new_workspace_is_given_every_setting_also_by_an_installed_package(made: Path, installed: Path) -> None:
    example = (ROOT / ".env.example").read_text()
    assert (made / ".env.example").read_text() == example
    assert (installed / "agent_server" / ".env.example").read_text() == example


def test_a_new_workspace_answers_from_its_content_and_calls_its_tools(workspace: Path, empty: str) -> None:
    ingested = agent_server("content", "ingest", cwd=workspace, DATABASE_URL=empty)
    assert ingested.returncode == 0, ingested.stderr
    says = "How do I write a tool?\nNote that the release is on Friday\nWhat are my notes?\n"
    chat = agent_server("chat", "--json", cwd=workspace, DATABASE_URL=empty, stdin=says)
    events = [json.loads(line.removeprefix("you> ")) for line in chat.stdout.splitlines() if "{" in line]
    turns = [[event for event in events if event["turn"] == turn] for turn in dict.fromkeys(e["turn"] for e in events)]
    assert [turn[-1]["kind"] for turn in turns] == ["done"] * 3, chat.stderr
    answered, noted, listed = turns
    assert "`@tool`" in "".join(event["text"] for event in answered if event["kind"] == "text")
    assert "guide/tools.md" in {p["document"] for e in answered if e["kind"] == "passages" for p in e["passages"]}
    assert any(event["kind"] == "cited" for event in answered)
    assert [event["output"]["text"] for event in noted if event["kind"] == "tool_done"] == ["the release is on Friday"]
    (notes,) = (event["output"]["items"] for event in listed if event["kind"] == "tool_done")
    assert [note["text"] for note in notes] == ["the release is on Friday"]


def test_its_readme_says_how_to_write_the_migration_that_production_asks_for(workspace: Path, empty: str) -> None:
    said = (workspace / "README.md").read_text()
    for command in ("db upgrade", 'db revision "notes"'):
        assert f"agent-server {command}" in said
        done = agent_server(*shlex.split(command), cwd=workspace, DATABASE_URL=empty)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    (migration,) = (workspace / "migrations" / "workspace").glob("*.py")
    assert "create_table('note'" in migration.read_text().replace('"', "'")
    assert agent_server("db", "upgrade", cwd=workspace, DATABASE_URL=empty).returncode == 0
    checked = agent_server("db", "check", cwd=workspace, DATABASE_URL=empty)
    assert (checked.returncode, checked.stdout) == (0, "The tables are as tools/ and the engine declare them\n")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as users get it, with its entry points."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


async def run_tests(workspace: Path, installed: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run pytest as a user does; its exit code and what it printed."""
    arguments = (*(f"-pno:{name}" for name in OUR_PLUGINS), *arguments)
    own = environment({"PYTHONPATH": str(installed), **variables})
    done = await asyncio.to_thread(zygote.run, "pytest", *arguments, cwd=workspace, environment=own)
    return done.returncode, done.stdout + done.stderr


async def test_the_tests_of_a_new_workspace_pass(workspace: Path, installed: Path) -> None:
    code, out = await run_tests(workspace, installed)
    assert (code, "11 passed" in out) == (0, True), out


async def test_the_tests_of_the_documentation_pass(workspace: Path, installed: Path, postgres: str) -> None:
    shutil.rmtree(workspace / "tests")
    shown = re.findall(r"^`(\S+)`\n\n```\w+\n(.*?)^```$", (ROOT / "docs" / "testing.md").read_text(), re.M | re.S)
    for name, text in shown:
        (workspace / name).parent.mkdir(exist_ok=True)
        assert name.startswith(("tests/", "evals/")) or (workspace / name).read_text() == text
        (workspace / name).write_text(text)
    own, recorded = {"AGENT_SERVER_TEST_DATABASE_URL": postgres}, "tests/test_with_a_real_model.py"
    before = await fetch(postgres, "select datname from pg_database order by 1")
    code, out = await run_tests(workspace, installed, recorded, **own)
    assert (code, "AGENT_SERVER_RECORD=1" in out) == (1, True), out
    async with scripted_openai([Say("Good morning to you!")]) as provider:
        key = {"AGENT_SERVER_RECORD": "1", "OPENAI_BASE_URL": provider.url, "AGENT_SERVER_MODEL": "the-best"}
        code, out = await run_tests(workspace, installed, **own, **key)
        assert (code, "16 passed" in out, len(provider.requests)) == (0, True, 1), out
    assert (workspace / "tests" / "recordings" / "test_with_a_real_model" / "test_it_is_friendly.json").exists()
    code, out = await run_tests(workspace, installed, recorded, **own)
    assert (code, "1 passed" in out) == (0, True), out
    assert await fetch(postgres, "select datname from pg_database order by 1") == before


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    refused = agent_server("init", "mine", cwd=tmp_path)
    assert refused.returncode == 1
    assert "not empty" in refused.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["README.md"]
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"


TEMPLATES = sorted(path.parent.name for path in (ROOT / "tools").glob("*/slice.yaml"))


@pytest.mark.parametrize("name", TEMPLATES)
async def test_a_template_makes_a_workspace_without_mistakes_whose_tests_pass(
    name: str, tmp_path: Path, installed: Path, postgres: str
) -> None:
    made = agent_server("init", name, "--template", name, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    workspace = tmp_path / name
    checked = agent_server("check", "--json", cwd=workspace)
    assert (checked.returncode, json.loads(checked.stdout)) == (0, [])
    slices = {path.parent.name for path in (workspace / "tools").glob("*/__init__.py")}
    assert slices == {name}
    # One test of each file, which shows that it runs there: what the others say is said in tests/tools/ already.
    files = sorted((workspace / "tests").rglob("test_*.py"))
    named = [(file, re.search(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)) for file in files]
    chosen = [f"{file.relative_to(workspace)}::{found[1]}" for file, found in named if found]
    assert chosen
    code, out = await run_tests(workspace, installed, *chosen, "evals", AGENT_SERVER_TEST_DATABASE_URL=postgres)
    assert code == 0, out


def test_an_installed_package_has_the_templates_of_this_repository(tmp_path: Path, installed: Path) -> None:
    own = environment({"PYTHONPATH": str(installed)})
    command = [sys.executable, "-m", "agent_server", "init", "theirs", "--template", "todo"]
    subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, check=True)
    assert agent_server("init", "ours", "--template", "todo", cwd=tmp_path).returncode == 0
    theirs, ours = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("theirs", "ours")
    )
    assert theirs == ours and Path("tools/todo/tasks.py") in ours
    wrong = agent_server("init", "other", "--template", "tod", cwd=tmp_path)
    assert (wrong.returncode, (tmp_path / "other").exists()) == (1, False)
    assert f"There are {', '.join(TEMPLATES)}" in wrong.stderr
