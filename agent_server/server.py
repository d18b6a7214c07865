"""The parts of one process that every surface is given."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent_server.bodies import refuse_unstorable
from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.db import Database
from agent_server.errors import InvalidInput, quote_value
from agent_server.identity.resolver import Resolver
from agent_server.jobs import Jobs
from agent_server.models.choice import ModelChoice
from agent_server.settings import Settings
from agent_server.turns.accept import Accepted, Message, accept
from agent_server.turns.hub import Hub
from agent_server.turns.runner import Runner
from agent_server.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Server:
    """One process's parts. `prepare` makes what the first turn would have to wait for."""

    runtime: Runtime
    workspace: Workspace
    resolver: Resolver
    hub: Hub
    runner: Runner
    jobs: Jobs
    model: ModelChoice
    prepare: Callable[[], Awaitable[object]]

    @property
    def settings(self) -> Settings:
        return self.runtime.settings

    @property
    def database(self) -> Database:
        return self.runtime.database

    async def accept(self, caller: Caller, message: Message) -> Accepted:
        """Store a message and begin or queue its turn. Raises as `turns.accept`, and InvalidInput for a text that
        is empty, too long or cannot be stored, and for an agent that is not there."""
        # Before the row: a message that is stored has been promised an answer.
        check_text(message.text, self.settings.message_limit)
        if message.agent is not None and message.agent not in self.workspace.agents:
            raise InvalidInput(
                f"agent: there is no {quote_value(message.agent)}; there are {', '.join(self.workspace.agents)}"
            )
        accepted = await accept(
            self.database,
            caller,
            message,
            replica=self.runner.replica.id,
            queue_limit=self.settings.queue_limit,
            can_run=self.runner.has_slot,
            at_once=self.settings.turns_per_guest if caller.kind == "guest" else self.settings.turns_per_user,
        )
        if accepted.interrupted is not None:
            self.runner.announce_stop(accepted.interrupted)
        # A request that was sent again is not fresh: its turn runs already, here or on another replica.
        if accepted.fresh and accepted.turn.owner == self.runner.replica.id:
            self.runner.begin(accepted.turn)
        elif accepted.fresh:
            self.runner.announce_work()
        return accepted


def check_text(text: str, limit: int) -> None:
    """Raises InvalidInput unless a message of this text can be stored and answered."""
    refuse_unstorable(text, ("message",))
    if not text.strip():
        raise InvalidInput("message: is empty; say something")
    if len(text) > limit:
        raise InvalidInput(f"message: has {len(text)} characters, at most {limit} are taken; shorten or split it")
