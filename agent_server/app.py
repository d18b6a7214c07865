"""Composition of a process's parts."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.calls.forms import FormTools
from agent_server.changes import Changes
from agent_server.db import Database, Executor
from agent_server.db.sleep import Sleep
from agent_server.documents.shelf import Shelf
from agent_server.housekeeping import expire_confirmations, expire_guests, expire_logins, purge_deleted
from agent_server.identity.limits import expire_rates
from agent_server.identity.resolver import create_resolver
from agent_server.jobs import Job, Jobs
from agent_server.knowledge.embedders import open_embedder
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.ingest import PIVOT, ingest
from agent_server.knowledge.passages import OwnPassages
from agent_server.knowledge.resources import announce_pages
from agent_server.knowledge.vectors.renew import renew
from agent_server.late import Late
from agent_server.models.choice import choose_model
from agent_server.models.served import ServedModel
from agent_server.oauth.clients import expire_clients
from agent_server.oauth.grants import find_grants
from agent_server.recall import Recalled, recall
from agent_server.server import Server
from agent_server.settings import Settings
from agent_server.signals import Changed
from agent_server.tasks.store import prune_tasks
from agent_server.turns.accept import Recall
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.hub import Hub
from agent_server.turns.prune import prune_turns
from agent_server.turns.replica import Replica
from agent_server.turns.runner import Runner
from agent_server.workspace import Workspace

if TYPE_CHECKING:
    from agent_server.models.providers import Models
    from agent_server.orchestrator.run import Orchestrator
    from agent_server.outside import connections as outside
    from agent_server.routing import Router
else:
    outside = Late("agent_server.outside.connections")  # few workspaces have such servers

INGEST, EMBED = "ingest", "embed"


def create_server(
    settings: Settings,
    workspace: Workspace,
    database: Database,
    *,
    transport: Any = None,
    router: "Router | None" = None,
    models: "Callable[[], Models] | None" = None,
) -> Server:
    """The parts of a process that does not run yet.

    `transport` is the way to an OpenAI-compatible model (`Models`), `models` makes the clients of models in place of those
    of the settings. `router` is one that was built before for the same workspace; whoever makes many servers of one
    workspace saves a second on each.
    """
    embedder = open_embedder(settings)
    model, replica, sleep = choose_model(settings), Replica(database), Sleep(settings.database_sleep)
    runtime = _create_runtime(settings, workspace, database, embedder, replica)
    hub = Hub(database, send=replica.send)

    def make(models: "Models", changed: Workspace | None) -> "Orchestrator":
        if changed is None:
            return _create_orchestrator(runtime, workspace, models, embedder, router)
        return _create_orchestrator(runtime, changed, models, embedder, None)

    async def read(session: Executor, caller: Caller, conversation_id: UUID, turn_no: int) -> Recalled:
        most = settings.history_limit
        return await recall(session, caller, conversation_id=conversation_id, turn_no=turn_no, most=most)

    agents = Agents(models or (lambda: _create_models(settings, transport)), make, read)
    agents_need, staff, grants = workspace.agent_scopes, workspace.staff_scopes, find_grants(settings, database)
    resolver = create_resolver(settings, database, agents=agents_need, staff=staff, grants=grants)
    runner = Runner(
        database,
        replica,
        hub,
        agents.run,
        renew=resolver.renew,
        slots=settings.turns_per_process,
        waiting=settings.waiting_per_process,
        turn_timeout=settings.turn_timeout,
        sleep=sleep,
        changes=runtime.resources[Changes],
    )
    return Server(
        runtime=runtime,
        workspace=workspace,
        resolver=resolver,
        hub=hub,
        runner=runner,
        jobs=_create_jobs(runtime, workspace, embedder, sleep),
        sleep=sleep,
        model=model,
        recall=read,
        prepare=agents.prepare,
        change=agents.change,
        try_out=agents.try_out,
        served=ServedModel(model, agents.find_served),
        close_models=lambda: _close(agents, runtime, workspace),
    )


def _create_runtime(
    settings: Settings, workspace: Workspace, database: Database, embedder: Embedder, replica: Replica
) -> Runtime:
    forms = FormTools({tool.name: tool for tool in workspace.tools.values() if tool.form})
    changes = Changes(lambda id: replica.send(Changed(id)))
    replica.signals.changed = changes.hear
    shelf = Shelf(embedder, settings)
    shared = {Embedder: embedder, FormTools: forms, Changes: changes, Shelf: shelf, OwnPassages: shelf}
    if workspace.outside:
        shared[outside.Outside] = outside.Outside(workspace.root, workspace.outside)
    return Runtime(settings=settings, database=database, resources=shared)


async def _close(agents: "Agents", runtime: Runtime, workspace: Workspace) -> None:
    """Close the connections to models and to outside servers."""
    await agents.close()
    if workspace.outside:
        await runtime.resources[outside.Outside].close()


def _create_jobs(runtime: Runtime, workspace: Workspace, embedder: Embedder, sleep: Sleep) -> Jobs:
    settings, database = runtime.settings, runtime.database

    async def read_pages() -> None:
        without = workspace.left_out.collections
        report = await ingest(database, embedder, workspace.content, without=without, later=lambda: jobs.ask(EMBED))
        announce_pages(runtime.resources[Changes], report)

    days = settings.deleted_days
    jobs = Jobs(
        database,
        [
            Job(INGEST, read_pages),
            # A change of embedder takes as long as its server needs; the old vectors serve meanwhile.
            Job(EMBED, lambda: renew(database, embedder, pivot=PIVOT), beside=True),
            Job(
                "prune_events",
                lambda: prune_turns(database, event_hours=settings.event_hours, call_hours=settings.call_hours),
                every=600,
            ),
            Job("expire_guests", lambda: expire_guests(database), every=3600),
            Job("expire_logins", lambda: expire_logins(database), every=3600),
            Job("expire_confirmations", lambda: expire_confirmations(database), every=3600),
            Job("expire_clients", lambda: expire_clients(database, settings.oauth_days), every=3600),
            Job("expire_rates", lambda: expire_rates(database), every=3600),
            Job("prune_tasks", lambda: prune_tasks(database), every=3600),
            *([Job("purge_deleted", lambda: purge_deleted(database, days), every=86_400)] if days else []),
        ],
        sleep,
    )
    return jobs


@dataclass(frozen=True)
class _Trial:
    """What answers the turns of one conversation, and what it is told of the caller; None for as it is elsewhere."""

    orchestrator: "Orchestrator | None"
    profile: Mapping[str, Any] | None


_MOST_TRIALS = 20
"""Those before are forgotten: their turns have ended long since."""


class Agents:
    """What answers the turns of a process. It is made when first needed, outside the event loop: that takes seconds."""

    def __init__(
        self,
        make_models: "Callable[[], Models]",
        make: "Callable[[Models, Workspace | None], Orchestrator]",
        recall: Recall,
    ) -> None:
        self._make_models, self._make, self._recall = make_models, make, recall
        self._trials: OrderedDict[UUID, _Trial] = OrderedDict()
        self._made, self._of_models = asyncio.Lock(), asyncio.Lock()
        self._models: Models | None = None
        self._orchestrator: Orchestrator | None = None
        self._asked, self._answered = False, asyncio.Event()

    async def get_models(self) -> "Models":
        """The clients of models. They stay when the agents change."""
        async with self._of_models:
            if self._models is None:
                self._models = await asyncio.to_thread(self._make_models)
        return self._models

    async def find_served(self) -> str:
        """The name of the first model of OPENAI_BASE_URL. Raises ModelFailed."""
        return await (await self.get_models()).find_served()

    async def close(self) -> None:
        """Close the connections to models."""
        if self._models is not None:
            await self._models.close()

    async def get(self) -> "Orchestrator":
        # Turns that start together wait for the same one.
        async with self._made:
            if self._orchestrator is None:
                self._orchestrator = await asyncio.to_thread(self._make, await self.get_models(), None)
        return self._orchestrator

    async def run(self, attempt: Attempt) -> Outcome:
        """Run an attempt to its end."""
        self._asked = True
        try:
            return await self._run(attempt)
        finally:
            self._answered.set()

    async def _run(self, attempt: Attempt) -> Outcome:
        trial = self._trials.get(attempt.writer.conversation_id) if self._trials else None
        if trial is None:
            return await (await self.get()).run(attempt)
        orchestrator = trial.orchestrator or await self.get()
        if trial.profile is not None:
            attempt = replace(attempt, recalled=await self._recall_with(orchestrator, attempt, trial.profile))
        return await orchestrator.run(attempt)

    async def _recall_with(self, orchestrator: "Orchestrator", attempt: Attempt, profile: Mapping[str, Any]) -> Any:
        recalled = attempt.recalled
        if not isinstance(recalled, Recalled):
            writer, caller = attempt.writer, attempt.caller
            async with orchestrator.runtime.database.transaction(caller.id) as session:
                recalled = await self._recall(session, caller, writer.conversation_id, writer.turn_no)
        return replace(recalled, profile=profile)

    async def prepare(self) -> None:
        """Make what the first turn would have to wait for.

        A turn that comes meanwhile makes the rest itself, and this returns when it has ended.
        """
        await (await self.get()).get_router()
        await (await self.get_models()).prepare(lambda: self._asked)
        # What comes next holds the process up, too.
        if self._asked:
            await self._answered.wait()

    async def change(self, workspace: Workspace) -> None:
        """Have turns that begin from now on answered by the agents of `workspace`. Those that run keep theirs."""
        new = await asyncio.to_thread(self._make, await self.get_models(), workspace)
        await new.get_router()
        async with self._made:
            self._orchestrator = new

    async def try_out(
        self, conversation_id: UUID, workspace: Workspace | None, profile: Mapping[str, Any] | None
    ) -> None:
        """Have the turns of one conversation answered by the agents of `workspace`, which are told of `profile`."""
        orchestrator = None
        if workspace is not None:
            orchestrator = await asyncio.to_thread(self._make, await self.get_models(), workspace)
            known = await self.get()
            # To make a router takes a second, and most edits leave alone what messages are routed by.
            if known.workspace.routed_by == workspace.routed_by:
                orchestrator.router = await known.get_router()
        self._trials[conversation_id] = _Trial(orchestrator, profile)
        while len(self._trials) > _MOST_TRIALS:
            self._trials.popitem(last=False)


def create_orchestrator(runtime: Runtime, workspace: Workspace, models: "Models") -> "Orchestrator":
    """The agents of a workspace with these models."""
    return _create_orchestrator(runtime, workspace, models, runtime.resources[Embedder], None)


def _create_models(settings: Settings, transport: Any) -> "Models":
    from agent_server.models.providers import Models  # noqa: PLC0415  # heavy

    return Models(settings, transport=transport)


def _create_orchestrator(
    runtime: Runtime, workspace: Workspace, models: "Models", embedder: Embedder, router: "Router | None"
) -> "Orchestrator":
    from agent_server.orchestrator.run import Orchestrator  # noqa: PLC0415  # heavy

    return Orchestrator(runtime, workspace, models, choose_model(runtime.settings), embedder, router)
