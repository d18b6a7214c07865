"""call_tool(): authorise, validate, one transaction, run, record. The only way in, from every surface."""

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.audit import Audit, AuditRepository, Surface
from agent_server.db import Database
from agent_server.errors import AgentServerError, Forbidden, Internal, TimedOut, Unavailable
from agent_server.identity import Caller
from agent_server.settings import Settings
from agent_server.tool import Tool, ToolContext

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What a process calls tools with."""

    settings: Settings
    database: Database
    resources: Mapping[type[Any], Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recorded:
    """The outcome that the ledger has for a call: `error` is None, or `code: message`."""

    output: Any
    error: str | None = None


class Ledger(Protocol):
    """What a turn adds to a call so that its effect happens once. Both run inside the call's transactions."""

    @property
    def conversation_id(self) -> UUID: ...

    @property
    def turn_id(self) -> UUID: ...

    @property
    def idempotency_key(self) -> str: ...

    async def begin(self, session: AsyncSession, *, separate: bool) -> Recorded | None:
        """The recorded outcome, if the call has run before; else note that it starts. `separate`: the effect is
        outside our database, so the note is committed before the tool runs. Raises when the turn is another's."""

    async def finish(self, session: AsyncSession, outcome: Recorded) -> None:
        """Record the outcome."""


class Interrupted(Exception):
    """The turn that a call belongs to is another attempt's by now, or is to stop: nothing of the call may be written."""


class OutcomeUnknown(AgentServerError):
    """A call whose effect is outside our database was cut off: nobody knows whether it took place."""

    code = "outcome_unknown"
    status = 409


class _ToolFailed(Exception):
    """A tool's own trouble with files or the network, which its transaction would take for the database's."""


class ToolRefused(AgentServerError):
    """A failure that an earlier attempt of the same turn recorded; `message` is `code: message` as the model read it."""


async def call_tool(
    runtime: Runtime,
    tool: Tool[..., Any],
    arguments: Mapping[str, Any] | str,
    *,
    caller: Caller,
    surface: Surface,
    conversation_id: UUID | None = None,
    ledger: Ledger | None = None,
) -> Any:
    """Run one call and return its result as JSON-ready data; `arguments` may be the JSON text that a model wrote.

    The tool's writes, the audit row and the ledger's record commit together. A failure rolls the writes back and is
    recorded all the same. Raises AgentServerError; anything else the tool raises becomes Internal.
    """
    call = _Call(runtime, tool, caller, surface, ledger, ledger.conversation_id if ledger else conversation_id)
    try:
        return await call.run(arguments)
    except (ToolRefused, Interrupted, Unavailable):
        raise
    except AgentServerError as error:
        await call.record_failure(error)
        raise
    except Exception as error:  # the one catch-all of a call: a tool's bug must not take the turn or the server down
        bug = Internal(tool.name, secrets.token_hex(6))
        log.exception("tool.failed", tool=tool.name, reference=bug.reference)
        await call.record_failure(bug)
        raise bug from error


@dataclass
class _Call:
    """One call on its way through authorisation, validation, its transaction and its record."""

    runtime: Runtime
    tool: Tool[..., Any]
    caller: Caller
    surface: Surface
    ledger: Ledger | None
    conversation_id: UUID | None
    started: float = field(default_factory=time.perf_counter)

    async def run(self, arguments: Mapping[str, Any] | str) -> Any:
        tool, ledger = self.tool, self.ledger
        if not self.caller.may(tool.scope):
            raise Forbidden(f"{tool.name} needs the scope {tool.scope}, which this caller lacks", tool.scope)
        values = tool.validate(arguments)
        outside = tool.effect in ("keyed", "once")
        if ledger and outside:
            async with self.runtime.database.transaction() as session:
                if recorded := await ledger.begin(session, separate=True):
                    return _replayed(recorded)
        async with self.runtime.database.transaction() as session:
            await session.connection()  # a database that is away must not be taken for a failure of the tool's
            if ledger and not outside and (recorded := await ledger.begin(session, separate=False)):
                return _replayed(recorded)
            output = await self._effect(session, values)
            await AuditRepository(session, self.caller).add(self._audit("ok"))
            if ledger:
                await ledger.finish(session, Recorded(output))
        return output

    async def record_failure(self, error: AgentServerError) -> None:
        """The tool's writes are rolled back by now; that the call was made, and how it ended, is kept."""
        async with self.runtime.database.transaction() as session:
            if self.ledger:
                await self.ledger.finish(session, Recorded(None, f"{error.code}: {error.message}"))
            await AuditRepository(session, self.caller).add(self._audit(error.code))

    async def _effect(self, session: AsyncSession, values: Mapping[str, Any]) -> Any:
        seconds = self.runtime.settings.tool_timeout
        context = ToolContext(
            caller=self.caller,
            session=session,
            surface=self.surface,
            conversation_id=self.conversation_id,
            turn_id=self.ledger.turn_id if self.ledger else None,
            idempotency_key=self.ledger.idempotency_key if self.ledger else None,
            resources=self.runtime.resources,
        )
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                output = self.tool.dump(await self.tool(context, **values))
            json.dumps(
                output, ensure_ascii=False, allow_nan=False
            ).encode()  # what no surface could send is not committed
            return output
        except OSError as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                raise TimedOut(f"{self.tool.name} took longer than {seconds:g} seconds and was stopped") from None
            raise _ToolFailed from error

    def _audit(self, outcome: str) -> Audit:
        latency_ms = round((time.perf_counter() - self.started) * 1000, 2)
        log.info("tool.called", tool=self.tool.name, surface=self.surface, outcome=outcome, latency_ms=latency_ms)
        return Audit(
            caller_kind=self.caller.kind,
            surface=self.surface,
            action=self.tool.name,
            outcome=outcome,
            latency_ms=latency_ms,
            conversation_id=self.conversation_id,
            turn_id=self.ledger.turn_id if self.ledger else None,
            request_id=structlog.contextvars.get_contextvars().get("request_id"),
        )


def _replayed(recorded: Recorded) -> Any:
    if recorded.error is not None:
        raise ToolRefused(recorded.error)
    return recorded.output
