"""The requests that are being answered, and the clients' notices that they no longer want one.

Before the protocol of 2026 a client says so in another request, which any replica may get. It names the request by a
number of its own, so a session is told apart by an id that the client is given when it begins. Nothing is kept under
that id: it only goes into the name of a request, with the caller's.
"""

import asyncio
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

from starlette.types import Message, Receive, Send

from agent_server.caller import Caller
from agent_server.calls.grace import GRACE_SECONDS

SESSION = "mcp-session-id"
_LONGEST_ID = 200
_REMEMBERED_SECONDS = 10.0
"""How long a notice is kept that came before its request."""
_MOST_REMEMBERED = 10_000
_QUIET_SECONDS = 1.0
"""A server that is to stop serves until no call has come for so long: balancers take a moment to hear of it."""
_IN_USE_SECONDS = 60.0
"""How long after the last call one is expected any time."""


class OpenCalls:
    """The requests that this process answers. `tell` hands a notice about another one to the other replicas, and
    `tell_answered` the id of a question that was answered here and is waited for there."""

    def __init__(
        self, tell: Callable[[UUID], None] = lambda _: None, tell_answered: Callable[[UUID], None] = lambda _: None
    ) -> None:
        self._tell, self._tell_answered = tell, tell_answered
        self._asked: dict[UUID, asyncio.Event] = {}
        self._all: Counter[asyncio.Event] = Counter()
        self._stopping, self._none = False, asyncio.Event()
        self._none.set()
        self._arrived = -math.inf
        self._open: dict[UUID, asyncio.Event] = {}
        self._counts: Counter[UUID] = Counter()
        self._left: dict[UUID, float] = {}

    @contextmanager
    def open(self, name: UUID | None) -> Iterator[asyncio.Event]:
        """Count a request among those that are answered. The event is set when its client no longer wants it."""
        left = asyncio.Event() if name is None else self._open.setdefault(name, asyncio.Event())
        if name is not None:
            at = self._left.pop(name, None)
            if at is not None and at > time.monotonic() - _REMEMBERED_SECONDS:
                left.set()
            self._counts[name] += 1
        if self._stopping:
            left.set()
        self._all[left] += 1
        self._arrived = time.monotonic()
        self._none.clear()
        try:
            yield left
        finally:
            self._all -= Counter({left: 1})
            if not self._all:
                self._none.set()
            if name is not None:
                self._counts[name] -= 1
                if not self._counts[name]:
                    del self._open[name], self._counts[name]

    @property
    def is_stopping(self) -> bool:
        """Whether what is left of the calls is ended because this process is to stop."""
        return self._stopping

    async def drain(self, seconds: float) -> None:
        """Wait so long for the calls that are being made here, and for those that still come; then have those that are
        left end, and wait for that."""
        began = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._none.wait()
                last = began if began - self._arrived < _IN_USE_SECONDS else self._arrived
                while (rest := max(last, self._arrived) + _QUIET_SECONDS - time.monotonic()) > 0 or self._all:
                    await asyncio.sleep(max(rest, 0))
                    await self._none.wait()
        self._stopping = True
        for left in self._all:
            left.set()
        # A call that works outside is not cut off at once.
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS + 1):
                await self._none.wait()

    def leave(self, name: UUID) -> None:
        """Do what a client's notice says, here or in another replica."""
        if not self.leave_here(name):
            self._tell(name)

    def leave_here(self, name: UUID) -> bool:
        """End the request with this name. Returns whether it is one of this process; else the notice is kept for a
        moment, since it may come before its request."""
        if name in self._open:
            self._open[name].set()
            return True
        now = time.monotonic()
        while self._left and (
            len(self._left) >= _MOST_REMEMBERED or next(iter(self._left.values())) < now - _REMEMBERED_SECONDS
        ):
            del self._left[next(iter(self._left))]
        self._left[name] = now
        return False

    @contextmanager
    def await_answer(self, id: UUID) -> Iterator[asyncio.Event]:
        """An event that is set when the question with this id may have been answered."""
        answered = self._asked[id] = asyncio.Event()
        try:
            yield answered
        finally:
            del self._asked[id]

    def wake(self, id: UUID) -> None:
        """Have whoever waits for the answer to this question look for it, here or in another replica."""
        if not self.wake_here(id):
            self._tell_answered(id)

    def wake_here(self, id: UUID) -> bool:
        """Returns whether somebody in this process waits for it."""
        if (answered := self._asked.get(id)) is not None:
            answered.set()
        return answered is not None


def name_request(caller: Caller, session: str | None, id: Any) -> UUID | None:
    """The name of a request among those of all callers. None where nobody could name it again."""
    if not session or len(session) > _LONGEST_ID or not isinstance(id, str | int) or isinstance(id, bool):
        return None
    parts = json.dumps([str(caller.id), session, id])
    return UUID(bytes=hashlib.blake2b(parts.encode(errors="surrogatepass"), digest_size=16).digest())


def find_left(message: Any) -> Any:
    """The id of the request that this message says is no longer wanted. None where it says nothing of the kind."""
    match message:
        case {"method": "notifications/cancelled", "params": {"requestId": id}}:
            return id
    return None


def until_left(receive: Receive, left: asyncio.Event) -> Receive:
    """`receive`, and a disconnect once `left` is set."""

    async def receive_or_leave() -> Message:
        leaving, receiving = asyncio.ensure_future(left.wait()), asyncio.ensure_future(receive())
        try:
            await asyncio.wait((leaving, receiving), return_when=asyncio.FIRST_COMPLETED)
            return {"type": "http.disconnect"} if left.is_set() else await receiving
        finally:
            leaving.cancel()
            receiving.cancel()

    return receive_or_leave


class Ending:
    """An answer that is ended as it should be also where the app stops in the middle of it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = self._ended = self._streams = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            kind = dict(message.get("headers", ())).get(b"content-type", b"")
            self._streams = kind.startswith(b"text/event-stream")
        self._ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def end(self, error: Mapping[str, Any]) -> None:
        """Send what is missing. `error` is the answer where nothing was sent, or the last event of a stream."""
        if not self._begun:
            body = json.dumps(error).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await self.send({"type": "http.response.start", "status": 200, "headers": headers})
            await self.send({"type": "http.response.body", "body": body})
        elif not self._ended:
            event = f"event: message\r\ndata: {json.dumps(error)}\r\n\r\n".encode() if self._streams else b""
            await self.send({"type": "http.response.body", "body": event})
