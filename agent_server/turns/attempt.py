"""One attempt of a turn. It starts from what earlier ones left, and its end is stored."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog

from agent_server.caller import Caller
from agent_server.conversations.items import assistant_message
from agent_server.db import Database, is_full, keep_promise
from agent_server.errors import AgentServerError, Internal, TimedOut, Unavailable
from agent_server.log import without_secrets
from agent_server.turns.claims import Claims
from agent_server.turns.earlier import NOTHING, Earlier, find_partial_texts, read_earlier, read_events
from agent_server.turns.events import Cancelled, Done, Failed, Reset
from agent_server.turns.hub import Hub
from agent_server.turns.models import Turn
from agent_server.turns.requests import KnownTexts
from agent_server.turns.sender import read_sender
from agent_server.turns.usage import read_usage
from agent_server.turns.writer import Fenced, StopRequested, TurnWriter

log = structlog.get_logger()

# A turn that takes its process down would be taken over for ever.
MAX_ATTEMPTS = 5
PAUSE_SECONDS = 5.0
"""How long a turn is left alone for which the database had no room, or this process no connection."""


@dataclass
class Outcome:
    """How an attempt ended. `agent` is the specialist that answered, `usage` what the models used, `finish` why the answer
    ends (`Done`)."""

    agent: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    finish: str = "stop"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt of one turn as the `run` function is given it.

    `number` counts the attempts that were not let go in good order. `recalled` is what was read as the turn was
    accepted, None of a turn that waited. `inputs` are the values that the request gives to variables of prompts.
    """

    writer: TurnWriter
    caller: Caller
    message: str
    agent: str | None
    number: int
    recalled: Any = None
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def earlier(self) -> Earlier:
        """What earlier attempts have stored of the turn."""
        return self.writer.earlier


