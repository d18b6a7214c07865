"""`agent-server eval`: what is printed, and the exit statuses that scripts rely on."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from typer.testing import CliRunner, Result

from agent_server.cli import app
from agent_server.testing import copy_database
from tests import zygote
from tests.commands import OUR_VARIABLES, environment

PROMPT = """\
---
name: baker
description: Answers questions about bread.
examples: [How long should dough rise?]
---
You answer questions about bread.
"""
PAGE = "---\ntitle: Dough\ndescription: How dough rises.\n---\n# Dough\n\nDough should rise for two hours in a warm place.\n"
CASES = """\
name: bread
cases:
- name: Dough rises for two hours
  inputs: How long should dough rise?
  metadata: {expect: {agent: baker, citations: baking/dough.md, contains: two hours}}
- name: The moon is not its subject
  inputs: How far is the moon?
  metadata: {expect: {declined: true}}
  evaluators:
  - Contains: nothing about this
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small workspace without tools: those of two workspaces cannot live in one process."""
    for name, text in (("prompts/baker.md", PROMPT), ("content/baking/dough.md", PAGE), ("evals/bread.yaml", CASES)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    with copy_database(postgres) as url:
        yield url


@pytest.fixture
def run(folder: Path, empty: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    for variable in OUR_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DATABASE_URL", empty)
    monkeypatch.setenv("AGENT_SERVER_WORKSPACE", str(folder))
    monkeypatch.chdir(folder)
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, ["eval", *arguments], catch_exceptions=False)


def test_cases_pass_fail_and_are_compared_with_an_earlier_run(run: Callable[..., Result], folder: Path) -> None:
    done = run("run", "--save-baseline")
    assert done.exit_code == 0, done.output
    assert "2 of 2 cases passed" in done.stdout
    assert "evals/bread.yaml" in done.stdout and "✓" in done.stdout
    cases, page = folder / "evals" / "bread.yaml", folder / "content" / "baking" / "dough.md"
    page.write_text(PAGE.replace("two hours", "three hours"))
    done = run("run", "--junit", "out/junit.xml")
    assert done.exit_code == 1
    assert "✗ evals/bread.yaml:3 Dough rises for two hours: contains: 'two hours' is not in" in done.stdout
    assert "Regression: evals/bread.yaml::Dough rises for two hours [offline]" in done.stdout
    (suite,) = ElementTree.parse(folder / "out" / "junit.xml").getroot()
    assert [len(case) for case in suite] == [1, 0]
    done = run("run", "evals/bread.yaml::The moon is not its subject", "--json")
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert (report["passed"], len(report["cases"]), report["regressions"]) == (1, 1, [])
    cases.write_text(CASES.replace("agent: baker", "agent: bakr"))
    done = run("run")
    assert done.exit_code == 2
    assert done.stderr.startswith(mistake := "evals/bread.yaml:5: there is no agent 'bakr'; did you mean 'baker'?")
    checked = CliRunner().invoke(app, ["check"], catch_exceptions=False)
    assert checked.exit_code == 1
    assert mistake in checked.stdout


def prompt(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["prompt", *arguments], catch_exceptions=False)


def test_two_prompts_are_compared_and_a_missing_recording_has_a_status_of_its_own(
    run: Callable[..., Result], folder: Path
) -> None:
    edited = folder / "edited.md"
    edited.write_text(PROMPT.replace("examples:", "knowledge: []\nexamples:"))
    done = run("run", "--prompt", "prompts/baker.md", "--vs", "edited.md", "--json")
    assert done.exit_code == 1, done.output
    report = json.loads(done.stdout)
    assert [line.partition(": ")[2] for line in report["differs"]] == [
        "passed with prompts/baker.md offline, failed with edited.md offline"
    ]
    (comparison,) = report["compared"]
    assert (comparison["before"]["passed"], comparison["after"]["passed"]) == (2, 1)
    shown = prompt("diff", "prompts/baker.md", "edited.md", "--cases")
    assert shown.exit_code == 0, shown.output
    assert "Dough rises for two hours: passed -> failed" in shown.stdout
    assert "text: [-" in shown.stdout and "1 of 2 answers differs" in shown.stdout
    data = json.loads(prompt("diff", "prompts/baker.md", "edited.md", "--cases", "--json").stdout)["cases"]
    assert [one["verdicts"] for one in data["cases"]] == [one["verdicts"] for one in comparison["cases"]]
    recording = {"Dough rises for two hours": [{"model": "openai/m", "key": "k", "parts": {}, "output": []}]}
    (folder / "evals" / "recordings").mkdir()
    (folder / "evals" / "recordings" / "bread.yaml").write_text(yaml.dump(recording))
    done = run("run")
    assert done.exit_code == 3, done.output
    assert "no recording for 'How long should dough rise?' of openai/m" in done.stdout
    assert run("run", "--vs", "edited.md").exit_code == 2
    assert run("run", "--recordings", "play").exit_code == 2
    assert run("run", "evals/none.yaml").exit_code == 2
    assert run("run", "--prompt", "none.md").exit_code == 2


def test_a_saved_prompt_page_or_case_runs_again_what_it_concerns(folder: Path, empty: str) -> None:
    smith = PROMPT.replace("baker", "smith").replace("bread", "iron").replace("dough rise", "iron glow")
    glows = "- name: Iron is not known\n  inputs: How long should iron glow?\n  metadata: {expect: {agent: smith}}\n"
    prompt, page, cases = [
        folder / name for name in ("prompts/smith.md", "content/baking/dough.md", "evals/bread.yaml")
    ]
    prompt.write_text(smith)
    own = CASES.replace("{expect: {declined", "{agent: baker, expect: {declined")
    cases.write_text(own + glows)
    with watching(folder, empty) as wait_for:
        assert "3 of 3 cases passed" in wait_for("Waiting for a change.")
        prompt.write_text(smith.replace("You answer", "You briefly answer"))
        assert "1 of 1 case passed" in (seen := wait_for("Waiting for a change."))
        assert "Iron is not known" in seen and "Dough" not in seen and "moon" not in seen
        page.write_text(PAGE.replace("two hours", "three hours"))
        assert "contains: 'two hours' is not in" in (seen := wait_for("Waiting for a change."))
        assert "Iron" not in seen
        cases.write_text(own.replace("contains: two", "contains: three") + glows)
        assert "1 of 1 case passed" in (seen := wait_for("Waiting for a change."))
        assert "Dough rises" in seen and "moon" not in seen and "Iron" not in seen
        cases.write_text(own.replace("agent: baker, cit", "agent: bakr, cit") + glows)
        assert "there is no agent 'bakr'" in wait_for("Waiting for a change.")


@contextmanager
def watching(folder: Path, url: str) -> Iterator[Callable[[str], str]]:
    """`eval run --watch` in a process. Yields what waits for a line with a text, and returns all that was written since."""
    out, into = os.pipe()
    variables = environment({"DATABASE_URL": url})
    arguments = ("eval", "run", "--watch", "--workspace", str(folder))
    process = zygote.start("agent_server", *arguments, cwd=folder, environment=variables, files=(0, into, into))
    os.close(into)
    with open(out, encoding="utf-8") as lines:

        def wait_for(text: str) -> str:
            seen = ""
            for line in lines:
                seen += line
                if text in line:
                    return seen
            raise AssertionError(f"the command ended without {text!r}:\n{seen}")

        try:
            yield wait_for
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_what_was_said_runs_again_with_an_edited_prompt_and_becomes_cases(
    run: Callable[..., Result], folder: Path
) -> None:
    said = CliRunner().invoke(app, ["chat", "How long should dough rise?", "--json"], catch_exceptions=False)
    assert said.exit_code == 0, said.stderr
    conversation = json.loads(said.stdout.splitlines()[0])["conversation"]
    said = CliRunner().invoke(app, ["chat", "How far is the moon?", "--json"], catch_exceptions=False)
    turn = json.loads(said.stdout.splitlines()[0])["turn"]
    edited = folder / "edited.md"
    edited.write_text(PROMPT.replace("examples:", "knowledge: []\nexamples:"))
    done = run("replay", "--conversation", conversation, "--prompt", "edited.md", "--json")
    assert done.exit_code == 0, done.output
    difference = json.loads(done.stdout)
    assert difference["changed"] == ["text", "citations"]
    assert "[-" in difference["text_diff"]
    done = run("add", "--declined")
    assert done.exit_code == 0, done.output
    assert run("add", "--declined").stdout == "There is nothing to add.\n"
    assert run("add", "--conversation", conversation, "--to", "evals/more.yaml").exit_code == 0
    assert run("add", "--turn", turn, "--to", "evals/more.yaml").exit_code == 0
    added = yaml.safe_load((folder / "evals" / "added.yaml").read_text())["cases"]
    assert [(case["inputs"], case["metadata"]["expect"]) for case in added] == [
        ("How far is the moon?", {"declined": False})
    ]
    done = run("run", "evals/more.yaml", "evals/added.yaml")
    assert done.exit_code == 1
    assert "2 of 3 cases passed" in done.stdout
    assert run("add").exit_code == run("replay").exit_code == run("replay", "--since", "soon").exit_code == 2
    assert run("replay", "--conversation", turn).exit_code == 1
    assert json.loads(run("schema").stdout)["properties"]["cases"]
