"""The README's blocks run as they stand."""

import asyncio
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.server import Start

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


async def run(*words: str, cwd: Path = ROOT, **variables: str) -> tuple[int, str]:
    """Run a command; its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *words, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=os.environ | variables
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("make ")]
    assert commands == ["make serve", "make test"]
    assert {command.split()[1] for command in commands} <= targets


async def test_the_question_over_http_is_answered_with_a_citation(start: Start) -> None:
    (block,) = [block for block in blocks("sh") if "curl" in block]
    async with start() as client:
        base = str(client.http.base_url).rstrip("/")
        command = block.replace("\\\n", " ").replace("http://127.0.0.1:8000", base)
        code, out = await run(*shlex.split(command))
    assert code == 0
    answer = json.loads(out)
    assert "12 hours" in answer["text"]
    assert answer["sources"]


async def test_the_commands_do_what_they_say(stocked_url: str) -> None:
    (block,) = [block for block in blocks("sh") if "agent-server" in block]
    outputs = []
    for line in block.splitlines():
        words = shlex.split(line)
        assert words[0] == ".venv/bin/agent-server"
        code, out = await run(sys.executable, "-m", "agent_server", *words[1:], DATABASE_URL=stocked_url)
        assert code == 0, out
        outputs.append(out)
    chat, created, listed, found, routed = outputs
    assert "[1]" in chat or "[2]" in chat
    assert json.loads(created)["title"] == "Service the regulator"
    assert [task["title"] for task in json.loads(listed)["items"]] == ["Service the regulator"]
    assert "safety/" in found
    assert routed.startswith("safety")


async def test_the_tool_of_the_readme_is_a_tool(tmp_path: Path, stocked_url: str) -> None:
    (block,) = blocks("python")
    for name in ("tools", "prompts", "content", "migrations"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "tools" / "todo" / "count.py").write_text(block)
    code, out = await run(
        sys.executable, "-m", "agent_server", "tool", "call", "count_tasks", cwd=tmp_path, DATABASE_URL=stocked_url
    )
    assert (code, out.strip().splitlines()[-1]) == (0, "0"), out


def test_the_files_it_names_are_there() -> None:
    for path in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize(
    "folder", ["agent_server", "tools", "prompts", "content", "migrations", "docs", "tests", "bench"]
)
def test_the_folders_it_shows_are_there(folder: str) -> None:
    assert f"{folder}/" in README
    assert (ROOT / folder).is_dir()
