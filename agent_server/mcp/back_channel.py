"""Requests to a client of before 2026, on the stream that answers its own.

    client                            replica 1                       replica 2
    POST tools/call                -> the question is a row
    <- elicitation/create (its id) -- on the open stream
    POST the answer                --------------------------------> into the row, and a hint
                                      the hint, or the next look
    <- the result                  -- on the same stream

Such a client says what it can do once, when its session begins: it is written into the session's id, which the client
sends with each request, so that no replica has to keep it. A client that lies there lies about itself.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from starlette.types import Message, Send

from agent_server.caller import Caller
from agent_server.calls.inquiries import LASTS, ClientQuestionRepository
from agent_server.db import Database, storable
from agent_server.mcp.open_calls import OpenCalls
from agent_server.questions import Need

POLL_SECONDS = 1.0
"""The longest that a hint which was lost holds a call up."""
STREAMS = "agent_server.streams"
"""The key in an ASGI scope that says whether the client reads a stream while it is written."""

_MARKS: Mapping[Need, str] = {"forms": "f", "urls": "u", "samples": "s", "roots": "r"}
channel: ContextVar["BackChannel | None"] = ContextVar("mcp_back_channel", default=None)
"""The way to the client whose call is being answered, where it has one."""


is_left: ContextVar[Callable[[], bool]] = ContextVar("mcp_is_left")
"""Whether the client of the call that is being answered has said that it no longer wants it."""


def is_stopped() -> bool:
    """Whether a call that is cancelled is so because its client wants it to stop.

    Over HTTP a connection may also be lost. Where nothing is said of it, as over stdio, there is no other reason.
    """
    return is_left.get(lambda: True)()


def mark_session(id: str, message: Any) -> str:
    """The id of a session with what its client, by its `initialize`, can be asked."""
    match message:
        case {"params": {"capabilities": dict(said)}}:
            can = read_needs(said)
            marks = "".join(mark for need, mark in _MARKS.items() if need in can)
            return f"{id}-{marks}" if marks else id
    return id


def read_needs(said: Mapping[str, Any]) -> frozenset[Need]:
    """What a client can be asked that declares these capabilities, as they are on the wire."""
    can = set[Need]()
    if isinstance(kinds := said.get("elicitation"), dict):
        # One that names no kind can show a form: that is what the protocol had first.
        can |= {"urls"} if "url" in kinds else {"forms"}
        can |= {"forms"} if "form" in kinds else set()
    can |= {"samples"} if isinstance(said.get("sampling"), dict) else set()
    can |= {"roots"} if isinstance(said.get("roots"), dict) else set()
    return frozenset(can)


def read_marks(session: str | None) -> frozenset[Need]:
    """What the client of a session can be asked."""
    marks = (session or "").partition("-")[2]
    return frozenset(need for need, mark in _MARKS.items() if mark in marks)


def find_answer(message: Any) -> tuple[UUID, str] | None:
    """The id of the question that a message answers, and the answer as JSON. None for a message that is none."""
    match message:
        case {"id": str(id), "result": dict(answer)} if "method" not in message:
            pass
        case {"id": str(id), "error": dict()} if "method" not in message:
            answer = {"action": "cancel"}  # it could not ask, so nobody has answered
        case _:
            return None
    try:
        return UUID(id), json.dumps(storable(answer))
    except ValueError:
        return None


async def keep_answer(database: Database, calls: OpenCalls, caller: Caller, message: Any) -> None:
    """Hand an answer of a client to the call that waits for it, in this process or in another."""
    if (found := find_answer(message)) is None:
        return
    id, answer = found
    async with database.transaction(caller.id) as session:
        kept = await ClientQuestionRepository(session, caller).answer(id, answer)
    if kept:
        calls.wake(id)


@dataclass
class BackChannel:
    """The open stream of one call. `ask` puts a request on it and waits for the client's answer."""

    database: Database
    calls: OpenCalls
    caller: Caller
    can: frozenset[Need]
    _send: Send

    def __post_init__(self) -> None:
        self._begun, self._lock = asyncio.Event(), asyncio.Lock()

    async def send(self, message: Message) -> None:
        """Send a part of the answer. None of ours comes into the middle of it."""
        async with self._lock:
            await self._send(message)
        if message["type"] == "http.response.start":
            self._begun.set()

    async def ask(self, id: UUID, method: str, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The client's answer to the question of this row. None where there was none in time."""
        request = {"jsonrpc": "2.0", "id": str(id), "method": method, "params": params}
        await self._begun.wait()
        with self.calls.await_answer(id) as answered:
            event = f"event: message\r\ndata: {json.dumps(request)}\r\n\r\n".encode()
            await self.send({"type": "http.response.body", "body": event, "more_body": True})
            try:
                async with asyncio.timeout(LASTS.total_seconds()):
                    return await self._wait(id, answered)
            except TimeoutError:
                return None

    async def _wait(self, id: UUID, answered: asyncio.Event) -> Mapping[str, Any]:
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await answered.wait()
            except TimeoutError:
                pass
            answered.clear()
            async with self.database.transaction(self.caller.id) as session:
                answer = await ClientQuestionRepository(session, self.caller).take_answer(id)
            if answer is not None:
                return answer
