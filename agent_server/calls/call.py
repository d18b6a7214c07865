"""The only way from a surface to a tool.

    read, stored    [the tool, audit, record: one transaction]
    keyed, once     [the call starts: one transaction]  [the tool, audit, record: one transaction]
    destructive     of an agent, which may have been talked into it: the user is asked, and makes the call with the answer

A transaction takes a connection with its first statement: a tool at work outside our database holds none.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

import agent_server.calls.inquiries  # every command must know its table, also those without MCP
import agent_server.oauth.models  # noqa: F401  # every command must know its tables, also those that serve nothing
from agent_server.audit import AuditRepository, Surface, act_json
from agent_server.caller import Caller
from agent_server.calls.confirmations import (
    LASTS,
    Changed,
    Confirmation,
    ConfirmationLedger,
    ConfirmationRepository,
    Question,
    describe_question,
    find_asker,
    losses_json,
    question_of,
)
from agent_server.calls.grace import run_to_end
from agent_server.calls.ledger import CallOutcome, Interrupted, Ledger, OutcomeUnknown, RecordedFailure, failure_text
from agent_server.calls.runtime import Runtime as Runtime
from agent_server.calls.share import count_call
from agent_server.db import DatabaseAway, new_id, now
from agent_server.errors import (
    AgentServerError,
    Conflict,
    DidNotHappen,
    Internal,
    InvalidInput,
    NotFound,
    ResultTooLarge,
    TimedOut,
    Unavailable,
)
from agent_server.identity.credentials import keep_credential
from agent_server.identity.rights import require
from agent_server.media import leave_out_bytes
from agent_server.questions import Answers, Asked
from agent_server.tool import OUTSIDE, Tool, ToolContext
from agent_server.tool_context import Listener

log = structlog.get_logger()


async def call_tool(
    runtime: Runtime,
    tool: Tool[..., Any],
    arguments: Mapping[str, Any] | str,
    *,
    caller: Caller,
    surface: Surface,
    conversation_id: UUID | None = None,
    idempotency_key: str | None = None,
    ledger: Ledger | None = None,
    collections: tuple[str, ...] | None = None,
    listener: Listener | None = None,
    answers: Answers | None = None,
) -> Any:
    """Run one call and return its result as JSON-ready data.

    It authorises, validates, runs and records. `arguments` may be the JSON text that a model wrote.

    The tool's writes, the audit row and the ledger's record commit together. A failure rolls the writes back and is
    recorded all the same. Raises AgentServerError; anything else the tool raises becomes Internal.

    A model's call of a destructive tool is not made: its user is asked, and the result says so.

    Outside a turn, `idempotency_key` is what the caller sent to have the call made once: the tool is given a key made
    of it, the caller and the tool's name. `collections` bound an agent.

    `listener` hears of a call without a ledger while it runs. With `answers` the tool may ask its user: Asked is raised with nothing of
    the call kept, and it is made anew with the answer.
    """
    # Before anything is checked: what is on record has happened, whatever the caller may do by now.
    if ledger and (outcome := ledger.outcome):
        return _replay(outcome)
    sent = idempotency_key or (answers.key if answers else None)
    key = ledger.idempotency_key if ledger else _make_key(caller, tool, sent)
    in_conversation = ledger.conversation_id if ledger else conversation_id
    heard = ledger.listener if ledger else listener
    call = _Call(runtime, tool, caller, surface, ledger, in_conversation, key, collections, heard, answers)
    async with call.record_failures():
        if ledger and ledger.cut_off and tool.effect == "once" and (found := await call.reconcile(arguments)):
            return found.output
        values = call.admit(arguments)
        is_confirmed = ledger is not None and ledger.is_confirmed
        if not is_confirmed and not (answers and answers.given):  # it was counted when it was asked about
            await call.count()
        if find_asker(tool, surface) == "row" and not is_confirmed:
            return describe_question(await call.ask(values))
        if tool.effect in OUTSIDE:
            # Without a turn there is nothing to note; but a database that is away must not come to light afterwards.
            await (ledger.start() if ledger else runtime.database.check())
    # What is in our database only is rolled back when it is cut off. What happens elsewhere is not.
    return await (run_to_end(call.make(values)) if tool.effect in OUTSIDE else call.make(values))


async def ask_first(
    runtime: Runtime,
    tool: Tool[..., Any],
    arguments: Mapping[str, Any] | str,
    *,
    caller: Caller,
    surface: Surface,
) -> Question:
    """What to ask the caller before this call. `consent.confirm_call` makes it. Raises Forbidden and InvalidInput."""
    call = _Call(runtime, tool, caller, surface, None, None, "")
    async with call.record_failures():
        values = call.admit(arguments)
        await call.count()
        return await call.ask(values)


async def authorise_call(runtime: Runtime, tool: Tool[..., Any], *, caller: Caller, surface: Surface) -> None:
    """Refuse a caller who lacks the tool's scope. The refusal is on record as that of a call. Raises Forbidden."""
    call = _Call(runtime, tool, caller, surface, None, None, "")
    async with call.record_failures():
        call.authorise()


