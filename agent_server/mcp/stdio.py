"""MCP over standard input and output: one message a line.

The SDK drops in silence what it cannot read as a message, and the client waits for its answer for ever. Such a line is
answered here, by the `id` that it has, and not handed on.
"""

import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from pydantic import ValidationError
from pydantic_core import from_json

from agent_server.errors import LONGEST_VALUE, cut
from agent_server.log import without_secrets

_WORD = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},:]|[^\s"\[\]{},:]++', re.DOTALL)


class _Refusal(types.JSONRPCError):
    """The answer to what is no message. Its `id` is as it was sent, whatever that is."""

    id: Any


Answer = Callable[[SessionMessage], Awaitable[None]]


class _Lines:
    """The lines of `lines` that are messages. To the others `answer` is given a refusal."""

    def __init__(self, lines: AsyncIterable[str]) -> None:
        self._lines = lines
        self.answer: Answer | None = None

    async def __aiter__(self) -> AsyncIterator[str]:
        async for line in self._lines:
            refusals = list(_find_refusals(line)) if line.strip() else []
            for refusal in refusals:
                assert self.answer is not None, "nothing is read before there is a way to answer"
                await self.answer(SessionMessage(refusal))
            if not refusals and line.strip():
                yield line


async def serve_stdio(server: Server) -> None:
    """Serve one client over standard input and output until it closes them.

    Meanwhile both belong to the protocol: a tool finds nothing to read, and what it prints goes to standard error.
    """
    with _take_input() as lines:
        messages = _Lines(lines)
        async with stdio_server(messages) as (read, write):  # type: ignore[arg-type]  # it only iterates
            messages.answer = write.send
            await server.run(read, write, server.create_initialization_options())


@contextmanager
def _take_input() -> Iterator[AsyncIterable[str]]:
    """Standard input, where meanwhile there is nothing to read."""
    wire, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    try:
        # Not closed: a thread may still be waiting for a line when the server ends.
        yield anyio.wrap_file(os.fdopen(wire, encoding="utf-8", errors="replace", closefd=False))
    finally:
        os.dup2(wire, 0)


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
