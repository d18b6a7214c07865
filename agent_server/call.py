"""call_tool(): authorise, validate, one transaction, run, record. The only way in, from every surface."""

import asyncio
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
    started = time.perf_counter()
    context_id = ledger.conversation_id if ledger else conversation_id

    def audit(outcome: str) -> Audit:
        latency_ms = round((time.perf_counter() - started) * 1000, 2)
        log.info("tool.called", tool=tool.name, surface=surface, outcome=outcome, latency_ms=latency_ms)
        return Audit(
            caller_kind=caller.kind,
            surface=surface,
            action=tool.name,
            outcome=outcome,
            latency_ms=latency_ms,
            conversation_id=context_id,
            turn_id=ledger.turn_id if ledger else None,
            request_id=structlog.contextvars.get_contextvars().get("request_id"),
        )

    try:
        if not caller.may(tool.scope):
            raise Forbidden(f"{tool.name} needs the scope {tool.scope}, which this caller lacks", tool.scope)
        values = tool.validate(arguments)
        outside = tool.effect in ("keyed", "once")
        if outside and ledger:
            async with runtime.database.transaction() as session:
                if recorded := await ledger.begin(session, separate=True):
                    return _replayed(recorded)
        async with runtime.database.transaction() as session:
            if ledger and not outside and (recorded := await ledger.begin(session, separate=False)):
                return _replayed(recorded)
            context = ToolContext(
                caller=caller,
                session=session,
                surface=surface,
                conversation_id=context_id,
                turn_id=ledger.turn_id if ledger else None,
                idempotency_key=ledger.idempotency_key if ledger else None,
                resources=runtime.resources,
            )
            output = await _run(tool, context, values, runtime.settings.tool_timeout)
            await AuditRepository(session, caller).add(audit("ok"))
            if ledger:
                await ledger.finish(session, Recorded(output))
        return output
    except (ToolRefused, Unavailable):
        raise
    except AgentServerError as error:
        async with runtime.database.transaction() as session:
            if ledger:
                await ledger.finish(session, Recorded(None, f"{error.code}: {error.message}"))
            await AuditRepository(session, caller).add(audit(error.code))
        raise


def _replayed(recorded: Recorded) -> Any:
    if recorded.error is not None:
        raise ToolRefused(recorded.error)
    return recorded.output


async def _run(tool: Tool[..., Any], context: ToolContext, values: Mapping[str, Any], seconds: float) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return tool.dump(await tool(context, **values))
    except AgentServerError:
        raise
    except TimeoutError:
        raise TimedOut(f"{tool.name} took longer than {seconds:g} seconds and was stopped") from None
    except Exception as error:  # the one catch-all of a call: a tool's bug must not take the turn or the server down
        reference = secrets.token_hex(6)
        log.exception("tool.failed", tool=tool.name, reference=reference)
        raise Internal(tool.name, reference) from error