@dataclass
class _Call:
    """One call on its way to its record."""

    runtime: Runtime
    tool: Tool[..., Any]
    caller: Caller
    surface: Surface
    ledger: Ledger | None
    conversation_id: UUID | None
    idempotency_key: str
    collections: tuple[str, ...] | None = None
    listener: Listener | None = None
    answers: Answers | None = None
    started: float = field(default_factory=time.perf_counter)

    def admit(self, arguments: Mapping[str, Any] | str) -> dict[str, Any]:
        """The arguments of a call that this caller may make. Raises Forbidden and InvalidInput."""
        self.authorise()
        return self.tool.validate(arguments)

    def authorise(self) -> None:
        """Raises Forbidden."""
        require(self.caller, self.tool.scope, self.tool.name)

    async def count(self) -> None:
        """Raises TooMany."""
        await count_call(self.runtime.database, self.runtime.secret, self.tool, self.caller)

    async def make(self, values: Mapping[str, Any]) -> Any:
        """Make the call and record how it ended."""
        try:
            async with self.record_failures():
                return await self._run_and_record(self.tool, values)
        except Changed as changed:
            await self._ask_again(changed, values)
            raise
        except Asked:  # what the tool wrote until then is rolled back
            async with self._transaction() as session:
                await AuditRepository(session, self.caller).record(**self._audit("asked"))
            raise

    async def ask(self, values: Mapping[str, Any]) -> Question:
        """Ask for the caller's word instead of making the call. The question is the call's outcome."""
        async with self._transaction() as session:
            with self.runtime.shares.bound(session, self.caller):
                losses = await self._read_losses(session, values)
            question = await self._add_question(session, values, losses)
            await self._record(session, "asked", CallOutcome(describe_question(question)), question)
        return question

    async def _ask_again(self, changed: Changed, values: Mapping[str, Any]) -> None:
        """End the question whose answer does not count, and ask about what the call would lose now."""
        assert isinstance(self.ledger, ConfirmationLedger)
        async with self._transaction() as session:
            await self.ledger.end(session)
            audit = AuditRepository(session, self.caller)
            await audit.record(**self._audit(changed.code))
            if changed.losses is not None:
                changed.ask(await self._add_question(session, values, changed.losses))
                await audit.record(**self._audit("asked"))

    async def _add_question(
        self, session: AsyncSession, values: Mapping[str, Any], losses: list[dict[str, str]] | None
    ) -> Question:
        row = Confirmation(
            tool=self.tool.name,
            arguments=json_arguments(self.tool, values),
            losses=losses,
            conversation_id=self.conversation_id,
            turn_id=self.ledger.turn_id if self.ledger else None,
            expires_at=now() + LASTS,
        )
        await ConfirmationRepository(session, self.caller).add(row)
        return question_of(row, self.tool.title)

    async def _read_losses(self, session: AsyncSession, values: Mapping[str, Any]) -> list[dict[str, str]] | None:
        """What the call would lose, with its rows locked. None of a tool that does not say it."""
        if self.tool.losses is None:
            return None
        return losses_json(await self._run(self.tool.losses, session, values))

    async def _check_losses(self, asked: Confirmation, session: AsyncSession, values: Mapping[str, Any]) -> None:
        """Raises Changed where the call would lose something else than its caller was asked about."""
        try:
            losses = await self._read_losses(session, values)
        except (NotFound, Conflict, InvalidInput) as error:
            raise Changed(error.message, None) from error
        if losses is not None and losses != asked.losses:
            raise Changed("what it would lose has changed since you were asked", losses)

    async def reconcile(self, arguments: Mapping[str, Any] | str) -> CallOutcome | None:
        """What became of the call that was cut off. None if it did not happen. Raises OutcomeUnknown."""
        if (reconcile := self.tool.reconcile) is None:
            raise OutcomeUnknown(self.tool.name)

        async def ask(context: ToolContext, **values: Any) -> Any:
            try:
                found = await reconcile(context, **values)
            except DatabaseAway:  # ours: that ends the attempt, and the next one asks
                raise
            except Unavailable as error:
                raise OutcomeUnknown(self.tool.name) from error
            if found is None:
                raise OutcomeUnknown(self.tool.name)
            return found

        try:
            return CallOutcome(await self._run_and_record(ask, self.admit(arguments)))
        except DidNotHappen:
            return None
        except (Interrupted, Unavailable, OutcomeUnknown):
            raise
        except Exception as error:  # whatever is wrong with the question, the answer to it is unknown
            log.exception("tool.reconcile_failed", tool=self.tool.name)
            raise OutcomeUnknown(self.tool.name) from error

    @asynccontextmanager
    async def record_failures(self) -> AsyncIterator[None]:
        """Record what fails in this block as the call's outcome. Anything but an AgentServerError is a bug."""
        try:
            yield
        # Neither is an outcome. The next attempt makes the call again, or asks what became of it.
        except (Interrupted, Unavailable):
            raise
        # Recorded with the question that takes the place of the one that was answered.
        except Changed:
            raise
        except AgentServerError as error:
            await self._record_failure(error)
            raise
        except Exception as error:  # the one catch-all of a call: a tool's bug takes neither turn nor server down
            bug = Internal(self.tool.name, secrets.token_hex(6))
            log.exception("tool.failed", tool=self.tool.name, reference=bug.reference)
            await self._record_failure(bug)
            raise bug from error

    def _transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        return self.runtime.database.transaction(self.caller.id, scopes=self.caller.scopes)

    async def _run_and_record(self, function: Callable[..., Awaitable[Any]], values: Mapping[str, Any]) -> Any:
        async with self._transaction() as session:
            with self.runtime.shares.bound(session, self.caller):
                if isinstance(self.ledger, ConfirmationLedger):
                    await self._check_losses(self.ledger.confirmation, session, values)
                # not before one that works first: no connection is held meanwhile, and Postgres ends one that is idle
                if self.tool.effect == "stored" and not self.tool.long:
                    await self._keep_caller(session)
                output = self._dump(await self._run(function, session, values))
            if self.tool.effect in OUTSIDE or (self.tool.effect == "stored" and self.tool.long):
                await self._keep_caller(session)
            if not self._holds:
                await self._record(session, self.tool.recorded, CallOutcome(output))
        if self._holds:
            self._hold("ok", CallOutcome(output))
        return output

    @property
    def _holds(self) -> bool:
        """Whether the record may come after the call: it is of a turn, and making it again would change nothing."""
        return self.tool.effect == "read" and self.ledger is not None and self.ledger.turn_id is not None

    def _hold(self, code: str, outcome: CallOutcome) -> None:
        assert self.ledger is not None
        self.ledger.hold(outcome, act_json(self.caller, **self._audit(code)))

    async def _keep_caller(self, session: AsyncSession) -> None:
        if self.ledger is None or self.ledger.turn_id is None:  # whoever erases a caller waits for its turns' writes
            await keep_credential(session, self.caller)

    def _dump(self, value: Any) -> Any:
        output = self.tool.dump(value)
        # What no surface could send is not committed.
        size = len(json.dumps(output, ensure_ascii=False, allow_nan=False).encode())
        if size > self.runtime.settings.tool_result_limit:
            raise ResultTooLarge(self._describe_size(size))
        return leave_out_bytes(output) if self.surface == "agent" and self.tool.has_parts else output

    def _describe_size(self, size: int) -> str:
        most = self.runtime.settings.tool_result_limit
        large = f"The result of {self.tool.name} has {size} bytes, and may have {most}"
        happened = self.tool.effect in OUTSIDE
        return f"{large}; the call has taken effect all the same" if happened else f"{large}; ask for less at once"

    async def _record_failure(self, error: AgentServerError) -> None:
        """Keep how a call failed whose writes are rolled back by now."""
        if self._holds:
            self._hold(error.code, CallOutcome(None, failure_text(error)))
            return
        async with self._transaction() as session:
            await self._record(session, error.code, CallOutcome(None, failure_text(error)))

    async def _record(
        self, session: AsyncSession, code: str, outcome: CallOutcome, question: Question | None = None
    ) -> None:
        if self.ledger:
            await self.ledger.finish(session, outcome, question)
        await AuditRepository(session, self.caller).record_last(**self._audit(code))

    async def _run(
        self, function: Callable[..., Awaitable[Any]], session: AsyncSession, values: Mapping[str, Any]
    ) -> Any:
        settings = self.runtime.settings
        seconds = settings.long_tool_timeout if self.tool.long else settings.tool_timeout
        context = ToolContext(
            caller=self.caller,
            session=session,
            surface=self.surface,
            conversation_id=self.conversation_id,
            turn_id=self.ledger.turn_id if self.ledger else None,
            collections=self.collections,
            idempotency_key=self.idempotency_key,
            resources=self.runtime.resources,
            listener=self.listener,
            # What the tool declares beside itself reads and asks nothing.
            answers=self.answers if function is self.tool else None,
        )
        try:
            async with asyncio.timeout(seconds) as deadline:
                return await function(context, **values)
        except TimeoutError:
            # Else it is a TimeoutError of the tool's own, which is a bug of the tool.
            if deadline.expired():
                raise TimedOut(self._describe_timeout(seconds)) from None
            raise

    def _describe_timeout(self, seconds: float) -> str:
        late = f"{self.tool.name} took longer than {seconds:g} seconds and was stopped"
        return f"{late}; it may have taken effect all the same" if self.tool.effect in OUTSIDE else late

    def _audit(self, outcome: str) -> dict[str, Any]:
        latency_ms = round((time.perf_counter() - self.started) * 1000, 2)
        log.info("tool.called", tool=self.tool.name, surface=self.surface, outcome=outcome, latency_ms=latency_ms)
        return {
            "surface": self.surface,
            "action": self.tool.name,
            "outcome": outcome,
            "latency_ms": latency_ms,
            "conversation_id": self.conversation_id,
            "turn_id": self.ledger.turn_id if self.ledger else None,
            "request_id": structlog.contextvars.get_contextvars().get("request_id"),
        }


def json_arguments(tool: Tool[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Validated arguments as JSON-ready data. It validates to the same."""
    return tool.arguments.model_construct(**values).model_dump(mode="json")


def _replay(recorded: CallOutcome) -> Any:
    if recorded.error is not None:
        raise RecordedFailure(recorded.error)
    return recorded.output


def _make_key(caller: Caller, tool: Tool[..., Any], sent: str | None) -> str:
    # All callers may share one account with the service that keeps the key, so the caller is part of it.
    return str(new_id() if sent is None else uuid5(caller.id, f"{tool.name}:{sent}"))
