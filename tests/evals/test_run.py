"""Cases through the orchestrator: stubs, recordings, verdicts, and stored turns once more."""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml
from agents import FunctionTool
from agents.agent_output import AgentOutputSchema
from agents.model_settings import ModelSettings
from hypothesis import given
from hypothesis import strategies as st

from agent_server import ToolContext, tool
from agent_server.db import Database
from agent_server.evals.adding import make_case
from agent_server.evals.cases import Case, append_case, load_cases
from agent_server.evals.difference import diff_words
from agent_server.evals.format import CaseBody
from agent_server.evals.prepared import scratch_database, template_name
from agent_server.evals.recordings import Mode, Recordings
from agent_server.evals.replay import difference_json, replay, tell_difference
from agent_server.evals.report import list_different, report_json, report_routes
from agent_server.evals.requests import Asked
from agent_server.evals.run import CaseRunner, Result, Variant, run_variant
from agent_server.evals.stored import read_conversation, read_turn, read_turns_since
from agent_server.settings import load_settings
from agent_server.testing import AgentServer, Call, Calls, Say, ScriptedOpenAI, Step
from agent_server.testing.wire import InProcess
from agent_server.workspace import Workspace
from tests.conftest import fetch
from tests.server import _reference_router

MODEL = "openai/scripted"
KEY = "sk-canary-opens-everything-0123456789abcdefghij"  # pragma: allowlist secret
Open = Callable[..., AbstractAsyncContextManager[CaseRunner]]


@tool(scope="tasks:write", effect="once")
async def order_fins(context: ToolContext, size: int) -> str:
    """Order fins from a shop."""
    raise AssertionError("it was really called")


@pytest.fixture
def workspace(agent_workspace: Workspace) -> Workspace:
    """The reference workspace, in which one agent may order something."""
    tasks = replace(agent_workspace.agents["tasks"], tools=(*agent_workspace.agents["tasks"].tools, "order_fins"))
    tools = MappingProxyType({**agent_workspace.tools, "order_fins": order_fins})
    return replace(agent_workspace, tools=tools).with_prompt(tasks)


