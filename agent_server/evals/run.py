"""Cases through the real orchestrator and the real tools, on a database that is ready for them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from agent_server.app import create_server
from agent_server.caller import Caller
from agent_server.db import Database, new_id
from agent_server.errors import ModelFailed
from agent_server.evals.ask import Reply, ask
from agent_server.evals.cases import Case
from agent_server.evals.expect import list_differences
from agent_server.evals.judge import evaluate, judge
from agent_server.evals.prepared import adapt_settings
from agent_server.evals.recordings import Mode, RecordedModels, Recordings
from agent_server.evals.stubs import CallerStubs, Stubs
from agent_server.identity.credentials import issue_guest
from agent_server.identity.profiles import update_profile
from agent_server.identity.roles import USER
from agent_server.knowledge.embedders import open_embedder
from agent_server.models.choice import OFFLINE, choose_model, full_name
from agent_server.models.windows import find_price
from agent_server.routing import Decision, Router
from agent_server.routing.workspaces import create_router
from agent_server.server import Server
from agent_server.settings import Settings
from agent_server.workspace import Workspace

Verdict = Literal["passed", "failed", "missing"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What cases are run with: a model, and a workspace, whose prompt `label` tells from others'. `model` is
    `provider/model` or `offline`. With `only` it answers for the agents too that name a model of their own."""

    model: str
    workspace: Workspace
    label: str = ""
    only: bool = False

    @property
    def name(self) -> str:
        return f"{self.label} {self.model}".strip()

    def find_model(self, agent: str | None) -> str:
        """The model that answers for an agent."""
        found = self.workspace.agents.get(agent or "")
        return self.model if self.only or found is None else found.model or self.model


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a case. `reasons` say what failed and why, a line each; `unjudged` are the criteria of judges that
    no model was asked about; `routed` has for each reply whom the router chose, None where it was not asked."""

    case: Case
    variant: str
    verdict: Verdict
    reasons: Sequence[str] = ()
    replies: Sequence[Reply] = ()
    unjudged: Sequence[str] = ()
    routed: Sequence[Decision | None] = ()

    @property
    def passed(self) -> bool:
        return self.verdict == "passed"


@dataclass(kw_only=True)
class CaseRunner:
    """Runs cases with one variant on a database that is ready. It is made by `run_variant`."""

    server: Server
    models: RecordedModels
    recordings: Recordings
    variant: Variant
    stubs: Stubs
    router: "_HeardRouter | None" = None

    async def run(self, case: Case) -> Result:
        """Run one case. Cases are run one after the other: what models answer is recorded by case."""
        self.recordings.begin(case)
        missed = len(self.recordings.missing)
        caller = await self._make_caller(case)
        stubs = self.stubs.of[caller.id] = CallerStubs(case.metadata.stubs)
        replies: list[Reply] = []
        reasons: list[str] = []
        unjudged: list[str] = []
        routed: list[Decision | None] = []
        try:
            for n, (message, expected) in enumerate(zip(case.messages, case.expected, strict=True), 1):
                conversation = replies[-1].answer.conversation if replies else None
                reply = await ask(self.server, caller, message, conversation=conversation, agent=case.metadata.agent)
                replies.append(reply)
                routed.append(self.router.take() if self.router is not None else None)
                found = list(list_differences(expected, reply, self._find_cost))
                if expected.judge is not None and reply.failure is None:
                    if self.variant.model == OFFLINE:
                        unjudged.append(expected.judge)
                    else:
                        found += await self._judge(expected.judge, replies)
                found += [f"stub: {one}" for one in stubs.differences]
                stubs.differences.clear()
                where = f"message {n}: " if len(case.messages) > 1 else ""
                reasons += [where + one for one in found]
                if reply.failure is not None and not found:
                    reasons.append(f"{where}the turn failed: {reply.failure}")
                if reply.failure is not None:
                    break
            if case.evaluators and replies and replies[-1].failure is None:
                reasons += await evaluate(case, replies[-1].answer.text)
        finally:
            self.recordings.begin(None)
            del self.stubs.of[caller.id]
        missing = self.recordings.missing[missed:]
        verdict: Verdict = "missing" if missing else "failed" if reasons else "passed"
        return Result(
            case=case,
            variant=self.variant.name,
            verdict=verdict,
            reasons=missing or reasons,
            replies=replies,
            unjudged=unjudged,
            routed=routed,
        )

    async def _judge(self, criterion: str, replies: Sequence[Reply]) -> Sequence[str]:
        said = [(reply.message, reply.answer.text) for reply in replies]
        try:
            why = await judge(self.models, self.variant.model, criterion, said)
        except ModelFailed as error:
            why = error.message
        return [f"judge: {why}"] if why else []

    async def _make_caller(self, case: Case) -> Caller:
        given = case.metadata.caller
        resolver = self.server.resolver
        default = resolver.guest_scopes if given.kind == "guest" else resolver.roles.scopes[USER]
        scopes = default if given.scopes is None else given.scopes
        caller = Caller(id=new_id(), kind=given.kind, scopes=frozenset(scopes))
        if given.kind == "guest":
            async with self.server.database.quick(caller.id) as session:
                await issue_guest(session, caller.id, hours=1)
        if case.metadata.profile:
            async with self.server.database.transaction(caller.id) as changing:
                await update_profile(changing, caller, case.metadata.profile)
        return caller

    def _find_cost(self, reply: Reply) -> float | None:
        model = str(reply.usage.get("model") or "")
        if model == OFFLINE:
            return 0.0
        # What answered is named without its provider.
        price = find_price(self.variant.find_model(reply.answer.agent)) or find_price(model)
        if price is None:
            return None
        return float(reply.usage.get("input_tokens", 0) * price[0] + reply.usage.get("output_tokens", 0) * price[1])


@asynccontextmanager
async def run_variant(
    settings: Settings,
    variant: Variant,
    database: Database,
    recordings: Recordings,
    *,
    router: Router | None = None,
    transport: Any = None,
) -> AsyncIterator[CaseRunner]:
    """A server for cases with one variant on a database that is ready. `router` is one that was built before for the
    same agents, `transport` as `Models` takes it."""
    stubs, heard = Stubs(), None if router is None else _HeardRouter(router)
    # A candidate takes some conversations and not others: it is run with as a prompt of its own.
    agents = {name: replace(agent, candidates=()) for name, agent in variant.workspace.agents.items()}
    if variant.only:
        agents = {name: replace(agent, model=None) for name, agent in agents.items()}
    workspace = stubs.put_into(replace(variant.workspace, agents=agents))
    adapted = adapt_settings(settings, model=variant.model, model_fallback=None)
    models = RecordedModels(adapted, recordings, transport=transport)
    server = create_server(adapted, workspace, database, router=heard, models=lambda: models)
    await server.runner.start()
    try:
        # The first answer must not wait for what is made once: a case may say how long one takes.
        await server.prepare()
        yield CaseRunner(
            server=server, models=models, recordings=recordings, variant=variant, stubs=stubs, router=heard
        )
    finally:
        await server.runner.close()
        await server.close_models()
        await server.resolver.close()


class _HeardRouter(Router):
    """A router that remembers what it decided."""

    def __init__(self, router: Router) -> None:
        vars(self).update(vars(router))
        self._last: Decision | None = None

    async def decide(self, message: str, last: str | None) -> Decision:
        self._last = await super().decide(message, last)
        return self._last

    def take(self) -> Decision | None:
        """The last decision since this was asked before."""
        last, self._last = self._last, None
        return last


class Routers:
    """The routers of workspaces. To make one takes a second or more; agents that are routed alike share one."""

    def __init__(self, settings: Settings) -> None:
        self._embedder = open_embedder(settings)
        self._made: list[tuple[Any, Router]] = []

    async def get(self, workspace: Workspace) -> Router:
        routed = workspace.routed_by
        for known, router in self._made:
            if known == routed:
                return router
        router = await create_router(workspace, self._embedder)
        self._made.append((routed, router))
        return router

    def forget(self) -> None:
        """Have all be made anew, because the content has changed."""
        self._made.clear()


def choose_mode(given: Mode | None, recorded: Sequence[str]) -> Mode:
    """How recordings are used: they are replayed where there are some, unless another mode is asked for."""
    return given or ("replay" if recorded else "off")


def choose_models(
    settings: Settings, given: Sequence[str], mode: Mode, recorded: Sequence[str], workspace: Workspace
) -> Sequence[str]:
    """The models to run with: those that are asked for; else the one that is configured; else those of the recordings
    that are replayed; else the offline one."""
    if given:
        return given
    configured = choose_model(settings).name
    # Those that agents name are asked for these agents alone.
    own = {full_name(agent.model, settings) for agent in workspace.agents.values() if agent.model}
    others = [name for name in recorded if name not in own]
    return others if mode in ("replay", "auto") and configured not in recorded and others else [configured]


async def run_cases(
    settings: Settings,
    variants: Sequence[Variant],
    cases: Sequence[Case],
    database: Database,
    recordings: Recordings,
    *,
    show: Callable[[Result], None] = lambda _: None,
    transport: Any = None,
) -> Sequence[Result]:
    """Run every case with every variant on a database that is ready. What was recorded is saved at the end."""
    results: list[Result] = []
    routers = Routers(settings)
    try:
        for variant in variants:
            # To make one takes a second, and where each case names its agent nobody asks it.
            routed = any(case.metadata.agent is None for case in cases)
            router = await routers.get(variant.workspace) if routed else None
            opened = run_variant(settings, variant, database, recordings, router=router, transport=transport)
            async with opened as runner:
                for case in cases:
                    result = await runner.run(case)
                    show(result)
                    results.append(result)
    finally:
        recordings.save()
    return results
