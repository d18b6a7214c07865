"""How a call of a long tool becomes a job: a task that is the answer to its call.

Its row is written by `call_tool`, in the place of the tool: the same caller may begin it, with the same arguments, it is
counted and on record. In a turn it commits with the ledger's record of the call, so that a turn that is taken over has
begun it once.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from agent_server.audit import Surface
from agent_server.caller import Caller
from agent_server.calls.call import Runtime, call_tool, json_arguments
from agent_server.calls.jobs import JobBegun
from agent_server.questions import Need
from agent_server.tasks.store import TaskRepository
from agent_server.tasks.tasks import Call, Tasks, create_task
from agent_server.tool import Declared, Tool, ToolContext

BEGUN = "begun"
"""What the audit says of a call that is a job from then on."""


def begin_tool(
    tool: Tool[..., Any], *, client_key: str | None = None, can: frozenset[Need] = frozenset()
) -> Tool[..., Any]:
    """The tool that begins a job of `tool`. It takes what that takes. `client_key` and `can` are as `Call` has them."""

    async def begin(context: ToolContext, **values: Any) -> JobBegun:
        tasks = context.resource(Tasks)
        call = Call(
            tool.name,
            tool.scope,
            json_arguments(tool, values),
            can=can,
            client_key=client_key,
            surface=context.surface,
            conversation_id=context.conversation_id,
            collections=context.collections,
        )
        row = create_task(tasks.settings, context.caller, call)
        kept, _ = await context.repository(TaskRepository).begin(row, most_open=tasks.settings.tasks_per_user)
        return JobBegun(job=kept.id, tool=tool.name, title=tool.title)

    return replace(
        tool,
        function=begin,
        effect="stored",
        result="",
        reconcile=None,
        recorded=BEGUN,
        declared=Declared(tool.input_schema, tool.validate),
    )


async def begin_job(
    runtime: Runtime,
    tool: Tool[..., Any],
    arguments: Mapping[str, Any] | str,
    *,
    caller: Caller,
    surface: Surface,
    conversation_id: UUID | None = None,
    client_key: str | None = None,
    can: frozenset[Need] = frozenset(),
) -> UUID:
    """Begin a job, or find the one that was begun with the same key. Returns its id, which nobody runs yet. Raises as
    `call_tool`, and TooMany."""
    begun = await call_tool(
        runtime,
        begin_tool(tool, client_key=client_key, can=can),
        arguments,
        caller=caller,
        surface=surface,
        conversation_id=conversation_id,
    )
    return UUID(begun["job"])
