"""The connections of a process to outside servers.

    connection   one to each server, made when it is first needed, closed after a minute without a call
    list         what the server declares is compared with what was accepted: after each connect, when the server says
                 that it has changed, once a minute, and before each call that has an effect
    failure      a connection that is lost is made anew once. A call that was sent is sent again only where that is
                 safe: `read`, and `keyed` with the same key. One of `once` never is
    breaker      a server that keeps failing is left alone for some seconds

Nothing here outlives the process or matters to another one: which tools there are follows from mcp.lock.
"""

import asyncio
import contextvars
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from agent_server.calls.ledger import OutcomeUnknown
from agent_server.errors import Conflict, OutsideFailed, TimedOut, cut
from agent_server.models.breaker import Breaker, BreakerOpen
from agent_server.outside.pins import Declaration, Pin
from agent_server.outside.results import quote_answer, text_of
from agent_server.outside.servers import Effect, OutsideServer
from agent_server.tool_context import ToolContext
from agent_server.wording import one_line

if TYPE_CHECKING:
    import mcp_types as types
    from mcp.shared.dispatcher import ProgressFnT

    from agent_server.outside.pages import Page
    from agent_server.outside.session import Session

log = structlog.get_logger()

IDLE_SECONDS = 60.0
FRESH_SECONDS = 60.0
"""How long a list is taken for what the server still declares."""
KEY = "agent-server/idempotency-key"
"""What stands in `_meta` of a call that a server makes only once."""
_LONGEST_PROGRESS = 200


class Lost(Exception):
    """The connection was lost, or none could be made. Its text says why in our words. `said` is what the other side said
    or wrote, for an operator: models are not told of it."""

    def __init__(self, why: str, said: str = "") -> None:
        super().__init__(why)
        self.said = said


class Answered(Exception):
    """The server answered with an error of the protocol. Its text is the server's."""


@dataclass
class Outside:
    """The outside servers as a process calls them."""

    root: Path
    servers: Mapping[str, OutsideServer]
    idle_seconds: float = IDLE_SECONDS
    _of: "dict[str, Connection]" = field(default_factory=dict, init=False)

    def connect(self, server: OutsideServer) -> "Connection":
        if server.name not in self._of:
            self._of[server.name] = Connection(server, self.root, self.idle_seconds)
        return self._of[server.name]

    async def call(
        self, server: OutsideServer, pin: Pin, arguments: Mapping[str, Any], *, context: ToolContext, effect: Effect
    ) -> "types.CallToolResult":
        """Call a tool as it was accepted. Raises OutsideFailed, Conflict for one that has changed, TimedOut, and
        OutcomeUnknown where it may have taken effect."""

        async def tell(progress: float, total: float | None, message: str | None) -> None:
            said = None if message is None else cut(one_line(message), _LONGEST_PROGRESS)
            await context.report_progress(progress, total, said)

        connection = self.connect(server)
        try:
            with connection.breaker.call(lambda error: isinstance(error, Lost | OutcomeUnknown | TimedOut)):
                answer = await connection.call(pin, arguments, effect, context.idempotency_key, tell)
        except BreakerOpen:
            raise OutsideFailed(f"{server.name} has failed several times and is left alone; try again later") from None
        except Lost as error:
            raise OutsideFailed(f"{pin.name} was not called: {server.name} is away, {error}; try again later") from None
        except Answered as error:
            late = "" if effect == "read" else "; it may have taken effect all the same"
            raise OutsideFailed(f"{pin.name} failed: {quote_answer(server, str(error))}{late}") from None
        if answer.is_error:
            raise OutsideFailed(f"{pin.name} failed: {quote_answer(server, text_of(answer))}")
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(connection.close() for connection in self._of.values()))


@dataclass(eq=False)
class _Held:
    """A session that is open. It ends when `ended` is set: as soon as no call uses it, where it has been `retired`."""

    session: "Session"
    ended: asyncio.Event
    calls: int = 0
    retired: bool = False
    declared: Mapping[str, Declaration] = field(default_factory=dict)
    listed_at: float = -FRESH_SECONDS

    @contextmanager
    def use(self) -> Iterator[None]:
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1
            self.end_if_unused()

    def end_if_unused(self) -> None:
        if self.retired and not self.calls:
            self.ended.set()

    @property
    def is_old(self) -> bool:
        """Whether the server may declare something else by now."""
        return self.session.has_changed or time.monotonic() - self.listed_at >= FRESH_SECONDS


