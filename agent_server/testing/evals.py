"""Cases in evals/*.yaml as tests of pytest, each by its id: `evals/x.yaml::case name`."""

import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agent_server.db import Database
from agent_server.errors import WorkspaceInvalid
from agent_server.evals.cases import FOLDER, Case, list_files, load_cases
from agent_server.evals.recordings import Recordings
from agent_server.evals.run import CaseRunner, Result, Variant, choose_models, run_variant
from agent_server.models.choice import OFFLINE
from agent_server.settings import load_settings
from agent_server.workspace import Workspace, load_workspace

RunCase = Callable[[Case], Result]


def is_cases(file: Path) -> bool:
    """Whether it is a file of cases of a workspace. Other projects have folders of that name, too."""
    folder = file.parent
    if folder.name != FOLDER or file.suffix not in (".yaml", ".yml"):
        return False
    if not any((folder.parent / name).is_dir() for name in ("prompts", "tools", "content")):
        return False
    return re.search(r"^cases:", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE) is not None


class CaseFile(pytest.Module):
    """A file of cases, which pytest takes for a module of tests: so they are given fixtures as other tests are."""

    def _getobj(self) -> ModuleType:
        return ModuleType(self.path.stem)

    def collect(self) -> Iterable[pytest.Item]:
        try:
            cases = load_cases([self.path], load_workspace(self.path.parent.parent))
        except WorkspaceInvalid as error:
            raise self.CollectError("\n".join(map(str, error.problems))) from None
        for case in cases:
            yield pytest.Function.from_parent(self, name=case.name, callobj=_make_test(case))


def _make_test(case: Case) -> Callable[..., None]:
    def test(agent_case_runner: RunCase) -> None:
        result = agent_case_runner(case)
        if not result.passed:
            place = f"{case.file}:{case.line} "
            pytest.fail("\n".join(place + reason for reason in result.reasons), pytrace=False)

    return test


@asynccontextmanager
async def run_case_server(workspace: Workspace, url: str) -> AsyncIterator[CaseRunner]:
    """What runs cases on the database at `url`, which `stock` has prepared.

    No provider is asked: answers are those of the recordings, which `eval run` makes, and without any those of the
    offline model.
    """
    settings = load_settings(workspace=workspace.root).model_copy(
        update={"model": OFFLINE, "openai_base_url": None, "openai_api_key": None}
    )
    recordings = Recordings(workspace.root, "replay")
    recorded = recordings.list_models(load_cases(list_files(workspace.root, workspace.left_out.evals), workspace))
    model = choose_models(settings, (), recordings.mode, recorded, workspace)[0]
    variant = Variant(model=model, workspace=workspace, only=not recorded)
    database = Database(url)
    try:
        async with run_variant(settings, variant, database, recordings) as runner:
            yield runner
    finally:
        await database.close()


def call(portal: Any, runner: CaseRunner) -> RunCase:
    """Runs a case on the event loop of `portal`, where the server is at work between tests too."""

    def run(case: Case) -> Result:
        result: Result = portal.call(runner.run, case)
        return result

    return run
