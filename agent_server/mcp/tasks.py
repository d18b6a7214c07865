"""Tasks, as each generation of the protocol has them.

    2025-11-25   the client asks for one with `task` in its call; tasks/get, tasks/list, tasks/cancel, and tasks/result,
                 which waits for the end and asks the user what the task asks meanwhile
    2026-07-28   an extension: a client that declares it gets one where the server wants so; tasks/get has result and
                 questions in it, tasks/update takes the answers, tasks/cancel

A call with an idempotency key is a task as well, which its client is not told of: it waits for the end in the call.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import anyio
import mcp_types as types
from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agent_server.bodies import refuse_unstorable
from agent_server.caller import Caller
from agent_server.calls.inquiries import ClientQuestionRepository
from agent_server.calls.ledger import CallOutcome, RecordedFailure
from agent_server.errors import InvalidInput, NotFound, quote_value
from agent_server.log import without_secrets
from agent_server.mcp.asking import Client, find_client, read_response, request_of, require_input
from agent_server.mcp.back_channel import is_stopped
from agent_server.mcp.errors import read_error
from agent_server.mcp.listening import Heard
from agent_server.mcp.tools import render_failure, render_output
from agent_server.questions import Answers, Inquiry, Reply
from agent_server.tasks.models import McpTask
from agent_server.tasks.store import find_unanswered
from agent_server.tasks.tasks import Call, Tasks
from agent_server.tool import Tool

EXTENSION = "io.modelcontextprotocol/tasks"
RELATED = "io.modelcontextprotocol/related-task"
KEY = "idempotencyKey"
"""What `_meta` of a call has that may be sent again."""
OLD = "2025-11-25"
"""The one revision that has tasks in its core."""
_STATE = "task:"
"""How `requestState` begins of a call that is a task."""
_POLL_MS = 1_000
_CANCELLED = -32800

Context = ServerRequestContext[Any, Any]


class TaskId(types.RequestParams):
    """What names a task."""

    task_id: str


class TaskUpdate(TaskId):
    """Answers to questions of a task, by the questions' names."""

    input_responses: types.InputResponses | None = None


def is_modern(context: Context) -> bool:
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS


def declares_tasks(context: Context) -> bool:
    """Whether a client of 2026 takes a task in place of a result."""
    said = context.session.client_capabilities
    return is_modern(context) and said is not None and EXTENSION in (said.extensions or {})


def read_key(params: types.CallToolRequestParams) -> str | None:
    """The idempotency key of a call. Raises InvalidInput."""
    key = dict(params.meta or {}).get(KEY)
    if key is not None and not isinstance(key, str):
        raise InvalidInput(f"_meta.{KEY}: must be a text")
    return key


def describe(task: McpTask, *, modern: bool) -> dict[str, Any]:
    """A task on the wire."""
    keep = round((task.expires_at - task.created_at).total_seconds() * 1000)
    # Before 2026 a call that failed is a task that failed.
    failed = not modern and task.status == "completed" and _has_failed(task)
    told: dict[str, Any] = {
        "taskId": str(task.id),
        "status": "failed" if failed else task.status,
        "createdAt": task.created_at.isoformat(),
        "lastUpdatedAt": task.updated_at.isoformat(),
        "ttlMs" if modern else "ttl": keep,
        "pollIntervalMs" if modern else "pollInterval": _POLL_MS,
    }
    message = task.message if task.error is None else read_error(task.error).message
    return told if message is None else {**told, "statusMessage": without_secrets(message)}


def _has_failed(task: McpTask) -> bool:
    outcome = task.outcome or {}
    return outcome.get("error") is not None or bool((task.result or {}).get("isError"))


def describe_whole(task: McpTask, tool: Tool[..., Any] | None) -> dict[str, Any]:
    """A task of 2026 with its result, its error or its questions. `tool` is None for one of MCP's own."""
    told = describe(task, modern=True)
    match task.status:
        case "completed":
            told["result"] = _dump(read_outcome(task, tool))
        case "failed":
            told["error"] = read_error(task.error or {}).model_dump(mode="json", exclude_none=True)
        case "input_required":
            told["inputRequests"] = {
                name: request_of(inquiry, None).model_dump(mode="json", by_alias=True, exclude_none=True)
                for name, inquiry in find_unanswered(task).items()
            }
    return told