@pytest.fixture
async def open_runner(workspace: Workspace, agent_database: str, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens what runs cases; its recordings are in a temporary folder."""
    database, router = Database(agent_database), await _reference_router()

    @asynccontextmanager
    async def opened(
        mode: Mode = "off",
        model: ScriptedOpenAI | None = None,
        name: str | None = None,
        within: Workspace = workspace,
        only: bool = False,
    ) -> AsyncIterator[CaseRunner]:
        settings = load_settings(
            workspace=workspace.root, openai_base_url="http://model.invalid/v1", model_retries=0, environment="test"
        )
        recordings = Recordings(tmp_path, mode)
        chosen = name or ("offline" if mode == "off" and model is None else MODEL)
        variant = Variant(model=chosen, workspace=within, only=only)
        transport = InProcess(model or ScriptedOpenAI())
        async with run_variant(settings, variant, database, recordings, router=router, transport=transport) as runner:
            yield runner
        recordings.save()

    yield opened
    await database.close()


def case(name: str, inputs: Any, **metadata: Any) -> Case:
    return Case("evals/x.yaml", 1, CaseBody.model_validate({"name": name, "inputs": inputs, "metadata": metadata}))


def told(result: Result) -> list[Any]:
    """All of a result that a person judges by."""
    return [
        (
            reply.answer.text,
            reply.answer.agent,
            [(c.name, c.arguments, c.error) for c in reply.answer.calls],
            reply.usage,
        )
        for reply in result.replies
    ] + [result.verdict, result.reasons]


async def test_a_conversation_is_held_and_each_answer_is_compared(open_runner: Open) -> None:
    both = case(
        "both",
        ["Add a task: Buy fins", "What is on my list?"],
        profile={"name": "Ann"},
        expect=[
            {"agent": "tasks", "calls": [{"tool": "create_task", "arguments": {"title": "Buy fins"}}]},
            {"calls": ["list_tasks"], "contains": "Buy fins", "judge": "It is friendly", "max_cost": 0},
        ],
    )
    async with open_runner() as runner:
        result = await runner.run(both)
        assert (result.verdict, list(result.reasons), result.unjudged) == ("passed", [], ["It is friendly"])
        wrong = await runner.run(case("wrong", "Add a task: Buy fins", expect={"agent": "trip", "no_tool": True}))
        nobody = case("may nothing", "Add a task: Buy fins", caller={"scopes": []}, expect={"calls": ["create_task"]})
        refused = await runner.run(nobody)
    assert wrong.verdict == refused.verdict == "failed"
    assert [reason.partition(":")[0] for reason in wrong.reasons] == ["agent", "calls"]
    assert [reason.partition(",")[0] for reason in refused.reasons] == ["calls: none"]


async def test_a_tool_with_an_effect_outside_is_never_called_and_a_stub_stands_for_it(open_runner: Open) -> None:
    def ask(**more: Any) -> Case:
        return case("order", "Order fins", agent="tasks", expect={"calls": ["order_fins"], "contains": "done"}, **more)

    script: list[Step] = [Call("order_fins", {"size": 42}), Say("It is done.")]
    stub = {"tool": "order_fins", "arguments": {"size": 42}, "returns": {"number": "A1"}}
    async with open_runner(model=(model := ScriptedOpenAI(script))) as runner:
        without = await runner.run(ask())
        assert without.reasons == ['stub: order_fins was called with {"size": 42}; there is no stub for it']
        model.script = script
        passed = await runner.run(ask(stubs=[stub]))
        assert passed.passed, passed.reasons
        assert passed.replies[0].answer.calls[0].output == {"number": "A1"}
        model.script = [Call("order_fins", {"size": 43}), Say("It is done.")]
        changed = await runner.run(ask(stubs=[stub]))
        assert changed.reasons == ['stub: order_fins was called with {"size": 43}; the stub is for {"size": 42}']
        assert changed.replies[0].answer.calls[0].output == {"number": "A1"}
        model.script = script
        failing = await runner.run(ask(stubs=[{"tool": "order_fins", "error": "conflict: Sold out"}]))
        assert (failing.passed, failing.replies[0].answer.calls[0].error) == (True, "conflict: Sold out")


async def test_what_was_recorded_is_replayed_with_no_model_and_gives_the_same_a_hundred_times(
    open_runner: Open, workspace: Workspace, tmp_path: Path
) -> None:
    kept = case(
        "kept",
        [f"Put fins on my list, for ann@example.com, key {KEY}", "And now?"],
        agent="tasks",
        expect=[{"calls": ["create_task"], "contains": "ann@example.com"}, {"contains": "list"}],
    )
    model = ScriptedOpenAI(
        [
            Call("create_task", {"title": "Fins for ann@example.com", "description": f"password={KEY}"}),
            Say("Fins are on it,\nfor ann@example.com, not bob@example.com."),
            Say("They are on your list."),
        ]
    )
    async with open_runner("record", model) as runner:
        recorded = await runner.run(kept)
    assert recorded.passed, recorded.reasons
    text = (tmp_path / "evals" / "recordings" / "x.yaml").read_text()
    assert "sk-canary" not in text and "@example.com" not in text and "Bearer" not in text
    assert yaml.safe_load(text)["kept"][0]["model"] == MODEL
    async with open_runner("replay") as runner:
        assert repr(told(await runner.run(kept))) == repr(told(recorded))

    async def missing(changed: Case, within: Workspace = workspace, name: str | None = None) -> str:
        async with open_runner("replay", name=name, within=within) as runner:
            result = await runner.run(changed)
        assert result.verdict == "missing"
        return result.reasons[0]

    edited = replace(workspace.agents["tasks"], body=workspace.agents["tasks"].body + "\nBe kind.\n")
    assert ": prompt changed;" in await missing(kept, workspace.with_prompt(edited))
    fewer = replace(workspace.agents["tasks"], tools=("create_task",))
    assert ": tools changed;" in await missing(kept, workspace.with_prompt(fewer))
    another = replace(kept, body=kept.body.model_copy(update={"inputs": ("Put masks on my list", "And now?")}))
    assert "no recording for 'Put masks on my list'" in (reason := await missing(another))
    assert ": input changed;" in reason
    assert "nothing is recorded for this case" in await missing(kept, name="openai/other")
    async with open_runner("auto", ScriptedOpenAI([Say("Hello.")])) as runner:
        assert (await runner.run(kept)).passed
        new = case("new", "Say hello", agent="tasks", expect={"contains": "hello"})
        recorded = await runner.run(new)
    async with open_runner("replay") as runner:
        assert {repr(told(await runner.run(new))) for _ in range(100)} == {repr(told(recorded))}


SCHEMA = AgentOutputSchema(dict[str, int], strict_json_schema=False)
UUIDS = st.uuids().map(str)


def make_tool(name: str, description: str) -> FunctionTool:
    async def call(*_: Any) -> str:
        return ""

    return FunctionTool(name, description, {"type": "object"}, call)


def ask_of(**changes: Any) -> Asked:
    whole: dict[str, Any] = {
        "model": MODEL,
        "instructions": "Be kind.\n<passages>\nBread\n</passages>\nThat is all.",
        "input": [{"role": "user", "content": "Hello"}],
        "settings": ModelSettings(),
        "tools": [make_tool("add", "Adds.")],
        "schema": None,
        "handoffs": [],
    }
    return Asked(**{**whole, **changes})


WORDS = st.text("abcdefgh ", min_size=1, max_size=20)
CHANGES = st.one_of(
    st.tuples(st.just("model"), WORDS.map(lambda w: {"model": f"openai/{w}"})),
    st.tuples(
        st.just("prompt"), WORDS.map(lambda w: {"instructions": f"{w}!\n<passages>\nBread\n</passages>\nThat is all."})
    ),
    st.tuples(
        st.just("passages"),
        WORDS.map(lambda w: {"instructions": f"Be kind.\n<passages>\n{w}\n</passages>\nThat is all."}),
    ),
    st.tuples(st.just("input"), WORDS.map(lambda w: {"input": [{"role": "user", "content": w}]})),
    st.tuples(st.just("tools"), WORDS.map(lambda w: {"tools": [make_tool("add", w)]})),
    st.tuples(st.just("settings"), st.floats(0, 2).map(lambda t: {"settings": ModelSettings(temperature=t)})),
    st.tuples(st.just("output_schema"), st.just({"schema": SCHEMA})),
)


@given(CHANGES)
def test_whatever_reaches_a_model_is_part_of_what_a_recording_is_found_by(change: tuple[str, dict[str, Any]]) -> None:
    part, changes = change
    before, after = ask_of(), ask_of(**changes)
    assert [name for name, digest in after.parts.items() if before.parts[name] != digest] == [part]
    assert before.key != after.key == ask_of(**changes).key


@given(
    st.lists(UUIDS, min_size=1, max_size=4, unique=True),
    st.lists(UUIDS, min_size=4, max_size=4, unique=True),
    st.data(),
)
def test_ids_are_no_part_of_it_but_which_of_them_are_the_same_is(ids: list[str], others: list[str], data: Any) -> None:
    places = data.draw(st.lists(st.sampled_from(range(len(ids))), min_size=1, max_size=6))
    one = ask_of(input=" ".join(ids[n] for n in places))
    same = ask_of(input=" ".join(others[n] for n in places))
    assert one.key == same.key
    if len(set(places)) > 1:
        assert one.key != ask_of(input=" ".join(ids[0] for _ in places)).key
    answer = f"It is {ids[places[-1]]}."
    assert same.with_values(one.without_values(answer)) == f"It is {others[places[-1]]}."


SECRETS = st.sampled_from(
    ["sk-canary-{}", "ghp_{}", "Bearer {}", "xoxb-{}", "postgresql://me:{}@host/db", "password={}"]
)


@given(
    SECRETS, st.text("abcxyz0123456789", min_size=30, max_size=40), st.sampled_from(["{}", "({}).", '{{"key": "{}"}}'])
)
def test_no_secret_of_a_request_or_an_answer_gets_into_a_recording(shape: str, key: str, around: str) -> None:
    text = around.format(shape.format(key))
    assert key not in ask_of(input=text).without_values(text)
    arguments = json.dumps({"password": key, "note": text})
    assert key not in ask_of(input=text).without_values_of(arguments)


@given(WORDS, WORDS)
def test_a_difference_of_words_has_both_texts_in_it(before: str, now: str) -> None:
    text = diff_words(before, now).plain
    assert re.sub(r"\[-|-\]", "", re.sub(r"\{\+.*?\+\}", "", text)).split() == before.split()
    assert re.sub(r"\{\+|\+\}", "", re.sub(r"\[-.*?-\]", "", text)).split() == now.split()


async def test_a_stored_turn_runs_again_without_an_effect_and_becomes_a_case(
    agent_server: AgentServer, scripted_model: ScriptedOpenAI, workspace: Workspace, tmp_path: Path, open_runner: Open
) -> None:
    scripted_model.script = [
        Call("create_task", {"title": "Buy fins"}),
        Say("I wrote it down."),
        Calls((Call("list_tasks", {}),)),
        Say("There is one task."),
    ]
    me, database = agent_server.as_caller("tasks:read", "tasks:write", "knowledge:read"), agent_server.database
    first = await me.chat("Remind me to buy fins", agent="tasks")
    await me.chat("What is on it?", agent="tasks", conversation=first.conversation)
    stored = await read_conversation(database, first.conversation, me.caller)
    assert [turn.messages for turn in stored] == [
        ["Remind me to buy fins"],
        ["Remind me to buy fins", "What is on it?"],
    ]
    assert {turn.turn.id for turn in await read_turns_since(database, stored[0].turn.created_at, me.caller)} == {
        turn.turn.id for turn in stored
    }
    before = await fetch(database.url, "select count(*) from task")
    script: list[Step] = [Call("list_tasks", {}), Say("There are two tasks.")]
    async with open_runner(model=(model := ScriptedOpenAI(script))) as runner:
        difference = await replay(runner, await read_turn(database, stored[1].turn.id, me.caller))
        assert difference.now.answer.calls[0].output == stored[1].reply.answer.calls[0].output
        assert [message["content"] for message in model.requests[0]["messages"] if message["role"] == "user"] == [
            "Remind me to buy fins",
            "What is on it?",
        ]
        model.script = [Call("create_task", {"title": "Sell fins"}), Say("I wrote it down.")]
        other = await replay(runner, stored[0])
    assert await fetch(database.url, "select count(*) from task") == before
    assert difference.changed == ["text"]
    assert difference_json(difference)["text_diff"] == "There [-is one task.-] {+are two tasks.+}"
    assert "differs" in tell_difference(difference).plain
    assert other.changed == ["calls"]
    (called,) = other.calls
    assert called.startswith('create_task was called with {"title": "Sell fins"') and "Buy fins" in called
    file = tmp_path / "added.yaml"
    for turn in stored:
        append_case(file, made := make_case(turn, workspace, [], with_profile=False))
        assert json.loads(json.dumps(made)) == made
    cases = load_cases([file], workspace)
    async with open_runner(model=ScriptedOpenAI([Call("create_task", {"title": "Buy fins"}), Say("Noted.")])) as runner:
        again = await runner.run(cases[0])
    assert again.passed, again.reasons


def test_a_case_that_passes_with_one_prompt_and_not_with_another_is_named() -> None:
    one = case("one", "x", expect={"agent": "tasks"})
    results = [
        Result(case=one, variant="a.md offline", verdict="passed"),
        Result(case=one, variant="b.md offline", verdict="failed"),
        Result(case=replace(one, line=2, file="y"), variant="a.md offline", verdict="failed"),
    ]
    assert list_different(results) == ["evals/x.yaml::one: passed with a.md offline, failed with b.md offline"]


async def test_an_agent_is_asked_with_its_own_model_unless_one_is_named(
    open_runner: Open, workspace: Workspace
) -> None:
    own = workspace.with_prompt(replace(workspace.agents["tasks"], model="openai/own"))
    said = case("said", "Say hello", agent="tasks", expect={"contains": "hello"})
    async with open_runner(model=(model := ScriptedOpenAI([Say("Hello.")] * 2)), within=own) as runner:
        assert (await runner.run(said)).passed
        assert runner.variant.find_model("tasks") == "openai/own"
    async with open_runner(model=model, within=own, only=True) as runner:
        assert (await runner.run(said)).passed
    assert [request["model"] for request in model.requests] == ["own", "scripted"]


async def test_a_judge_is_asked_and_its_reason_is_told(open_runner: Open) -> None:
    judged = case("judged", "Say hello", agent="tasks", expect={"judge": "It is friendly", "max_cost": 1})
    script: list[Step] = [
        Say("Hello."),
        Say('{"pass": true, "reason": "It greets."}'),
        Say("Go away."),
        Say('{"pass": false, "reason": "It is rude."}'),
        Say("Hm."),
        Say("I cannot tell."),
    ]
    async with open_runner(model=(model := ScriptedOpenAI(script)), name="openai/gpt-5.4-mini") as runner:
        results = [await runner.run(judged) for _ in range(3)]
    assert [list(result.reasons) for result in results] == [
        [],
        ["judge: 'It is friendly': It is rude."],
        ["judge: openai/gpt-5.4-mini gave no verdict on 'It is friendly'"],
    ]
    asked = json.loads(model.requests[1]["messages"][-1]["content"])
    assert asked == {
        "conversation": [{"user": "Say hello"}, {"assistant": "Hello."}],
        "criterion": "It is friendly",
    }


async def test_what_the_router_chose_is_reported_with_the_messages_of_nobody(open_runner: Open) -> None:
    cases = [
        case("right", "Add a task: Buy fins", expect={"agent": "tasks"}),
        case("wrong", "Add a task: Buy masks", expect={"agent": "safety"}),
        case("nobody", "Which bonds shall I buy?", expect={"declined": True, "out_of_scope": True}),
        case("declined", "Enrol me in a course", expect={"declined": True}),
        case("sent", "Add a task: Buy tanks", agent="tasks", expect={"agent": "tasks"}),
    ]
    async with open_runner() as runner:
        results = [await runner.run(one) for one in cases]
    (report,) = report_routes(results).values()
    assert (report.messages, report.out_of_scope, report.accuracy, report.sure) == (2, 1, 0.5, 1.0)
    assert report.wrong == [("Add a task: Buy masks", "safety", "tasks")]
    assert report_json(results, None)["routing"]["offline"]["coverage_95"] is not None


async def test_a_prepared_database_is_copied_until_what_it_was_made_from_changes(
    agent_workspace: Workspace, postgres: str, tmp_path: Path
) -> None:
    content = tmp_path / "content"
    (content / "a").mkdir(parents=True)
    (content / "a" / "one.md").write_text("---\ntitle: One\ndescription: One.\n---\n# One\n\nBread.\n")
    workspace = replace(agent_workspace, root=tmp_path)
    settings, beside = load_settings(workspace=workspace.root, environment="test"), Database(postgres)
    settings = settings.model_copy(update={"database_url": None})

    async def look() -> list[Any]:
        async with scratch_database(settings, workspace, beside) as database:
            return await fetch(database.url, "select id from document order by path")

    first = await look()
    assert (len(first), await look()) == (1, first)
    (content / "a" / "two.md").write_text("---\ntitle: Two\ndescription: Two.\n---\n# Two\n\nFins.\n")
    second = await look()
    assert (len(second), second[0]) == (2, first[0])
    await fetch(postgres, f'drop database "{template_name(workspace)}" with (force)')
    await beside.close()