Run = Callable[[Attempt], Awaitable[Outcome]]
Renew = Callable[[Caller], Awaitable[Caller]]
"""Finds what a caller may now who had sent a message before. Raises Unauthorized where it may nothing any more."""


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """Makes attempts of turns that are this replica's. `given_up` are the turns whose attempts are cancelled so that
    another replica goes on with them; any other attempt that is cancelled ends its turn. `format` is the newest
    form of rows that all replicas read, and `is_alone` says whether one turn runs here at most, and `known` which texts of
    requests are stored."""

    database: Database
    hub: Hub
    claims: Claims
    run: Run
    renew: Renew | None
    turn_timeout: float
    given_up: Set[UUID]
    format: Callable[[], int]
    is_alone: Callable[[], bool]
    known: KnownTexts = field(default_factory=KnownTexts)

    async def make(self, turn: Turn, recalled: Any = None) -> bool:
        """Make an attempt of a turn, for which `recalled` was read as it was accepted. Returns whether it leaves a turn that waits for a replica."""
        structlog.contextvars.bind_contextvars(
            conversation_id=str(turn.conversation_id), turn_id=str(turn.id), caller=str(turn.owner_id)
        )
        keep_promise()
        began = time.monotonic()
        try:
            return await self._run_to_end(turn, recalled)
        except Fenced:
            # Whoever took the turn over writes its end.
            log.info("turn.fenced", epoch=turn.epoch)
        except Unavailable as error:
            # The turn stays `running` under this epoch: let it go, so that the sweep takes it up again.
            log.warning("turn.interrupted", reason="database unavailable")
            return await self._release(turn, error, seconds=time.monotonic() - began)
        except Exception:  # its end could not be written: `release_lost` finds it, and it is tried up to MAX_ATTEMPTS
            log.exception("turn.unended")
        return False

    async def _release(self, turn: Turn, error: Unavailable, *, seconds: float) -> bool:
        while is_full(error):
            await asyncio.sleep(PAUSE_SECONDS)  # or a model would be asked again and again for what cannot be kept
            try:
                await self.claims.release(turn.owner_id, turn.id, turn.epoch, seconds=seconds, full=True)
                return True
            except Unavailable as again:
                error = again
        with contextlib.suppress(Unavailable):  # then `release_lost` finds it, once the database is back
            await self.claims.release(turn.owner_id, turn.id, turn.epoch, seconds=seconds)
            return True
        return False

    async def _run_to_end(self, turn: Turn, recalled: Any) -> bool:
        writer = self._writer(turn, NOTHING)
        try:
            if turn.attempts > MAX_ATTEMPTS:
                raise Internal(f"This turn was cut off {MAX_ATTEMPTS} times and", secrets.token_hex(6))
            # The attempt that was asked to stop may have died before it noticed.
            if turn.cancel:
                raise StopRequested
            # A first attempt has nothing to read. `attempts` alone does not tell: one that was let go in good order
            # does not count.
            if turn.last_event > 0 or turn.attempts > 1:
                earlier = await read_earlier(self.database, owner_id=turn.owner_id, turn_id=turn.id)
                writer = self._writer(turn, earlier)
                if unfinished := earlier.unfinished_calls:  # these calls are made again
                    await writer.append(*(Reset(call) for call in unfinished))
            outcome = await self._run_in_time(turn, writer, recalled)
            work_waits = await writer.finish(
                "done",
                Done(outcome.agent, outcome.usage, outcome.finish),
                agent=outcome.agent,
                usage=outcome.usage,
            )
            log.info("turn.done", agent=outcome.agent)
            return work_waits
        except StopRequested:
            await _end_cancelled(writer)
        except asyncio.CancelledError:
            # Who cancels a turn to stop it wants its end written; who hands it over does not.
            if turn.id in self.given_up:
                raise
            await _end_cancelled(writer)
        # No end can be written of either. `make` says what becomes of the turn.
        except (Fenced, Unavailable):
            raise
        except AgentServerError as error:
            log.warning("turn.failed", code=error.code, reason=error.message)
            return await _end_failed(writer, error.code, error.message)
        except Exception:  # the one catch-all of a turn: a bug ends it with a reference, not with silence
            bug = Internal("The answer", secrets.token_hex(6))
            log.exception("turn.failed", code=bug.code, reference=bug.reference)
            return await _end_failed(writer, bug.code, bug.message)
        finally:
            writer.close()
        return False

    def _writer(self, turn: Turn, earlier: Earlier) -> TurnWriter:
        return TurnWriter(
            database=self.database,
            hub=self.hub,
            owner_id=turn.owner_id,
            conversation_id=turn.conversation_id,
            turn_id=turn.id,
            turn_no=turn.turn_no,
            epoch=turn.epoch,
            steers=turn.steers,
            earlier=earlier,
            format=self.format(),
            is_alone=self.is_alone,
            known=self.known,
        )

    async def _run_in_time(self, turn: Turn, writer: TurnWriter, recalled: Any) -> Outcome:
        caller = read_sender(turn.owner_id, turn.input["caller"])
        # The first epoch is begun with the message itself. Later, what the sender had may have been taken away.
        if turn.epoch > 1 and self.renew is not None:
            caller = await self.renew(caller)
        attempt = Attempt(
            writer=writer,
            caller=caller,
            message=turn.input["message"],
            agent=turn.input.get("agent"),
            number=turn.attempts,
            recalled=recalled,
            inputs=turn.input.get("inputs") or {},
        )
        deadline = asyncio.timeout(self.turn_timeout)
        try:
            async with deadline:
                return await self.run(attempt)
        except TimeoutError:
            if not deadline.expired():  # a bug of the run's own
                raise
            raise TimedOut(f"The answer took longer than {self.turn_timeout:g} seconds") from None


async def _end_cancelled(writer: TurnWriter) -> None:
    """End a turn that was stopped. What was shown of its answer stays in the conversation."""
    await writer.keep_answer()
    # Read anew: `earlier` lacks what this attempt has shown. Only what is in the log was shown to anybody.
    async with writer.transaction() as session:
        events = await read_events(session, owner_id=writer.owner_id, turn_id=writer.turn_id)
    text = "".join(find_partial_texts(events).values())
    agent, usage = await _read_usage(writer)
    items = [assistant_message(text)] if text else []
    await writer.finish("cancelled", Cancelled(), agent=agent, usage=usage, items=items)
    log.info("turn.cancelled")


async def _end_failed(writer: TurnWriter, code: str, message: str) -> bool:
    # It is stored and shown to clients, and an error of a tool may repeat a key.
    message = without_secrets(message)
    await writer.keep_answer()
    agent, usage = await _read_usage(writer)
    error = {"code": code, "message": message}
    return await writer.finish("failed", Failed(code, message), agent=agent, usage=usage, error=error)


async def _read_usage(writer: TurnWriter) -> tuple[str | None, dict[str, Any] | None]:
    return await read_usage(writer.database, owner_id=writer.owner_id, turn_id=writer.turn_id)
