"""The cases of the reference agents in evals/: they pass, and an edited prompt fails those that it breaks and no other."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from agent_server.db import Database
from agent_server.evals.cases import Case, list_files, load_cases
from agent_server.evals.edited import read_edited
from agent_server.evals.recordings import Mode, Recordings
from agent_server.evals.run import Result, Variant, run_variant
from agent_server.models.choice import OFFLINE
from agent_server.settings import load_settings
from agent_server.testing import Say, ScriptedOpenAI, copy_database
from agent_server.testing.wire import InProcess
from agent_server.workspace import Workspace
from tests.server import _reference_router

MODEL = "openai/scripted"
Run = Callable[..., Sequence[Result]]


@pytest.fixture(scope="module")
def cases(agent_workspace: Workspace) -> Sequence[Case]:
    return load_cases(list_files(agent_workspace.root), agent_workspace)


@pytest.fixture(scope="module")
def run(
    postgres: str, agent_template: str, agent_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """Runs cases with a workspace, on a database of their own. With `mode` a scripted model is recorded
    or replayed, else the offline one answers."""
    folder = tmp_path_factory.mktemp("recordings")

    async def start(url: str, workspace: Workspace, cases: Sequence[Case], mode: Mode) -> Sequence[Result]:
        settings = load_settings(
            workspace=workspace.root, openai_base_url="http://model.invalid/v1", model_retries=0, environment="test"
        )
        database, recordings = Database(url), Recordings(folder, mode)
        variant = Variant(model=OFFLINE if mode == "off" else MODEL, workspace=workspace)
        model = InProcess(ScriptedOpenAI(lambda request: Say("Good.")))
        router = await _reference_router()
        async with run_variant(settings, variant, database, recordings, router=router, transport=model) as runner:
            results = [await runner.run(case) for case in cases]
        recordings.save()
        await database.close()
        return results

    portal: BlockingPortal
    with start_blocking_portal() as portal:

        def run(cases: Sequence[Case], workspace: Workspace = agent_workspace, mode: Mode = "off") -> Sequence[Result]:
            with copy_database(postgres, agent_template) as url:
                return portal.call(start, url, workspace, cases, mode)

        yield run


def edit(workspace: Workspace, agent: str, pattern: str, replacement: str, folder: Path) -> Workspace:
    """The workspace with a copy of a prompt of its own, in which one thing is another."""
    text, found = re.subn(pattern, replacement, (workspace.root / "prompts" / f"{agent}.md").read_text(), count=1)
    assert found == 1
    file = folder / f"{agent}.md"
    file.write_text(text)
    return workspace.with_prompt(read_edited(file, workspace))


def test_the_agents_do_what_their_cases_say(run: Run, cases: Sequence[Case]) -> None:
    assert len(cases) >= 60
    results = run(cases)
    assert [f"{result.case.id}: {reason}" for result in results for reason in result.reasons] == []
    assert all(result.passed for result in results)


def test_an_edited_prompt_fails_the_cases_that_it_breaks_and_no_other(
    run: Run, cases: Sequence[Case], agent_workspace: Workspace, tmp_path: Path
) -> None:
    edited = edit(agent_workspace, "tasks", "complete_task, ", "", tmp_path)
    edited = edit(edited, "knowledge", "knowledge: .equipment, ", "knowledge: [", tmp_path)
    broken = {
        case.id
        for case in cases
        for expected in case.expected
        if any(call.tool == "complete_task" for call in expected.calls or ())
        or (expected.agent == "knowledge" and any(page.startswith("equipment/") for page in expected.citations or ()))
    }
    assert broken
    assert {result.case.id for result in run(cases, edited) if not result.passed} == broken


def test_an_edited_sentence_misses_the_recordings_of_its_agent_and_no_other(
    run: Run, cases: Sequence[Case], agent_workspace: Workspace, tmp_path: Path
) -> None:
    some = [case for case in cases if case.file in ("evals/trip.yaml", "evals/knowledge.yaml")]
    recorded = run(some, mode="record")
    asked = {result.case.id for result in recorded if any("trip" in reply.agents for reply in result.replies)}
    assert 0 < len(asked) < len(some)
    assert [result.verdict for result in run(some, mode="replay")] == [result.verdict for result in recorded]
    edited = edit(agent_workspace, "trip", "Offer two or three choices", "Offer one choice", tmp_path)
    missing = [result for result in run(some, edited, "replay") if result.verdict == "missing"]
    assert {result.case.id for result in missing} == asked
