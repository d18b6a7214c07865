"""The parts of one process that every surface is given."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agent_server.bodies import refuse_unstorable
from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.db import Database
from agent_server.db.sleep import Sleep
from agent_server.errors import InvalidInput, TooMany, Unavailable, quote_value
from agent_server.identity.resolver import Resolver
from agent_server.jobs import Jobs
from agent_server.models.choice import ModelChoice
from agent_server.models.served import ServedModel
from agent_server.prompts.inputs import check_inputs
from agent_server.settings import Settings
from agent_server.tasks.tasks import Tasks
from agent_server.turns.accept import Accepted, Message, Recall, accept, find_accepted
from agent_server.turns.hub import Hub
from agent_server.turns.runner import Runner
from agent_server.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Server:
    """One process's parts.

    `prepare` makes what the first turn would have to wait for. `change` has the turns that begin from now on answered
    by the agents of another workspace with the same tools, `recall` reads what a turn starts from. `try_out` has the
    turns of one conversation answered by the agents of another workspace, or told of another profile.
    """

    runtime: Runtime
    workspace: Workspace
    resolver: Resolver
    hub: Hub
    runner: Runner
    jobs: Jobs
    tasks: Tasks
    sleep: Sleep
    model: ModelChoice
    recall: Recall
    prepare: Callable[[], Awaitable[object]]
    change: Callable[[Workspace], Awaitable[None]]
    try_out: Callable[[UUID, Workspace | None, Mapping[str, Any] | None], Awaitable[None]]
    served: ServedModel
    close_models: Callable[[], Awaitable[None]]

    @property
    def settings(self) -> Settings:
        return self.runtime.settings

    @property
    def database(self) -> Database:
        return self.runtime.database

    async def accept(self, caller: Caller, message: Message) -> Accepted:
        """Store a message and begin or queue its turn. Raises as `turns.accept`, InvalidInput for a text that is empty,
        too long or cannot be stored, for an agent that is not there and for inputs that no agent takes, and as `Runner.arriving`, with nothing
        stored."""
        # Before the row: a message that is stored has been promised an answer.
        check_text(message.text, self.settings.message_limit)
        if message.agent is not None and message.agent not in self.workspace.agents:
            raise InvalidInput(
                f"agent: there is no agent {quote_value(message.agent)}; there are {', '.join(self.workspace.agents)}"
            )
        check_inputs(message.inputs, self.workspace.inputs)
        at_once, waiting = self._bounds_of(caller)
        with ExitStack() as held:
            held.enter_context(self.sleep.work())
            # The others would take a turn away from a replica that has not said yet that it lives again.
            await self.sleep.wake()
            try:
                place = held.enter_context(self.runner.arriving(caller.id, at_once + waiting, at_once))
            except (TooMany, Unavailable):
                # Who sends a message again has been promised its answer, and asks for no place.
                if before := await find_accepted(self.database, caller, message):
                    return before
                raise
            accepted = await accept(
                self.database,
                caller,
                message,
                replica=self.runner.replica.id,
                queue_limit=self.settings.queue_limit,
                can_run=place.has_slot,
                at_once=at_once,
                turn_id=place.turn_id,
                recall=self.recall,
                format=self.runner.replica.format,
            )
            self.runner.take_up(place, accepted)
            return accepted

    def _bounds_of(self, caller: Caller) -> tuple[int, int]:
        """How many turns of a caller's run at once and how many more wait."""
        if caller.kind == "guest":
            return self.settings.turns_per_guest, self.settings.waiting_per_guest
        return self.settings.turns_per_user, self.settings.waiting_per_user


def check_text(text: str, limit: int) -> None:
    """Raises InvalidInput unless a message of this text can be stored and answered."""
    refuse_unstorable(text, ("message",))
    if not text.strip():
        raise InvalidInput("message: is empty; say something")
    if len(text) > limit:
        raise InvalidInput(f"message: has {len(text)} characters, at most {limit} are taken; shorten or split it")
