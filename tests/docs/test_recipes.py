"""The workflows of docs/prompts-in-ci.md: their steps do what the page says."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from agent_server.cli import app
from agent_server.testing import copy_database
from tests.commands import OUR_VARIABLES
from tests.conftest import ROOT
from tests.docs.blocks import read_blocks

PROMPT = """\
---
name: baker
description: Answers questions about bread.
examples: [How long should dough rise?]
---
You answer questions about bread.
"""
PAGE = "---\ntitle: Dough\ndescription: How dough rises.\n---\nDough should rise for two hours in a warm place.\n"
CASES = """\
name: bread
cases:
- name: 100 % of the time, dough rises
  inputs: How long should dough rise?
  metadata: {expect: {agent: baker, citations: baking/dough.md, contains: two hours}}
"""


def read_steps(file: str) -> dict[str, dict[str, Any]]:
    """The steps with a name of a workflow of the page."""
    (block,) = [block for block in read_blocks("prompts-in-ci.md") if block.file == f".github/workflows/{file}"]
    (job,) = yaml.safe_load(block.text)["jobs"].values()
    return {step["name"]: step for step in job["steps"] if "name" in step}


@pytest.fixture
def run(tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    """Runs a command of the page in a small workspace."""
    for name, text in (("prompts/baker.md", PROMPT), ("content/baking/dough.md", PAGE), ("evals/bread.yaml", CASES)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    for variable in OUR_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(command: str) -> Result:
        program, *words = shlex.split(command.partition(" > ")[0])
        assert program == "agent-server"
        with copy_database(postgres) as url:
            monkeypatch.setenv("DATABASE_URL", url)
            return CliRunner().invoke(app, words, catch_exceptions=False)

    return run


def test_a_pull_request_is_marked_where_a_case_fails(run: Callable[[str], Result], tmp_path: Path) -> None:
    steps = read_steps("prompts.yml")
    (tmp_path / "content" / "baking" / "dough.md").write_text(PAGE.replace("two", "three"))
    done = run(steps["Cases"]["run"])
    assert done.exit_code == 1
    assert (tmp_path / "cases.xml").exists()
    (tmp_path / "cases.json").write_text(done.stdout)
    mark = steps["Mark in the pull request what failed"]
    assert mark["shell"] == "python"
    printed = subprocess.run(
        [sys.executable, "-c", mark["run"]], cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=True
    ).stdout
    (line,) = printed.splitlines()
    assert line.startswith(
        "::error file=evals/bread.yaml,line=3::100 %25 of the time, dough rises%0Acontains: 'two hours' is not in"
    )


def test_both_workflows_install_what_the_repository_locks() -> None:
    for file in ("prompts.yml", "record.yml"):
        commands = [shlex.split(line) for line in read_steps(file)["Install"]["run"].splitlines()]
        (lock,) = [word.removeprefix(".agent-server/") for word in commands[0] if word.endswith(".lock")]
        assert (ROOT / lock).is_file()
