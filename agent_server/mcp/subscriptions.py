"""Streams of what changes: `subscriptions/listen` of the protocol of 2026.

A stream tells of the addresses that its caller may read and of the lists that it asked for, and of nothing else. It is
ended with the caller's credential. What a hint has lost is told by no stream: clients read again when they reconnect.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
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

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.changes import LISTS, PROMPTS, RESOURCES, TOOLS, Watch
from agent_server.errors import AgentServerError, TooMany, Unauthorized, Unavailable
from agent_server.mcp.documents import Documents
from agent_server.mcp.offers import Offers, Watching
from agent_server.mcp.resources import read_resource

MOST_STREAMS = 10_000
"""Open streams of a process."""
MOST_OF_CALLER = 50
"""Open streams of a caller in a process."""
MOST_ADDRESSES = 100
"""Addresses that a stream watches."""

Context = ServerRequestContext[Any, Any]


class Streams:
    """The open streams of this process, counted."""

    def __init__(self) -> None:
        self._of_caller: Counter[UUID] = Counter()

    @contextmanager
    def open(self, caller: Caller) -> Iterator[None]:
        """Count a stream. Raises TooMany."""
        if self._of_caller.total() >= MOST_STREAMS:
            raise TooMany(f"This server holds {MOST_STREAMS} streams open; try again later")
        if self._of_caller[caller.id] >= MOST_OF_CALLER:
            raise TooMany(f"A caller holds {MOST_OF_CALLER} streams open at most; close one")
        self._of_caller[caller.id] += 1
        try:
            yield
        finally:
            self._of_caller[caller.id] -= 1
            if not self._of_caller[caller.id]:
                del self._of_caller[caller.id]


def add_watching(
    server: Server, runtime: Runtime, documents: Documents | None, offers: Offers, caller: Callable[[], Caller]
) -> None:
    """Have `server` tell those who listen what changes, where offers can be watched."""
    watching, streams = offers.watching, Streams()
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
        with streams.open(me), watching.changes.watch() as watch:
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

    server.add_request_handler("subscriptions/listen", types.SubscriptionsListenRequestParams, listen)


async def may_read(runtime: Runtime, documents: Documents | None, offers: Offers, caller: Caller, uri: str) -> bool:
    """Whether there is something at an address that this caller may read. It is read to know."""
    try:
        await read_resource(runtime, documents, offers, caller, uri)
    except Unavailable:
        raise
    except (AgentServerError, MCPError):
        return False
    return True


async def list_changes(
    watching: Watching, watch: Watch, caller: Caller, choose: Callable[[Caller], Awaitable[Sequence[str]]]
) -> AsyncIterator[str]:
    """The subjects that change, until the caller's credential or this process ends.

    With the caller's rights all lists change, and addresses are watched that it may still read: `choose` says which.
    """
    asked = time.monotonic()
    while not watching.changes.is_closed:
        changed: Collection[str] = await watch.wait(max(0.0, asked + watching.seconds - time.monotonic()))
        if time.monotonic() >= asked + watching.seconds:
            asked = time.monotonic()
            try:
                now = await watching.renew(caller)
                if now.scopes != caller.scopes:
                    watch.follow([*await choose(now), *LISTS])
                    changed = [*(subject for subject in changed if watch.follows(subject)), *LISTS]
                caller = now
            except Unauthorized:
                return
            # Asked again the next time.
            except Unavailable:
                pass
        for subject in changed:
            yield subject


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