@dataclass(frozen=True)
class TaskMethods:
    """Answers for the tasks of a server that has these `tools`, and those of MCP's `own`. `caller` says who asks. `start` has
    this process run tasks, if it does not yet: whoever comes back for one may want it taken up."""

    tasks: Tasks
    tools: Mapping[str, Tool[..., Any]]
    own: Collection[str]
    caller: Callable[[], Caller]
    start: Callable[[], Awaitable[object]] | None = None

    def add(self, server: Server) -> None:
        """Have `server` answer for tasks."""
        server.extensions = {**server.extensions, EXTENSION: {}}
        server.add_request_handler("tasks/get", TaskId, self.get)
        server.add_request_handler("tasks/cancel", TaskId, self.cancel)
        server.add_request_handler("tasks/update", TaskUpdate, self.update)
        server.add_request_handler("tasks/result", TaskId, self.result)
        server.add_request_handler("tasks/list", types.PaginatedRequestParams, self.list)

    async def get(self, context: Context, params: TaskId) -> dict[str, Any]:
        task = await self._find(context, params)
        if is_modern(context):
            return {"resultType": "complete", **describe_whole(task, self.tools.get(task.tool))}
        return describe(task, modern=False)

    async def cancel(self, context: Context, params: TaskId) -> dict[str, Any]:
        task = await self._find(context, params)
        modern = is_modern(context)
        if not modern or task.status in ("working", "input_required"):
            task = await self.tasks.cancel(self.caller(), task.id)
        return {"resultType": "complete"} if modern else describe(task, modern=False)

    async def update(self, context: Context, params: TaskUpdate) -> dict[str, Any]:
        if not is_modern(context):
            raise _unknown_method("tasks/update")
        task = await self._find(context, params)
        given = params.input_responses or {}
        asked = {name: inquiry for name, inquiry in find_unanswered(task).items() if name in given}
        replies = {name: read_response(name, inquiry, given) for name, inquiry in asked.items()}
        await self.tasks.reply(self.caller(), task.id, replies)
        return {"resultType": "complete"}

    async def list(self, context: Context, params: types.PaginatedRequestParams) -> dict[str, Any]:
        if context.protocol_version != OLD:
            raise _unknown_method("tasks/list")
        me = self.caller()
        try:
            page = await self.tasks.page(me, params.cursor)
        except InvalidInput as error:
            raise MCPError(types.INVALID_PARAMS, error.message) from None
        more = {} if page.next_cursor is None else {"nextCursor": page.next_cursor}
        return {"tasks": [describe(each, modern=False) for each in page.items if self._shows(me, each)], **more}

    async def result(self, context: Context, params: TaskId) -> dict[str, Any]:
        if context.protocol_version != OLD:
            raise _unknown_method("tasks/result")
        task = await self._find(context, params)
        client = find_client(context)
        while True:
            task = await self.tasks.wait(self.caller(), task.id)
            if task.status != "input_required":
                break
            if not client.waits or not client.can:
                raise MCPError(types.INVALID_REQUEST, "The task has to ask its user, and this client cannot be asked")
            await ask_user(self.tasks, self.caller(), client, task)
        outcome = _dump(read_outcome(task, self.tools.get(task.tool)))
        return {**outcome, "_meta": {**outcome.get("_meta", {}), RELATED: {"taskId": str(task.id)}}}

    def _shows(self, caller: Caller, task: McpTask) -> bool:
        # As for the tool: another key of the caller's may lack its scope, and a toolset may not have it.
        return task.listed and (task.tool in self.tools or task.tool in self.own) and caller.may(task.scope)

    async def _find(self, context: Context, params: TaskId) -> McpTask:
        """The caller's task of this id. Raises MCPError where there is none."""
        if is_modern(context):
            if not declares_tasks(context):
                needed: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
                message = f"The client does not declare {EXTENSION}; declare it with each request"
                raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, message, needed)
            headers = getattr(context.request, "headers", None) or {}
            # The SDKs' own clients send none with these methods.
            if MCP_NAME_HEADER in headers and decode_header_value(headers[MCP_NAME_HEADER]) != params.task_id:
                raise MCPError(types.HEADER_MISMATCH, f"{MCP_NAME_HEADER}: is not the taskId of the request")
        elif context.protocol_version != OLD:
            raise _unknown_method(context.method)
        if self.start is not None:
            await self.start()
        me = self.caller()
        try:
            task = await self.tasks.get(me, UUID(params.task_id))
            if not self._shows(me, task):
                raise NotFound("")
        except (ValueError, NotFound):
            message = (
                f"There is no task {quote_value(params.task_id[:80])}; it is another caller's, or its time is over"
            )
            raise MCPError(types.INVALID_PARAMS, without_secrets(message)) from None
        return task


