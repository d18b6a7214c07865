"""agent-server prompt render, prompt blame and chat --trace: what a model is sent and what happened, in the terminal."""

import asyncio
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_server.testing import Call, Refuse, Say, ScriptedOpenAI, Step, scripted_openai
from tests import zygote
from tests.commands import PATIENCE, environment
from tests.conftest import ROOT, execute
from tests.test_cli import Run, empty, lines, result, run, stocked

__all__ = ["empty", "run", "stocked"]  # fixtures

QUESTION = "How long must I wait before flying after diving?"
SAFETY = ("--agent", "safety")


def with_model(steps: list[Step], monkeypatch: pytest.MonkeyPatch, talk: Callable[[ScriptedOpenAI], None]) -> None:
    """Run commands, which have event loops of their own, beside a scripted provider. They have no key of it yet."""

    async def serve() -> None:
        async with scripted_openai(steps) as model:
            monkeypatch.setenv("OPENAI_BASE_URL", model.url)
            monkeypatch.setenv("AGENT_SERVER_MODEL", "scripted")
            await asyncio.to_thread(talk, model)

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    asyncio.run(serve())


def test_what_would_be_sent_is_to_the_byte_what_is_sent_then_and_blamed_for_the_answer(
    stocked: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stocked_url: str
) -> None:
    def talk(model: ScriptedOpenAI) -> None:
        (tmp_path / "known.json").write_text('{"dives": 12}')
        known = stocked("prompt", "render", "safety", "--message", QUESTION, "--profile", "known.json", "--json")
        assert (known.exit_code, known.stderr) == (0, "")
        stocked("tool", "call", "update_profile", "--dives", "12")
        first = stocked("prompt", "render", "safety", "--message", QUESTION, "--json")
        assert known.stdout == first.stdout
        assert stocked("prompt", "render", "safety", "--message", QUESTION).stdout.splitlines()[0] == "# Model call 1"
        assert model.requests == []

        monkeypatch.setenv("OPENAI_API_KEY", "x")
        said = lines(stocked("chat", QUESTION, *SAFETY, "--json"))
        turn, conversation = said[0]["turn"], said[0]["conversation"]
        monkeypatch.delenv("OPENAI_API_KEY")
        second = stocked("prompt", "render", "safety", "--message", "Why?", "--conversation", conversation, "--json")
        monkeypatch.setenv("OPENAI_API_KEY", "x")
        again = lines(stocked("chat", "Why?", *SAFETY, "--conversation", conversation, "--json"))[0]["turn"]

        def blame(*words: str) -> str:
            done = stocked("prompt", "blame", *words)
            # Where the bytes have another hash than what was sent, this says so.
            assert (done.exit_code, done.stderr) == (0, ""), done.stderr
            return done.stdout

        assert blame(turn, "--call", "1", "--json") == first.stdout
        assert blame(again, "--json") == second.stdout
        assert [json.loads(first.stdout), json.loads(second.stdout)] == [model.requests[0], model.requests[2]]
        # The last call made the answer; of the tool's call it is the one before.
        assert json.loads(blame(turn, "--json")) == json.loads(blame(f"{turn}.4", "--json")) == model.requests[1]
        assert json.loads(blame(f"{turn}.2", "--json")) == model.requests[0]
        shown = blame(turn)
        assert shown.startswith("# Model call 2 of 2\nagent safety  prompt ")
        assert "\nto the byte what was sent\n" in shown and "search_knowledge" in shown

        refused = {
            ("soon",): "'soon' is no id",
            (f"{turn}.x",): "after the point stands a number",
            (turn, "--call", "7"): "no model call 7 in this turn; there are 1, 2",
            (turn, "--owner", "me"): "--owner: 'me' is no id",
            (conversation,): "not_found",
            # Of somebody else's nothing is told, not even that it is there.
            (turn, "--owner", conversation): "not_found",
        }
        for words, message in refused.items():
            done = stocked("prompt", "blame", *words)
            assert (done.exit_code, done.stdout) == (1, ""), words
            assert message in done.stderr, words
        asyncio.run(execute(stocked_url, "update turn set calls_kept = false, requests = null"))
        assert "AGENT_SERVER_CALL_HOURS" in stocked("prompt", "blame", turn).stderr

    steps: list[Step] = [Call("search_knowledge", {"query": "flying"}), Say("Wait [1]."), Say("As I said.")]
    with_model(steps, monkeypatch, talk)


