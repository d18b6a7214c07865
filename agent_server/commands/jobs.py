"""agent-server job, and `tool call` of a long tool.

tool call   begins the job and runs it in this process, until it ends or the person leaves
Ctrl-C      lets the job go: another process of the same database goes on with it, from the first line of its tool
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from agent_server.caller import Caller
from agent_server.calls.jobs import JobSummary
from agent_server.calls.ledger import RecordedFailure
from agent_server.commands.context import CommandContext
from agent_server.commands.inquiries import put_inquiry, show_call, word_progress
from agent_server.commands.markdown import show_markdown
from agent_server.commands.terminal import fail, say, show
from agent_server.errors import InvalidInput, quote_value
from agent_server.server import Server
from agent_server.tasks.begin import begin_job
from agent_server.tasks.models import McpTask
from agent_server.tasks.store import find_unanswered
from agent_server.tasks.views import outcome_of, summarise_job, view_job
from agent_server.tool import Tool
from agent_server.tool_context import Listener

_LOOK_SECONDS = 1.0


async def call_long(server: Server, tool: Tool[..., Any], values: Mapping[str, Any] | str, caller: Caller) -> Any:
    """Begin a job and wait for its result. Raises as `begin_job`, and RecordedFailure."""
    can: Any = frozenset({"forms", "urls"} if sys.stdin.isatty() else ())
    id = await begin_job(server.runtime, tool, values, caller=caller, surface="cli", can=can)
    async with _running(server):
        try:
            await server.tasks.runner.take(await server.tasks.get(caller, id))
            row = await _follow(server, caller, id, tool.title)
        except asyncio.CancelledError:
            alone = server.runner.replica.is_alone
            goes = "goes on as soon as a server runs on this database" if alone else "goes on in another process"
            fail(f"The job {goes}. To come back for it: agent-server job show {id}")
            raise
    if (outcome := outcome_of(row)) is None:
        raise RecordedFailure("cancelled: the job was cancelled")
    if outcome.error is not None:
        raise RecordedFailure(outcome.error)
    return outcome.output


@asynccontextmanager
async def _running(server: Server) -> AsyncIterator[None]:
    """Have the other processes know that this one lives, and let go at the end what it has not finished."""
    replica = server.runner.replica
    await replica.start()
    try:
        yield
    finally:
        await server.tasks.runner.close()
        await replica.close()


async def _follow(server: Server, caller: Caller, id: UUID, title: str) -> McpTask:
    """The job at its end. Meanwhile its progress is shown, and what it asks is put to whoever sits at the terminal."""
    while True:
        with show_call(title) as listener:
            row = await _wait(server, caller, id, listener)
        if row.status != "input_required":
            return row
        replies = {n: await asyncio.to_thread(put_inquiry, asked) for n, asked in find_unanswered(row).items()}
        row = await server.tasks.reply(caller, id, replies)
        if row.status == "working" and row.replica is None:
            await server.tasks.runner.take(row)


async def _wait(server: Server, caller: Caller, id: UUID, listener: Listener) -> McpTask:
    """The job once it has ended or asks something. What another process says of it is in its row."""
    told: Any = None
    while (row := await server.tasks.wait(caller, id, _LOOK_SECONDS)).status == "working":
        if (at := (row.done, row.total, row.message)) != told and any(each is not None for each in at):
            told = at
            await listener.report_progress(row.done or 0, row.total, row.message)
    return row


async def list_jobs(context: CommandContext, limit: int, as_json: bool) -> None:
    server, caller = await context.server(), await context.caller()
    page = await server.tasks.page(caller, None, limit=limit)
    jobs = [summarise_job(row, server.workspace.tools.get(row.tool)) for row in page.items]
    if as_json:
        show([job.model_dump(mode="json") for job in jobs])
        return
    for job in jobs:
        say(f"{job.id}  {job.created_at:%Y-%m-%d %H:%M}  {_word(job)}  {job.title}")
    if page.next_cursor is not None:
        fail(f"There are more than these {limit}; name more with --limit")


async def show_job(context: CommandContext, id: str, wait: bool, as_json: bool) -> int:
    server, caller = await context.server(), await context.caller()
    row = await _find(server, caller, id)
    if wait and row.status == "working":
        with show_call(row.tool) as listener:
            row = await _wait(server, caller, row.id, listener)
    job = view_job(row, server.workspace.tools.get(row.tool))
    if as_json:
        show(job.model_dump(mode="json"))
    else:
        say(f"{job.title}: {_word(job)}")
        if job.text:
            show_markdown(job.text)
    return 1 if job.state in ("failed", "cancelled") else 0


async def cancel_job(context: CommandContext, id: str) -> None:
    server, caller = await context.server(), await context.caller()
    row = await server.tasks.cancel(caller, (await _find(server, caller, id)).id)
    say(f"{row.id}  cancelled")


async def _find(server: Server, caller: Caller, id: str) -> McpTask:
    """The caller's job of this id. Raises InvalidInput, and NotFound."""
    try:
        return await server.tasks.get_job(caller, UUID(id))
    except ValueError:
        raise InvalidInput(f"{quote_value(id)} is no id of a job; `agent-server job list` shows them") from None


def _word(job: JobSummary) -> str:
    at = job.progress
    said = "" if at is None else word_progress(at.message, at.done, at.total)
    return f"{job.state}, {said}" if said else job.state
