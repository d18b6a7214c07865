"""The caller's word about a call that waits for it. The call is made once, as the caller, or not at all."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import structlog

from agent_server.audit import AuditRepository, Surface
from agent_server.caller import Caller
from agent_server.calls.call import Runtime, authorise_call, call_tool
from agent_server.calls.confirmations import Confirmation, ConfirmationLedger, ConfirmationRepository
from agent_server.errors import Conflict
from agent_server.tool import Tool
from agent_server.tool_context import Listener


async def get_open_confirmation(runtime: Runtime, id: UUID, caller: Caller) -> Confirmation:
    """The question that waits for its answer.

    Raises NotFound, and Conflict for one that was answered or has expired.
    """
    async with runtime.database.transaction(caller.id) as session:
        return await ConfirmationRepository(session, caller).get_open(id)


async def confirm_call(
    runtime: Runtime,
    tools: Mapping[str, Tool[..., Any]],
    id: UUID,
    *,
    caller: Caller,
    surface: Surface,
    listener: Listener | None = None,
) -> Any:
    """Make the call that the caller was asked about and return its result. Raises as `get_open_confirmation` and
    `call_tool`; of two answers at once, one has an effect and the other raises Conflict. Raises Changed, with a new
    question, where the call would lose something else by now."""
    row = await get_open_confirmation(runtime, id, caller)
    tool = tools.get(row.tool)
    if tool is None:
        raise Conflict(f"There is no tool {row.tool} any more, so this cannot be done")
    # Before the ledger is there, which a refusal would use up: another key of the caller's may still confirm.
    await authorise_call(runtime, tool, caller=caller, surface=surface)
    ledger = ConfirmationLedger(runtime.database, caller, row, listener)
    return await call_tool(runtime, tool, row.arguments, caller=caller, surface=surface, ledger=ledger)


async def decline_call(runtime: Runtime, id: UUID, *, caller: Caller, surface: Surface) -> None:
    """Use the confirmation up without making its call. Raises as `get_open_confirmation`."""
    row = await get_open_confirmation(runtime, id, caller)
    async with runtime.database.transaction(caller.id) as session:
        await ConfirmationRepository(session, caller).mark(id, confirmed=False)
        await AuditRepository(session, caller).record(
            surface=surface,
            action=row.tool,
            outcome="declined",
            latency_ms=0,
            conversation_id=row.conversation_id,
            turn_id=row.turn_id,
            request_id=structlog.contextvars.get_contextvars().get("request_id"),
        )
