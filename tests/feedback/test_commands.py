"""`agent-server feedback` and cases from feedback."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from dirty_equals import IsDatetime, IsPartialDict, IsStr
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from agent_server.caller import Caller
from agent_server.cli import app
from agent_server.db import Database, new_id
from agent_server.evals.adding import word_rating
from agent_server.evals.cases import append_case
from agent_server.feedback.models import Feedback, Rating
from agent_server.feedback.repository import FeedbackRepository
from agent_server.log import configure_logging
from agent_server.turns.prune import prune_turns
from tests.commands import OUR_VARIABLES
from tests.conftest import fetch
from tests.evals.test_commands import empty, folder

__all__ = ["empty", "folder"]  # fixtures

Run = Callable[..., Result]
QUESTION, UNKNOWN = "How long should dough rise?", "How far is the moon?"


@pytest.fixture
def run(folder: Path, empty: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    for variable in OUR_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DATABASE_URL", empty)
    monkeypatch.setenv("AGENT_SERVER_WORKSPACE", str(folder))
    monkeypatch.chdir(folder)
    yield lambda *arguments: CliRunner().invoke(app, arguments, catch_exceptions=False)
    configure_logging("WARNING", "console")


def _ask(run: Run, message: str) -> str:
    said = run("chat", message, "--json")
    assert said.exit_code == 0, said.output
    return str(json.loads(said.stdout.splitlines()[0])["turn"])


async def _rate(url: str, turn: str, rating: Rating, comment: str | None = None) -> str:
    ((owner,),) = await fetch(url, f"select owner_id from turn where id = '{turn}'")
    database = Database(url)
    async with database.transaction(owner) as session:
        row = await FeedbackRepository(session, Caller(id=owner, kind="user")).give(UUID(turn), rating, comment)
    await database.close()
    return str(row.id)


async def _forget_events(url: str) -> None:
    database = Database(url)
    assert await prune_turns(database, event_hours=0, call_hours=720) == 2
    await database.close()


def test_what_was_given_is_listed_and_becomes_cases(run: Run, folder: Path, empty: str) -> None:
    turns = [_ask(run, QUESTION), _ask(run, UNKNOWN)]
    comment = "Wrong:\nwrite to ann@example.com \x1b[31m"
    good = asyncio.run(_rate(empty, turns[0], "good"))
    bad = asyncio.run(_rate(empty, turns[1], "bad", comment))

    listed = run("feedback", "list")
    assert listed.exit_code == 0, listed.output
    first, words, second = listed.stdout.splitlines()
    assert (first.split()[0], second.split()[0]) == (bad, good)
    assert f"bad   {UNKNOWN}" in first and f"good  {QUESTION}" in second
    assert words == "    Wrong: write to ann@example.com [31m"  # on one line, without what moves a terminal
    assert run("feedback", "list", "--rating", "good").stdout.splitlines() == [second]
    assert run("feedback", "list", "--since", "2999-01-01").stdout == ""
    limited = run("feedback", "list", "--limit", "1")
    assert limited.stdout.splitlines() == [first, words] and "--limit" in limited.stderr
    assert json.loads(run("feedback", "list", "--json", "--since", "2020-01-01", "--rating", "bad").stdout) == [
        {
            "id": bad,
            "rating": "bad",
            "comment": comment,
            "message": UNKNOWN,
            "agent": "baker",
            "turn_id": turns[1],
            "conversation_id": IsStr(),
            "owner_id": IsStr(),
            "created_at": IsDatetime(iso_string=True),
            "updated_at": IsDatetime(iso_string=True),
        }
    ]

    for id in (good, bad):
        added = run("eval", "add", "--feedback", id)
        assert added.exit_code == 0, added.output
    text = (folder / "evals" / "added.yaml").read_text()
    assert f"# turn {turns[0]}\n" in text and "ann@example.com" not in text
    assert yaml.safe_load(text)["cases"] == [
        {
            "name": QUESTION,
            "inputs": QUESTION,
            "metadata": IsPartialDict(
                note="Rated good", expect={"agent": "baker", "no_tool": True, "citations": ["baking/dough.md"]}
            ),
        },
        {
            "name": UNKNOWN,
            "inputs": UNKNOWN,
            "metadata": IsPartialDict(note=IsStr(regex="(?s)Rated bad: Wrong:.*should have happened."))
            & IsPartialDict(expect={"declined": False}),
        },
    ]
    # What the answer to the second lacked is named until somebody has corrected the content or the case.
    done = run("eval", "run", "evals/added.yaml")
    assert done.exit_code == 1 and "1 of 2 cases passed" in done.stdout


def test_a_rated_turn_becomes_the_same_case_when_its_events_are_past_retention(
    run: Run, folder: Path, empty: str
) -> None:
    ids = [asyncio.run(_rate(empty, _ask(run, message), "good")) for message in (QUESTION, UNKNOWN)]
    for id in ids:
        assert run("eval", "add", "--feedback", id, "--to", "evals/before.yaml").exit_code == 0
    asyncio.run(_forget_events(empty))
    for id in ids:
        assert run("eval", "add", "--feedback", id, "--to", "evals/after.yaml").exit_code == 0
    before, after = (yaml.safe_load((folder / "evals" / f"{name}.yaml").read_text()) for name in ("before", "after"))
    assert after["cases"] == before["cases"] and len(before["cases"]) == 2


def test_what_is_not_there_and_what_is_mistyped_is_said(run: Run, empty: str) -> None:
    assert run("feedback", "list").stdout == ""
    assert json.loads(run("feedback", "list", "--json").stdout) == []
    for arguments, status, says in (
        (("feedback", "list", "--rating", "fine"), 2, "there are bad, good"),
        (("feedback", "list", "--since", "soon"), 2, "as in 2026-11-01"),
        (("eval", "add", "--feedback", "x"), 2, "`agent-server feedback list` prints them"),
        (("eval", "add", "--feedback", str(new_id())), 1, "`agent-server feedback list` shows which there is"),
        (("eval", "add", "--feedback", str(new_id()), "--declined"), 2, "give one of"),
    ):
        done = run(*arguments)
        assert (done.exit_code, says in done.stderr) == (status, True), (arguments, done.output)


COMMENTS = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=80)


@given(comments=st.lists(st.tuples(st.sampled_from(["good", "bad"]), COMMENTS), min_size=1, max_size=3))
def test_whatever_was_said_of_an_answer_is_in_the_file_and_leaves_it_one_that_is_read(
    comments: list[tuple[str, str | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("rated") / "x.yaml"
    notes: list[dict[str, Any]] = []
    for n, (rating, comment) in enumerate(comments):
        notes.append(word_rating(Feedback(turn_id=new_id(), rating=rating, comment=comment)))
        append_case(file, {"name": str(n), "inputs": "x", "metadata": {"expect": {"no_tool": True}, **notes[n]}})
    cases = yaml.safe_load(file.read_text(encoding="utf-8"))["cases"]
    assert [case["metadata"]["note"] for case in cases] == [note["note"] for note in notes]