class Connection:
    """The connection to one server."""

    def __init__(self, server: OutsideServer, root: Path, idle_seconds: float = IDLE_SECONDS) -> None:
        self.server = server
        self.breaker = Breaker()
        self._root, self._idle_seconds = root, idle_seconds
        self._lock = asyncio.Lock()
        self._held: _Held | None = None
        self._owners: set[asyncio.Task[None]] = set()

    async def call(
        self, pin: Pin, arguments: Mapping[str, Any], effect: Effect, key: str, tell: "ProgressFnT"
    ) -> "types.CallToolResult":
        """Call an accepted tool. Raises as `Outside.call`, and Lost and Answered."""
        meta = {KEY: key} if effect == "keyed" else {}
        for is_last in (False, True):
            held = await self._list(fresh=effect != "read")
            with held.use():
                self._check(pin, held.declared.get(pin.their_name))
                try:
                    async with asyncio.timeout(self.server.timeout):
                        return await held.session.call_tool(pin.their_name, arguments, meta, tell)
                except TimeoutError:
                    held.listed_at = -FRESH_SECONDS
                    raise TimedOut(self._tell_late(pin, effect)) from None
                except asyncio.CancelledError:
                    held.listed_at = -FRESH_SECONDS  # whether it still answers is asked before the next call
                    raise
                except Lost:
                    self._retire(held)
                    if effect == "once" or (is_last and effect == "keyed"):
                        raise OutcomeUnknown(pin.name) from None
                    if is_last:
                        raise
        raise AssertionError("the last round returns or raises")

    async def list_tools(self) -> Mapping[str, Declaration]:
        """What the server declares now, by its names. Raises Lost and Answered."""
        return (await self._list(fresh=True)).declared

    async def read_pages(self) -> "list[Page]":
        """The resources that are knowledge. Raises Lost and Answered."""
        if not self.server.resources:
            return []
        held = await self._list(fresh=False)
        with held.use():
            return await held.session.read_pages(self.server)

    async def close(self) -> None:
        """End the connection, and the command that it leads to."""
        if self._held is not None:
            self._held.ended.set()
        if self._owners:
            for owner in self._owners:
                owner.cancel()
            await asyncio.wait(self._owners)

    def _check(self, pin: Pin, declared: Declaration | None) -> None:
        """Raises Conflict for a tool that is not declared as it was accepted."""
        if declared is None:
            raise Conflict(f"{self.server.name} does not offer {pin.name} any more")
        if declared != pin.declared:
            log.warning("outside.changed", server=self.server.name, tool=pin.name)
            raise Conflict(
                f"{self.server.name} has changed what {pin.name} is since it was accepted, so it is held back until "
                f"somebody accepts it with `agent-server mcp accept {self.server.name}`"
            )

    def _tell_late(self, pin: Pin, effect: Effect) -> str:
        late = "" if effect == "read" else "; it may have taken effect all the same"
        return f"{pin.name} took longer than {self.server.timeout:g} seconds and was stopped{late}"

    async def _list(self, *, fresh: bool) -> _Held:
        """A session on which the list of tools is known. It is made anew once where it has been lost. Raises Lost and
        Answered."""
        async with self._lock:
            for is_last in (False, True):
                held, is_new = (self._held, False) if self._held is not None else (await self._open(), True)
                if not (is_new or fresh or held.is_old):
                    return held
                try:
                    with held.use():
                        held.declared = await held.session.list_tools()
                except Lost:
                    self._retire(held)
                    if is_last or is_new:
                        raise
                    continue
                held.listed_at = time.monotonic()
                return held
        raise AssertionError("the last round returns or raises")

    async def _open(self) -> _Held:
        """Open a session. Raises Lost."""
        ready: asyncio.Future[_Held] = asyncio.get_running_loop().create_future()
        # Without what this call's context has: the session outlives it.
        owner = asyncio.create_task(self._own(ready), context=contextvars.Context())
        self._owners.add(owner)
        owner.add_done_callback(self._owners.discard)
        self._held = await asyncio.shield(ready)
        return self._held

    async def _own(self, ready: "asyncio.Future[_Held]") -> None:
        """Hold a session from its begin to its end, which the SDK wants to be in one task."""
        from agent_server.outside.session import open_session  # noqa: PLC0415  # heavy

        held: _Held | None = None
        try:
            async with open_session(self.server, self._root) as session:
                held = _Held(session, asyncio.Event())
                ready.set_result(held)
                await self._wait(held)
        except Exception as error:  # noqa: BLE001  # a group of whatever the SDK and the network raise: all of it means that the session is gone
            if not ready.done():
                ready.set_exception(error if isinstance(error, Lost) else Lost("it cannot be reached"))
            log.info("outside.lost", server=self.server.name, error=type(error).__name__)
        finally:
            if not ready.done():
                ready.set_exception(Lost("this server is stopping"))
            if held is None:
                ready.exception()  # whoever asked for it may have gone
            else:
                self._retire(held)

    async def _wait(self, held: _Held) -> None:
        """Return when a session is to end, which it is also when nobody has used it for a while."""
        while not held.ended.is_set():
            try:
                async with asyncio.timeout(self._idle_seconds):
                    await held.ended.wait()
            except TimeoutError:
                if not held.calls:
                    return

    def _retire(self, held: _Held) -> None:
        """Use a session for no further call. Those on it go on: it may be one answer alone that was lost."""
        held.retired = True
        held.end_if_unused()
        if self._held is held:
            self._held = None