@dataclass(frozen=True)
class TaskCall:
    """A call that becomes a task. `needs` is what its client can be asked while it runs."""

    tasks: Tasks
    caller: Caller
    name: str
    tool: Tool[..., Any] | None
    scope: str
    arguments: Mapping[str, Any]
    client: Client

    async def begin(self, *, key: str | None = None, listed: bool = True, ttl: int | None = None) -> McpTask:
        """Raises InvalidInput and TooMany."""
        # Before it is stored, which would make another text of it.
        refuse_unstorable(self.arguments, ())
        keep = None if ttl is None else timedelta(milliseconds=min(max(ttl, 0), 10**12))
        call = Call(self.name, self.scope, self.arguments, self.client.can, listed, key, keep)
        return await self.tasks.begin(self.caller, call)

    async def follow(self, task: McpTask, heard: Heard) -> types.CallToolResult | types.InputRequiredResult:
        """What the call returns, or what the client of 2026 is to be asked first. A client that leaves stops nothing, and
        one that says it no longer wants the call cancels the task."""
        async with heard.beating():
            return await self._follow(task, heard)

    async def _follow(self, task: McpTask, heard: Heard) -> types.CallToolResult | types.InputRequiredResult:
        try:
            with self.tasks.runner.following(task.id, heard):
                while (task := await self.tasks.wait(self.caller, task.id)).status == "input_required":
                    if not self.client.waits:
                        asked = {name: request_of(each, None) for name, each in find_unanswered(task).items()}
                        return require_input(f"{_STATE}{task.id}", asked)
                    await ask_user(self.tasks, self.caller, self.client, task)
        except anyio.get_cancelled_exc_class():
            if is_stopped():
                with anyio.CancelScope(shield=True):
                    await self.tasks.cancel(self.caller, task.id)
            raise
        return read_outcome(task, self.tool)

    async def go_on(self, state: str, responses: Mapping[str, Any]) -> McpTask:
        """The task of a `requestState`, which is given the answers that came with it. Raises MCPError."""
        try:
            task = await self.tasks.get(self.caller, UUID(state.removeprefix(_STATE)))
        except (ValueError, NotFound):
            task = None
        if task is None or (task.tool, task.arguments) != (self.name, dict(self.arguments)):
            raise MCPError(types.INVALID_PARAMS, "requestState: is of another call; call again as at first, without it")
        replies = {name: read_response(name, each, responses) for name, each in find_unanswered(task).items()}
        return await self.tasks.reply(self.caller, task.id, replies)


def is_state_of_task(state: str | None) -> bool:
    """Whether a `requestState` is one of `TaskCall.follow`."""
    return state is not None and state.startswith(_STATE)


def read_outcome(task: McpTask, tool: Tool[..., Any] | None) -> types.CallToolResult:
    """What the call of a task returns that has ended. `tool` is None for one of MCP's own. Raises MCPError."""
    if task.status == "cancelled":
        raise MCPError(_CANCELLED, "The task was cancelled")
    if task.error is not None:
        raise MCPError.from_error_data(read_error(task.error))
    if task.outcome is None:
        return types.CallToolResult.model_validate(task.result)
    outcome = CallOutcome(**task.outcome)
    if outcome.error is not None:
        return render_failure(RecordedFailure(outcome.error))
    assert tool is not None, "what the server has no more is not shown"
    return render_output(tool, outcome.output)


def _dump(result: types.CallToolResult) -> dict[str, Any]:
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)


async def ask_user(tasks: Tasks, caller: Caller, client: Client, task: McpTask) -> None:
    """Have a client of before 2026 ask what a task asks, one after the other, and give the task the answers."""
    for name, inquiry in find_unanswered(task).items():
        reply = await _ask(tasks, caller, client, task, inquiry)
        await tasks.reply(caller, task.id, {name: reply})


async def _ask(tasks: Tasks, caller: Caller, client: Client, task: McpTask, inquiry: Inquiry) -> Reply:
    async with tasks.database.transaction(caller.id) as session:
        questions = ClientQuestionRepository(session, caller)
        row = await questions.put(task.tool, task.arguments, [inquiry], Answers(key=str(task.id)))
    request = request_of(inquiry, row.id)
    if request.params is not None and task.listed:
        meta: Any = {RELATED: {"taskId": str(task.id)}}
        request.params.meta = meta
    return await client.send(row.id, request)


def create_augmenting(
    begin: Callable[[Context, types.CallToolRequestParams], Awaitable[McpTask]],
) -> ServerMiddleware[Any]:
    """The middleware that answers calls of 2025-11-25 which are to be tasks."""

    # By a middleware, since the SDK lets nothing but a result of the tool out of the method's handler.
    async def augment(ctx: Context, call_next: CallNext) -> HandlerResult:
        if ctx.method != "tools/call" or ctx.protocol_version != OLD or "task" not in (ctx.params or {}):
            return await call_next(ctx)
        params = types.CallToolRequestParams.model_validate(ctx.params, by_name=False)
        return {"task": describe(await begin(ctx, params), modern=False)}

    return augment


def _unknown_method(method: str) -> MCPError:
    return MCPError(types.METHOD_NOT_FOUND, "Method not found", method)
