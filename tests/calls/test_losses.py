"""What is confirmed is what happens: the question says what the database would lose, and a yes counts for that alone."""

import asyncio
import os
import unicodedata
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_server import Caller, Conflict, Loss, NotFound, ToolContext, tool
from agent_server.calls.call import Runtime, call_tool
from agent_server.calls.confirmations import Changed, show_plainly, word_question
from agent_server.calls.consent import confirm_call
from agent_server.db import Database
from agent_server.errors import WorkspaceInvalid
from agent_server.settings import Settings
from agent_server.testing import Call, Say
from tests import zygote
from tests.calls.test_confirmations import Talk, talk
from tests.conftest import ROOT, execute, fetch
from tests.server import Start

__all__ = ["talk"]

HIDDEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Co", "Cn", "Cs"})


async def ask_to_delete(talk: Talk, task: str) -> dict[str, Any]:
    (question,) = await talk.say(Call("delete_task", {"task": task}), Say("Please confirm."))
    return question


async def rename(talk: Talk, task: str, title: str) -> None:
    body = {"task": task, "title": title}
    answer = await talk.client.http.post("/api/tools/update_task", json=body, headers=talk.auth())
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("by", ["id", "title", "another spelling"])
async def test_the_question_names_the_row_as_the_database_has_it(talk: Talk, by: str) -> None:
    id = (await talk.add("Old shopping list"))["id"]
    named = {"id": id, "title": "Old shopping list", "another spelling": "old SHOPPING list"}[by]
    question = await ask_to_delete(talk, named)
    assert question["question"] == 'Delete the task "Old shopping list"?'
    assert (await talk.read(question["id"])).json()["losses"] == [{"id": id, "title": "Old shopping list"}]


async def test_a_yes_after_the_title_went_to_another_task_deletes_neither_and_asks_anew(talk: Talk) -> None:
    old, other = await talk.add("old shopping list"), await talk.add("tax papers")
    question = await ask_to_delete(talk, "old shopping list")
    await rename(talk, old["id"], "done with")
    await rename(talk, other["id"], "old shopping list")
    refused = await talk.answer(question["id"], confirm=True)
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (409, "conflict")
    assert problem["detail"].startswith("Nothing was done: what it would lose has changed since you were asked")
    anew = problem["confirmation"]
    assert anew["id"] != question["id"]
    assert anew["question"] == 'Delete the task "old shopping list"?'
    assert await talk.titles() == ["Buy fins", "done with", "old shopping list"]
    assert (await talk.read(question["id"])).json()["status"] == "expired"
    assert (await talk.answer(question["id"], confirm=True)).status_code == 409
    assert (await talk.read(anew["id"])).json()["status"] == "open"
    assert (await talk.answer(anew["id"], confirm=True)).status_code == 200
    assert await talk.titles() == ["Buy fins", "done with"]
    assert await talk.audit() == [
        ("agent", "asked"),
        ("agent", "conflict"),
        ("agent", "asked"),
        ("agent", "ok"),
    ]


async def test_a_yes_after_a_rename_asks_for_the_new_title(talk: Talk) -> None:
    id = await talk.id_of("Buy fins")
    question = await ask_to_delete(talk, id)
    await rename(talk, id, "Passport")
    refused = await talk.answer(question["id"], confirm=True)
    assert (refused.status_code, refused.json()["confirmation"]["question"]) == (
        409,
        'Delete the task "Passport"?',
    )
    assert await talk.titles() == ["Passport"]


async def test_a_yes_to_what_is_gone_or_no_longer_one_is_refused_without_a_question(talk: Talk) -> None:
    gone, twin = await ask_to_delete(talk, "Buy fins"), await ask_to_delete(talk, "Buy fins")
    await talk.add("Buy fins")
    refused = await talk.answer(twin["id"], confirm=True)
    assert (refused.status_code, refused.json().get("confirmation")) == (409, None)
    assert "2 tasks are called 'Buy fins'" in refused.json()["detail"]
    await execute(talk.url, "delete from task")
    refused = await talk.answer(gone["id"], confirm=True)
    assert (refused.status_code, refused.json().get("confirmation")) == (409, None)
    assert "There is no task called 'Buy fins'" in refused.json()["detail"]
    await talk.add("Buy fins")
    assert (await talk.answer(gone["id"], confirm=True)).status_code == 409
    assert await talk.titles() == ["Buy fins"]


