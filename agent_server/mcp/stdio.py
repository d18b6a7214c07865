"""MCP over standard input and output: one message a line.

The SDK drops in silence what it cannot read as a message, and the client waits for its answer for ever. Such a line is
answered here, by the `id` that it has, and not handed on.
"""

import asyncio
import json
import os
import re
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from pydantic import ValidationError
from pydantic_core import from_json

from agent_server.errors import LONGEST_VALUE, cut
from agent_server.log import without_secrets

_WORD = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},:]|[^\s"\[\]{},:]++', re.DOTALL)

FINISH_SECONDS = 30.0
"""How long what was asked may still take when the input has ended."""
_ENDLESS = frozenset({"subscriptions/listen"})
"""Requests that are answered as long as the client listens."""
_READ_AHEAD, _CHUNK = 100, 65_536


class _Refusal(types.JSONRPCError):
    """The answer to what is no message. Its `id` is as it was sent, whatever that is."""

    id: Any


Answer = Callable[[SessionMessage], Awaitable[None]]


class _Lines:
    """The lines of `lines` that are messages. To the others `answer` is given a refusal.

    They end when the input has ended and every request in it is answered, or `FINISH_SECONDS` later.
    """

    def __init__(self, lines: AsyncIterable[str]) -> None:
        self._lines = lines
        self._open: set[str] = set()
        self._none = asyncio.Event()
        self.answer: Answer | None = None

    async def __aiter__(self) -> AsyncIterator[str]:
        async for line in self._lines:
            refusals = list(_find_refusals(line)) if line.strip() else []
            for refusal in refusals:
                assert self.answer is not None, "nothing is read before there is a way to answer"
                await self.answer(SessionMessage(refusal))
            if not refusals and line.strip():
                self._note(from_json(line, allow_inf_nan=False))
                yield line
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                while self._open:
                    self._none.clear()
                    await self._none.wait()

    def _note(self, message: Any) -> None:
        match message:
            case {"method": method, "id": id} if method not in _ENDLESS:
                self._open.add(json.dumps(id))
            case {"method": "notifications/cancelled", "params": {"requestId": id}}:
                self.settle(id)

    def settle(self, id: Any) -> None:
        """Wait for the answer to this request no more."""
        self._open.discard(json.dumps(id))
        self._none.set()


class _Answers:
    """The stream of what is sent, which tells `lines` of each answer."""

    def __init__(self, stream: Any, lines: _Lines) -> None:
        self._stream, self._lines = stream, lines

    async def send(self, item: SessionMessage, /) -> None:
        await self._stream.send(item)
        if isinstance(item.message, types.JSONRPCResponse | types.JSONRPCError):
            self._lines.settle(item.message.id)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> "_Answers":
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self._stream.__aexit__(*exc)


async def serve_stdio(server: Server) -> None:
    """Serve one client over standard input and output until it closes them, and answer what it has asked until then.

    Meanwhile both belong to the protocol: a tool finds nothing to read, and what it prints goes to standard error.
    """
    with _take_input() as lines:
        messages = _Lines(lines)
        async with stdio_server(messages) as (read, write):  # type: ignore[arg-type]  # it only iterates
            messages.answer = write.send
            answers: Any = _Answers(write, messages)
            await server.run(read, answers, server.create_initialization_options())


@contextmanager
def _take_input() -> Iterator[AsyncIterable[str]]:
    """Standard input, where meanwhile there is nothing to read."""
    wire, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    try:
        # Not closed: a thread may still be waiting for a line when the server ends.
        yield _read_lines(wire)
    finally:
        os.dup2(wire, 0)


async def _read_lines(wire: int) -> AsyncIterator[str]:
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[bytes | None](_READ_AHEAD)

    def put(line: bytes | None) -> None:
        # It waits for room: a client must not fill the memory with what nobody has answered.
        asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()

    def read() -> None:
        rest = b""
        with suppress(RuntimeError, CancelledError):  # the loop has ended meanwhile
            while chunk := os.read(wire, _CHUNK):
                *whole, rest = (rest + chunk).split(b"\n") if b"\n" in chunk else (rest + chunk,)
                for line in whole:
                    put(line)
            if rest:
                put(rest)
            put(None)

    # A daemon, and none of the loop's: a thread that waits for input cannot be stopped, and would hold Ctrl-C up.
    threading.Thread(target=read, name="stdin", daemon=True).start()
    while (line := await lines.get()) is not None:
        yield line.decode("utf-8", "replace")


def _find_refusals(line: str) -> Iterator[_Refusal]:
    """What is to be answered to a line that the SDK would drop, in whole or in part."""
    try:
        message = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        yield _refuse(_scan_id(line), types.PARSE_ERROR, f"not JSON: {error}")
        return
    if isinstance(message, list):
        yield from _refuse_batch(message)
    elif not isinstance(message, dict):
        yield _refuse(None, types.INVALID_REQUEST, "a message is one JSON object")
    # Without an id nobody waits for an answer, and one with a result is an answer itself.
    elif "id" in message and ("method" in message or not message.keys() & {"result", "error"}):
        try:
            types.JSONRPCRequest.model_validate(message, by_name=False)
        except ValidationError as error:
            wrong = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in wrong["loc"])
            yield _refuse(message["id"], types.INVALID_REQUEST, f"{where}: {wrong['msg']}")


def _refuse_batch(messages: list[Any]) -> Iterator[_Refusal]:
    ids = [each["id"] for each in messages if isinstance(each, dict) and "id" in each and "method" in each]
    for id in ids or [None]:
        yield _refuse(id, types.INVALID_REQUEST, "there are no batches; send one message a line")


def _refuse(id: Any, code: int, message: str) -> _Refusal:
    text = without_secrets(cut(message, LONGEST_VALUE))
    return _Refusal(jsonrpc="2.0", id=id, error=types.ErrorData(code=code, message=text))


def _scan_id(text: str) -> Any:
    """The `id` of an object that cannot be parsed as a whole. None where none is found."""
    depth, last, is_key = 0, "", False
    for match in _WORD.finditer(text):
        word = match[0]
        if is_key:
            try:
                return from_json(word, allow_inf_nan=False) if word not in "[{" else None
            except ValueError:  # it is what is broken
                return None
        is_key = depth == 1 and word == ":" and last == '"id"'
        depth += (word in ("{", "[")) - (word in ("}", "]"))
        last = word
    return None
