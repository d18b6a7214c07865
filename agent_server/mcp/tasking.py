"""Which calls become tasks, and what is answered to them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError

from agent_server.caller import Caller
from agent_server.calls.call import Runtime, authorise_call
from agent_server.calls.confirmations import find_asker
from agent_server.errors import quote_value
from agent_server.log import without_secrets
from agent_server.mcp.agents import AskAgent, needed_scope
from agent_server.mcp.asking import Client, find_client
from agent_server.mcp.listening import Heard
from agent_server.mcp.own import OwnTool
from agent_server.mcp.tasks import Context, TaskCall, declares_tasks, describe, is_state_of_task, read_key
from agent_server.tasks.models import McpTask
from agent_server.tasks.tasks import Tasks
from agent_server.tool import Tool


@dataclass(frozen=True)
class Tasking:
    """The tasks of one server: of `tools`, and of `own` tools of MCP's. `start` has this process run them, if it does not
    yet."""

    runtime: Runtime
    tasks: Tasks
    tools: Mapping[str, Tool[..., Any]]
    own: Mapping[str, OwnTool]
    start: Callable[[], Awaitable[object]] | None = None

    async def answer(
        self, context: Context, params: types.CallToolRequestParams, caller: Caller, heard: Heard
    ) -> types.CallToolResult | types.InputRequiredResult | dict[str, Any] | None:
        """What is answered to a call that is a task. None for one that is not. Raises as `call_tool`, and MCPError."""
        if self._may_be_long(params) and declares_tasks(context):
            task = await self._begin(params, caller, find_client(context), None)
            return {"resultType": "task", **describe(task, modern=True)}
        tool = self.tools.get(params.name)
        if tool is None or not (is_state_of_task(params.request_state) or self._has_key(tool, params, context)):
            return None
        call = await self._prepare(params, caller, find_client(context))
        if params.request_state is not None:
            task = await call.go_on(params.request_state, params.input_responses or {})
        else:
            task = await call.begin(key=read_key(params), listed=False)
        return await call.follow(task, heard)

    async def augment(self, context: Context, params: types.CallToolRequestParams, caller: Caller) -> McpTask:
        """The task that a client of 2025-11-25 asks for in place of a result. Raises as `answer`."""
        if not self._may_be_long(params):
            message = f"{quote_value(params.name[:80])} is not called as a task; call it without `task`"
            raise MCPError(types.METHOD_NOT_FOUND, without_secrets(message))
        ttl = None if params.task is None else params.task.ttl
        return await self._begin(params, caller, find_client(context), ttl)

    async def _begin(
        self, params: types.CallToolRequestParams, caller: Caller, client: Client, ttl: int | None
    ) -> McpTask:
        call = await self._prepare(params, caller, client)
        return await call.begin(key=read_key(params), ttl=ttl)

    def _may_be_long(self, params: types.CallToolRequestParams) -> bool:
        if (tool := self.tools.get(params.name)) is not None:
            return tool.long
        # What names a turn asks for one that goes on by itself.
        return isinstance(self.own.get(params.name), AskAgent) and (params.arguments or {}).get("turn_id") is None

    def _has_key(self, tool: Tool[..., Any], params: types.CallToolRequestParams, context: Context) -> bool:
        """Whether a call may be sent again. One of a tool that reads has no need of it, and one that asks before something
        is lost counts once by its question."""
        if tool.effect == "read" or read_key(params) is None or params.request_state is not None:
            return False
        return find_asker(tool, "mcp") != "client" or "forms" not in find_client(context).can

    async def _prepare(self, params: types.CallToolRequestParams, caller: Caller, client: Client) -> TaskCall:
        if self.start is not None:
            await self.start()
        tool, own = self.tools.get(params.name), self.own.get(params.name)
        arguments = params.arguments or {}
        if tool is not None:
            await authorise_call(self.runtime, tool, caller=caller, surface="mcp")
            scope = tool.scope
        else:
            assert isinstance(own, AskAgent), "nothing else becomes a task"
            own.authorise(caller, arguments)
            scope = needed_scope(arguments)
        return TaskCall(self.tasks, caller, params.name, tool, scope, arguments, client)
