"""agent-server eval run --watch: what a saved prompt, page or case concerns is run again at once."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from watchfiles import awatch

from agent_server.commands.terminal import fail
from agent_server.db import Database
from agent_server.errors import AgentServerError, WorkspaceInvalid
from agent_server.evals.cases import FOLDER, Case, list_files
from agent_server.evals.recordings import Recordings
from agent_server.evals.report import print_matrix, print_summary
from agent_server.evals.run import Result, Routers, Variant, run_variant
from agent_server.inspection import open_workspace
from agent_server.knowledge.embedders import open_embedder
from agent_server.knowledge.ingest import ingest
from agent_server.settings import Settings
from agent_server.turns.events import PassagesFound
from agent_server.workspace import Workspace

DEBOUNCE_MS, STEP_MS = 60, 30
"""A save is taken up when nothing more has come for `STEP_MS`, at the latest after `DEBOUNCE_MS`."""
LOOK_MS = 250


async def watch_cases(
    settings: Settings,
    variant: Variant,
    files: Sequence[str],
    cases: Sequence[Case],
    database: Database,
    recordings: Recordings,
) -> int:
    """Run the cases, and then again and again those that a change concerns, until the command is stopped."""
    watch = _Watch(settings, variant, files, database, recordings)
    root = variant.workspace.root
    folders = [folder for folder in (root / "prompts", root / "content", root / FOLDER) if folder.is_dir()]
    seen = awatch(*folders, debounce=DEBOUNCE_MS, step=STEP_MS, rust_timeout=LOOK_MS, yield_on_timeout=True)
    # It watches from here on: what is saved while the cases run is not missed.
    await anext(seen)
    await watch.run(cases)
    async for changes in seen:
        if changes:
            await watch.take_up([Path(file) for _, file in changes])
    return 0


class _Watch:
    def __init__(
        self, settings: Settings, variant: Variant, files: Sequence[str], database: Database, recordings: Recordings
    ) -> None:
        self._settings, self._variant, self._files = settings, variant, files
        self._database, self._recordings = database, recordings
        self._routers = Routers(settings)
        self._results: dict[str, Result] = {}
        self._console = Console()

    async def run(self, cases: Sequence[Case]) -> None:
        """Run these cases and show what became of them."""
        router = await self._routers.get(self._variant.workspace)
        opened = run_variant(self._settings, self._variant, self._database, self._recordings, router=router)
        async with opened as runner:
            results = [await runner.run(case) for case in cases]
        self._recordings.save()
        self._results |= {result.case.id: result for result in results}
        print_matrix(self._console, results)
        print_summary(self._console, results, None)
        self._console.file.flush()
        fail("Waiting for a change.")

    async def take_up(self, files: Collection[Path]) -> None:
        """Read what has changed, and run what it concerns. With a mistake in it nothing is run."""
        from agent_server.commands.evals import choose_cases  # noqa: PLC0415  # it imports this module

        root = self._variant.workspace.root
        try:
            workspace = await asyncio.to_thread(open_workspace, self._settings)
            cases = choose_cases(self._files, workspace)
            if pages := {file for file in files if file.is_relative_to(workspace.content)}:
                without = workspace.left_out.collections
                await ingest(self._database, open_embedder(self._settings), workspace.content, without=without)
                self._routers.forget()
        except AgentServerError as error:
            mistakes = error.problems if isinstance(error, WorkspaceInvalid) else [error.message]
            return fail("\n".join(map(str, mistakes)) + "\nWaiting for a change.")
        before, self._variant = self._variant.workspace, _with_workspace(self._variant, workspace)
        agents = list_changed_agents(before, workspace)
        documents = {page.relative_to(workspace.content).as_posix() for page in pages}
        concerned = [
            case
            for case in cases
            if (before_case := self._results.get(case.id)) is None
            or before_case.case.body != case.body
            or concerns(before_case, agents, documents)
        ]
        if concerned:
            await self.run(concerned)
        elif any(file.is_relative_to(root / FOLDER) for file in files) and not list_files(
            root, workspace.left_out.evals
        ):
            fail("There are no cases any more.")


def list_changed_agents(before: Workspace, after: Workspace) -> Mapping[str, bool]:
    """The agents whose prompt has changed, and whether messages may be routed otherwise by it."""
    return {
        name: was is None or now is None or (was.description, was.examples) != (now.description, now.examples)
        for name in {*before.agents, *after.agents}
        if (was := before.agents.get(name)) != (now := after.agents.get(name))
    }


def concerns(result: Result, agents: Mapping[str, bool], documents: Collection[str]) -> bool:
    """Whether a case may come out otherwise now that these prompts and these documents are others."""
    expected = {one.agent for one in result.case.expected}
    met = expected | {agent for reply in result.replies for agent in reply.agents} | {result.case.metadata.agent}
    # where a description changes, every message that is routed may go elsewhere
    if any(name in met or (routed and result.case.metadata.agent is None) for name, routed in agents.items()):
        return True
    found = {document for one in result.case.expected for document in one.citations or ()}
    for reply in result.replies:
        for event in reply.answer.events:
            if isinstance(event, PassagesFound):
                found |= {passage["document"] for passage in event.passages}
    return not found.isdisjoint(documents)


def _with_workspace(variant: Variant, workspace: Workspace) -> Variant:
    return replace(variant, workspace=workspace)
