"""Streams of what changes: `subscriptions/listen` of the protocol of 2026.

A stream tells of the addresses that its caller may read and of the lists that it asked for, and of nothing else. It is
ended with the caller's credential. What a hint has lost is told by no stream: clients read again when they reconnect.
"""

from collections.abc import Callable, Sequence
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
    event_to_notification,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.changes import PROMPTS, RESOURCES, TOOLS
from agent_server.mcp.offers import Offers
from agent_server.mcp.sessions import add_sessions
from agent_server.mcp.watching import list_changes, may_read
from agent_server.readable import Documents

MOST_ADDRESSES = 100
"""Addresses that a stream watches."""

Context = ServerRequestContext[Any, Any]


_OLD_TASKS = types.ServerTasksCapability(
    list=types.TasksListCapability(),
    cancel=types.TasksCancelCapability(),
    requests=types.ServerTasksRequestsCapability(tools=types.TasksToolsCapability(call=types.TasksCallCapability())),
)


class WatchedServer(Server[Any]):
    """A server that says to older clients, too, that its lists change, where they can be watched, and that it has
    tasks."""

    def get_capabilities(
        self, notification_options: NotificationOptions | None = None, *given: Any, **more: Any
    ) -> types.ServerCapabilities:
        if "subscriptions/listen" in self._request_handlers:
            notification_options = NotificationOptions(True, True, True)
        told = super().get_capabilities(notification_options, *given, **more)
        if "tasks/get" in self._request_handlers and more.get("protocol_version") not in MODERN_PROTOCOL_VERSIONS:
            return told.model_copy(update={"tasks": _OLD_TASKS, "extensions": None})
        return told


def add_watching(
    server: Server, runtime: Runtime, documents: Documents | None, offers: Offers, caller: Callable[[], Caller]
) -> None:
    """Have `server` tell those who listen what changes, where offers can be watched."""
    watching = offers.watching
    if watching is None:
        return

    async def listen(
        context: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        me, id = caller(), context.request_id
        if id is None:
            raise MCPError(types.INVALID_REQUEST, "subscriptions/listen needs a request id")
        uris = params.notifications.resource_subscriptions or []
        if len(uris) > MOST_ADDRESSES:
            raise MCPError(types.INVALID_PARAMS, f"resourceSubscriptions: {MOST_ADDRESSES} addresses at most")
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: id}
        with watching.streams.open(me), watching.changes.watch() as watch:
            lists = _list_wanted(params.notifications)

            async def choose(now: Caller) -> Sequence[str]:
                return [uri for uri in dict.fromkeys(uris) if await may_read(runtime, documents, offers, now, uri)]

            # Watched before it is read: what changes meanwhile is told.
            watch.follow([*uris, *lists])
            readable = await choose(me)
            wanted = [*readable, *lists]
            watch.follow(wanted)
            granted = types.SubscriptionFilter(
                tools_list_changed=TOOLS in lists or None,
                prompts_list_changed=PROMPTS in lists or None,
                resources_list_changed=RESOURCES in lists or None,
                resource_subscriptions=readable or None,
            )
            acknowledged = types.SubscriptionsAcknowledgedNotificationParams(notifications=granted, _meta=meta)
            await context.session.send_notification(
                types.SubscriptionsAcknowledgedNotification(params=acknowledged), related_request_id=id
            )
            async for subject in list_changes(watching, watch, me, choose):
                if subject in wanted:
                    notification = event_to_notification(event_of(subject), meta)
                    await context.session.send_notification(notification, related_request_id=id)
        return types.SubscriptionsListenResult(_meta=meta)

    add_sessions(server, runtime, documents, offers, watching, caller)
    server.add_request_handler("subscriptions/listen", types.SubscriptionsListenRequestParams, listen)


def _list_wanted(wanted: types.SubscriptionFilter) -> Sequence[str]:
    asked = {
        TOOLS: wanted.tools_list_changed,
        PROMPTS: wanted.prompts_list_changed,
        RESOURCES: wanted.resources_list_changed,
    }
    return [name for name, is_wanted in asked.items() if is_wanted]


def event_of(subject: str) -> ServerEvent:
    """The event that tells of a subject."""
    match subject:
        case "tools":
            return ToolsListChanged()
        case "prompts":
            return PromptsListChanged()
        case "resources":
            return ResourcesListChanged()
    return ResourceUpdated(uri=subject)