async def test_of_yeses_at_once_to_what_has_changed_one_gets_a_new_question(talk: Talk) -> None:
    id = await talk.id_of("Buy fins")
    question = await ask_to_delete(talk, id)
    await rename(talk, id, "Passport")
    answers = await asyncio.gather(*(talk.answer(question["id"], confirm=True) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {409}
    assert sum("confirmation" in answer.json() for answer in answers) == 1
    assert await fetch(talk.url, "select count(*) from confirmation") == [(2,)]


async def test_a_yes_while_the_task_is_being_renamed_never_deletes_the_renamed_one(talk: Talk) -> None:
    for number in range(8):
        id = (await talk.add(f"t{number}"))["id"]
        question = await ask_to_delete(talk, id)
        answer, _ = await asyncio.gather(
            talk.answer(question["id"], confirm=True),
            talk.client.http.post("/api/tools/update_task", json={"task": id, "title": "new"}, headers=talk.auth()),
        )
        left = await fetch(talk.url, f"select title from task where id = '{id}'")
        assert left == ([] if answer.status_code == 200 else [("new",)])


async def test_a_question_of_a_version_that_kept_no_losses_is_asked_again(talk: Talk) -> None:
    question = await ask_to_delete(talk, "Buy fins")
    await execute(talk.url, "update confirmation set losses = null")
    refused = await talk.answer(question["id"], confirm=True)
    assert refused.status_code == 409
    assert (await talk.answer(refused.json()["confirmation"]["id"], confirm=True)).status_code == 200


async def test_a_conversation_is_named_in_the_question_and_a_rename_asks_again(talk: Talk) -> None:
    await talk.say(Say("Hello."))
    ((id, title),) = await fetch(talk.url, "select id, title from conversation")
    runtime, tools = talk.client.server.runtime, talk.client.server.workspace.tools
    caller = await talk.client.server.resolver.resolve(talk.client.key)
    delete = tools["delete_conversation"]
    asked = await call_tool(runtime, delete, {"conversation_id": str(id)}, caller=caller, surface="agent")
    assert asked["question"] == f'Delete the conversation "{title}"?'
    await execute(talk.url, "update conversation set title = 'Taxes'")
    with pytest.raises(Changed) as changed:
        await confirm_call(runtime, tools, UUID(asked["confirmation"]), caller=caller, surface="agent")
    assert changed.value.question is not None
    assert "Taxes" in changed.value.question.question
    assert await fetch(talk.url, "select title from conversation") == [("Taxes",)]


async def test_the_terminal_asks_again_where_it_has_changed_meanwhile(start: Start, stocked_url: str) -> None:
    async with start() as client:
        added = await client.http.post("/api/tools/create_task", json={"title": "Buy fins"}, headers=client.auth)
        environment = {**os.environ, "DATABASE_URL": stocked_url, "AGENT_SERVER_KEY": client.key}
    id = added.json()["id"]
    command = zygote.command("agent_server", "tool", "call", "delete_task", "--task", id)
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdin=theirs, stdout=-1, stderr=-1, env=environment
    )
    assert process.stderr is not None
    said = await asyncio.wait_for(process.stderr.readuntil(b"[y/N]: "), 60)
    assert 'Delete the task "Buy fins"?' in said.decode()
    await execute(stocked_url, "update task set title = E'Pass\\u202Eport'")
    os.write(ours, b"y\n")
    said = await asyncio.wait_for(process.stderr.readuntil(b"[y/N]: "), 60)
    assert 'Delete the task "Pass\\u202eport"?' in said.decode()
    assert await fetch(stocked_url, "select count(*) from task") == [(1,)]
    os.write(ours, b"y\n")
    await process.communicate()
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0
    assert await fetch(stocked_url, "select count(*) from task") == [(0,)]


@dataclass
class Shelf:
    """Letters that are kept outside of the database."""

    letters: dict[str, str] = field(default_factory=dict)


async def _letter_lost(context: ToolContext, name: str) -> list[Loss]:
    letters = context.resource(Shelf).letters
    if name not in letters:
        raise NotFound(f"There is no letter {name}")
    return [Loss(name, letters[name])]


@tool(scope="letters:burn", effect="once", destructive=True, losses=_letter_lost)
async def burn_letter(context: ToolContext, name: str) -> str:
    """Burn a letter."""
    return context.resource(Shelf).letters.pop(name)


@tool(scope="letters:burn", effect="keyed", destructive=True, losses=_letter_lost)
async def shred_letter(context: ToolContext, name: str) -> str:
    """Shred a letter."""
    return context.resource(Shelf).letters.pop(name)


@tool(scope="letters:burn", effect="stored", destructive=True)
async def lose_letter(context: ToolContext, name: str) -> str:
    """Lose a letter, which nobody can tell of before."""
    return context.resource(Shelf).letters.pop(name)


@pytest.mark.parametrize("destroy", [burn_letter, shred_letter])
async def test_a_call_outside_the_database_is_not_made_either(database: Database, me: Caller, destroy: Any) -> None:
    shelf = Shelf({"a": "To Anna"})
    runtime = Runtime(settings=Settings(), database=database, resources={Shelf: shelf})
    asked = await call_tool(runtime, destroy, {"name": "a"}, caller=me, surface="agent")
    shelf.letters["a"] = "To Ben"
    confirm = {"caller": me, "surface": "agent"}
    with pytest.raises(Changed) as changed:
        await confirm_call(runtime, {destroy.name: destroy}, UUID(asked["confirmation"]), **confirm)  # type: ignore[arg-type]
    assert shelf.letters == {"a": "To Ben"}
    assert changed.value.question is not None
    with pytest.raises(Conflict):
        await confirm_call(runtime, {destroy.name: destroy}, UUID(asked["confirmation"]), **confirm)  # type: ignore[arg-type]
    new = UUID(changed.value.question.id)
    assert await confirm_call(runtime, {destroy.name: destroy}, new, **confirm) == "To Ben"  # type: ignore[arg-type]
    assert shelf.letters == {}


async def test_a_tool_that_does_not_say_what_it_loses_has_its_arguments_in_the_question(
    database: Database, me: Caller
) -> None:
    runtime = Runtime(settings=Settings(), database=database, resources={Shelf: Shelf({"a\u202e": "x"})})
    asked = await call_tool(runtime, lose_letter, {"name": "a\u202e"}, caller=me, surface="agent")
    assert asked["question"] == 'Lose letter (name: "a\\u202e")?'
    tools = {lose_letter.name: lose_letter}
    assert await confirm_call(runtime, tools, UUID(asked["confirmation"]), caller=me, surface="agent") == "x"


def test_losses_of_a_tool_that_asks_nobody_or_takes_something_else_are_mistakes() -> None:
    async def other(context: ToolContext, title: str) -> list[Loss]:
        return []

    async def right(context: ToolContext, name: str) -> list[Loss]:
        return []

    def declare(losses: Any, *, destructive: bool) -> None:
        @tool(scope="letters:burn", effect="stored", destructive=destructive, losses=losses)
        async def burn(context: ToolContext, name: str) -> None:
            """Burn it."""

    with pytest.raises(WorkspaceInvalid, match=r"losses must take what the tool takes: \(context, name\)"):
        declare(other, destructive=True)
    with pytest.raises(WorkspaceInvalid, match="losses is for a tool that is destructive"):
        declare(right, destructive=False)
    with pytest.raises(WorkspaceInvalid, match="losses must be `async def`"):
        declare(lambda context, name: [], destructive=True)
    declare(right, destructive=True)


SPECIAL = st.sampled_from(
    "\u202e\u202d\u2066\u2069\u200b\u200f\ufeff\u00ad\n\r\t\x00\x1b\x85\u2028\u2029\ue000\U000e0041\ud800"
)
TEXT = st.text(st.characters() | SPECIAL, max_size=60)


@given(TEXT, st.dictionaries(st.sampled_from(["task", "x\u202e"]), TEXT | st.lists(TEXT, max_size=2) | st.integers()))
def test_a_question_of_arguments_has_no_character_that_hides_or_reorders(title: str, arguments: dict[str, Any]) -> None:
    assert not [c for c in word_question(title, arguments) if unicodedata.category(c) in HIDDEN]


@given(st.sampled_from(["Delete", "Delete task", "Delete all tasks"]), st.lists(TEXT, min_size=1, max_size=3))
def test_a_question_of_losses_names_each_and_no_title_ends_its_quotes(title: str, titles: list[str]) -> None:
    losses = [{"id": str(uuid4()), "title": title} for title in titles]
    question = word_question(title, {}, losses)
    assert not [c for c in question if unicodedata.category(c) in HIDDEN]
    for loss in losses:  # those of one title are told apart by their ids
        assert (loss["id"] in question) == (titles.count(loss["title"]) > 1)
    ends = question.replace("\\\\", "").replace('\\"', "").count('"')
    assert ends == 2 * len(losses)


@pytest.mark.parametrize(
    ("title", "lost", "question"),
    [
        ("Delete task", ["Buy fins"], 'Delete the task "Buy fins"?'),
        ("Delete old tasks", ["Buy fins"], 'Delete old tasks: "Buy fins"?'),
        ("Delete tasks", ["a", "b", "c"], 'Delete tasks: "a", "b" and "c"?'),
        ("Delete tasks", [], "Delete tasks? There is nothing to be lost."),
        ("Forget", [f"{i}" for i in range(22)], "Forget: " + ", ".join(f'"{i}"' for i in range(20)) + " and 2 more?"),
    ],
)
def test_a_question_reads_as_a_person_would_ask_it(title: str, lost: list[str], question: str) -> None:
    assert word_question(title, {}, [{"id": str(uuid4()), "title": one} for one in lost]) == question


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["title", "note"]), st.text() | st.integers() | st.lists(st.text())))
def test_no_argument_passes_for_another_one_in_a_question(arguments: dict[str, Any]) -> None:
    question = word_question("Delete", arguments)
    assert not [c for c in question if unicodedata.category(c) in HIDDEN]
    ends = question.replace("\\\\", "").replace('\\"', "").count('"')
    assert ends == 2 * sum(not isinstance(value, int) for value in arguments.values())


@given(st.text(st.characters(codec="utf-8", categories=["Mn", "Mc", "Me"]), max_size=5))
def test_no_mark_that_looks_like_nothing_is_shown_as_it_is(marks: str) -> None:
    variation = {*map(chr, range(0xFE00, 0xFE10)), *map(chr, range(0xE0100, 0xE01F0)), "\u180b", "\u034f"}
    assert not set(show_plainly(f"a{marks}b")) & variation


@given(
    st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="\u115f\u1160\u2800\u3164\uffa0"))
)
def test_what_can_be_seen_is_shown_as_it_is(text: str) -> None:
    assert show_plainly(text) == text


async def test_a_title_that_reorders_is_escaped_wherever_it_is_asked_about(talk: Talk) -> None:
    title = "a\u202eb\u200bc\u2028d"
    task = await talk.add(title)
    question = await ask_to_delete(talk, task["id"])
    shown = 'Delete the task "a\\u202eb\\u200bc\\u2028d"?'
    assert question["question"] == shown
    assert (await talk.read(question["id"])).json()["question"] == shown