def test_a_trace_shows_a_turn_beside_its_answer_and_as_a_line_of_json(
    stocked: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def talk(model: ScriptedOpenAI) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "x")
        done = stocked("chat", QUESTION, *SAFETY, "--trace")
        assert done.stdout == "Wait [1].\n"
        trace = done.stderr[done.stderr.index("turn ") :].splitlines()
        assert max(map(len, trace)) <= 80
        assert trace[0].endswith("  done") and trace[1] == "routing  safety 1.00 by request"
        whole = "\n".join(trace)
        for part in ("[1]", "model call 1  safety  openai/scripted  prompt ", "10 tokens in, 5 out"):
            assert part in whole
        assert whole.index("-> search_knowledge") < whole.index("    <- (") < whole.index("    said 9 characters")
        assert "\x1b" not in whole and "log  " not in whole

        *_, last = lines(stocked("chat", QUESTION, *SAFETY, "--trace", "--json"))
        timeline = last["timeline"]
        assert (last["kind"], timeline["turn"]["status"], len(timeline["model_calls"])) == ("trace", "done", 2)
        assert timeline["model_calls"][0]["request"]["input"][-1]["content"] == QUESTION

        # What was logged about a turn is kept in development alone.
        failed = stocked("chat", QUESTION, *SAFETY, "--trace")
        assert failed.exit_code == 1
        assert "log  warning turn.failed " in failed.stderr
        monkeypatch.setenv("AGENT_SERVER_ENVIRONMENT", "test")
        elsewhere = stocked("chat", QUESTION, *SAFETY, "--trace", "--json")
        assert json.loads(elsewhere.stdout.splitlines()[-1])["timeline"]["log"] == []

    search = Call("search_knowledge", {"query": "flying"})
    steps: list[Step] = [search, Say("Wait [1]."), search, Say("Wait."), Refuse(401), Refuse(401)]
    with_model(steps, monkeypatch, talk)


PLAN = """---
name: plan
description: Plans.
inputs:
  days: {type: integer}
  place: {description: Where to.}
  quick: {type: boolean, default: false}
---
Plan {{ days + 1 }} days in {{ place }}{{ " quickly" if quick }}.
"""


def test_inputs_are_given_by_name_and_read_as_they_are_declared(
    run: Run, empty: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "plan.md").write_text(PLAN)
    monkeypatch.setenv("AGENT_SERVER_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", empty)
    three, there = ("--input", "days=3"), ("--input", "place=12")
    done = run("prompt", "render", "plan", *three, *there, "--input", "quick=true")
    assert done.stdout == 'Plan 4 days in "12" quickly.\n\n', done.stderr
    rendered = result(run("prompt", "render", "plan", "--message", "Go", *three, *there, "--json"))
    assert rendered["messages"][0]["content"].startswith('Plan 4 days in "12".\n')
    lines(run("chat", "Go", *three, *there, "--json"))

    # Each refusal names all that is wrong.
    for words in (("prompt", "render", "plan"), ("prompt", "render", "plan", "--message", "Go"), ("chat", "Go")):
        missing = run(*words)
        assert missing.exit_code == 1
        assert "days: is missing; it is a whole number; place: is missing" in missing.stderr
    for words in (("prompt", "render", "plan"), ("chat", "Go")):
        wrong = run(*words, "--input", "days=soon", "--input", "plaice=x")
        assert wrong.exit_code == 1
        assert "days: must be a whole number" in wrong.stderr and "did you mean 'place'" in wrong.stderr
    for word in ("days", "=3"):
        bad = run("chat", "Go", "--input", word)
        assert (bad.exit_code, bad.stdout) == (2, "")
        assert "is no NAME=VALUE" in bad.stderr


@pytest.mark.parametrize("words", [("prompt", "list"), ("prompt", "schema"), ("prompt", "diff", "safety", "tasks")])
def test_a_command_ends_quietly_where_nobody_reads_what_it_prints(words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with tempfile.TemporaryFile("w+") as complaint:
            files: Any = (0, writing, complaint)
            process = zygote.start("agent_server", *words, cwd=ROOT, environment=environment({}), files=files)
            code = process.wait(PATIENCE)
            complaint.seek(0)
            assert (code, complaint.read()) in [(141, ""), (1, "")]
    finally:
        os.close(writing)
