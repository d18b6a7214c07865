"""What clients of before 2026 watch: `resources/subscribe`, and the stream of a GET that tells of it.

The two may reach different replicas, so what a session watches is kept in the database. A session is an id that its client
was given; with its caller it makes a name, under which nobody else finds anything.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.changes import LISTS, Watch, forget_watched, keep_watched, list_watched, name_subject
from agent_server.errors import Unavailable
from agent_server.mcp.offers import Offers, Watching
from agent_server.mcp.open_calls import SESSION
from agent_server.mcp.resources import read_resource
from agent_server.mcp.tasks import describe
from agent_server.mcp.watching import list_changes, may_read
from agent_server.readable import Documents
from agent_server.tasks.models import McpTask
from agent_server.tasks.runner import subject_of_owner
from agent_server.tasks.tasks import Tasks

_PING_SECONDS = 15.0
"""Proxies close a connection on which nothing comes, nginx after 60 seconds."""

Context = ServerRequestContext[Any, Any]


def add_sessions(
    server: Server,
    runtime: Runtime,
    documents: Documents | None,
    offers: Offers,
    watching: Watching,
    caller: Callable[[], Caller],
) -> None:
    """Have `server` keep what the sessions of clients watch."""

    async def subscribe(context: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        me, session = caller(), _session_of(context, caller())
        await read_resource(runtime, documents, offers, me, params.uri)
        await keep_watched(watching.database, me, session, params.uri)
        watching.changes.announce(_subject_of(session))
        return types.EmptyResult()

    async def unsubscribe(context: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        me, session = caller(), _session_of(context, caller())
        await forget_watched(watching.database, me, session, params.uri)
        watching.changes.announce(_subject_of(session))
        return types.EmptyResult()

    server.add_request_handler("resources/subscribe", types.SubscribeRequestParams, subscribe)
    server.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, unsubscribe)


def create_stream(
    runtime: Runtime, documents: Documents | None, offers: Offers | None, tasks: Tasks | None = None
) -> Callable[[Caller, str], ASGIApp] | None:
    """What answers the GET of a session. None where nothing can be watched."""
    watching = None if offers is None else offers.watching
    if offers is None or watching is None:
        return None

    def stream(caller: Caller, session: str) -> ASGIApp:
        name = _name_session(caller, session)
        subject = _subject_of(name)

        me = caller
        told: Mapping[UUID, str] = {}
        of_tasks = subject_of_owner(caller.id)

        async def choose(now: Caller) -> Sequence[str]:
            nonlocal me
            me = now
            uris = await list_watched(watching.database, now, name)
            return [subject, of_tasks, *[uri for uri in uris if await may_read(runtime, documents, offers, now, uri)]]

        async def read_tasks() -> Mapping[UUID, str]:
            """The tasks that have changed lately, as the client is told of them."""
            changed = [] if tasks is None else await tasks.list_changed(me)
            return {task.id: _tell_task(task) for task in changed if me.may(task.scope) and offers.has_tool(task.tool)}

        async def tell(watch: Watch, send: Send) -> None:
            nonlocal told
            async for changed in list_changes(watching, watch, caller, choose):
                if changed == subject:
                    watch.follow([*await choose(me), *LISTS])
                elif changed == of_tasks:
                    before, told = told, await read_tasks()
                    for task, event in told.items():
                        if before.get(task) != event:
                            await send(_body(event))
                else:
                    await send(_body(_notify(changed)))

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal told
            with watching.streams.open(caller), watching.changes.watch() as watch:
                # Before its client hears that it is open: what changes from then on is told.
                watch.follow([subject, *LISTS])
                watch.follow([*await choose(caller), *LISTS])
                told = await read_tasks()
                headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache, no-transform")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send(_body(": open\n\n"))
                await _run_until_left(tell(watch, send), receive, send)

        return serve

    return stream


async def _run_until_left(telling: Any, receive: Receive, send: Send) -> None:
    """Run `telling` until it ends or the client leaves. Meanwhile something comes every few seconds."""

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def ping() -> None:
        while True:
            await asyncio.sleep(_PING_SECONDS)
            await send(_body(": ping\n\n"))

    tasks = [asyncio.create_task(each) for each in (telling, leave(), ping())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        is_left = tasks[1].done()
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    if not is_left:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    # With the database away the stream ends, and its client opens another one.
    if isinstance(results[0], Exception) and not isinstance(results[0], Unavailable):
        raise results[0]


def _body(text: str) -> Message:
    return {"type": "http.response.body", "body": text.encode(), "more_body": True}


def _notify(subject: str) -> str:
    """The event that tells of a subject."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": f"notifications/{subject}/list_changed"}
    if subject not in LISTS:
        message |= {"method": "notifications/resources/updated", "params": {"uri": subject}}
    return f"event: message\ndata: {json.dumps(message)}\n\n"


def _tell_task(task: McpTask) -> str:
    """The event that tells of a task, as the protocol of 2025-11-25 has it."""
    message = {"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": describe(task, modern=False)}
    return f"event: message\ndata: {json.dumps(message)}\n\n"


def _name_session(caller: Caller, session: str) -> UUID:
    return name_subject(json.dumps([str(caller.id), session[:200]]))


def _subject_of(session: UUID) -> str:
    """What changes when a session watches something else."""
    return f"session {session}"


def _session_of(context: Context, caller: Caller) -> UUID:
    session = context.request.headers.get(SESSION) if context.request is not None else None
    if not session:
        raise MCPError(
            types.INVALID_REQUEST, f"To watch something needs a session: send {SESSION} as initialize gave it"
        )
    return _name_session(caller, session)
