"""A server that is started as a command, with a bound for all that it writes.

It gets a few variables of the environment and those that mcp.yaml names, and nothing else of this process: no key of a
model and no address of a database. What it writes to standard error is read and dropped, but for its end.
"""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from agent_server.outside.http import MOST_BYTES, MOST_EVENTS
from agent_server.outside.servers import OutsideServer

_GRACE_SECONDS = 2.0
"""How long a command may take to end after its input has, and after it was told to."""
_READ_SECONDS = 0.2
_HEARD = "notifications/tools/list_changed", "notifications/progress"
_REQUEST_COUNTS = 100
"""As many messages as a request of the server's counts."""
_KEPT_ERRORS = 20


class Errors:
    """The last lines that a command wrote to standard error."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_KEPT_ERRORS)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@asynccontextmanager
async def open_command(
    server: OutsideServer, environment: Mapping[str, str], folder: Path, errors: Errors
) -> AsyncIterator[Any]:
    """The streams of messages from and to a command. Raises OSError where it cannot be started."""
    assert server.command is not None
    process = await asyncio.create_subprocess_exec(
        *server.command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**get_default_environment(), **environment},
        cwd=folder,
        start_new_session=True,  # a signal to its group reaches what it has started, and one to ours not it
        limit=MOST_BYTES,
    )
    send, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_send, sent = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = [
        asyncio.create_task(_read(process, send)),
        asyncio.create_task(_write(process, sent, send)),
        asyncio.create_task(_drain(process, errors)),
    ]
    try:
        yield received, to_send
    finally:
        for stream in (received, to_send, send, sent):
            stream.close()
        with anyio.CancelScope(shield=True):
            await _stop(process)
            await asyncio.wait(tasks, timeout=_READ_SECONDS)  # what it wrote last says why it ended
            process._transport.close()  # type: ignore[attr-defined]  # as the SDK does: else its pipes warn when collected
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _read(process: asyncio.subprocess.Process, send: Any) -> None:
    """Hand on what the command writes, a message a line, until it writes too much."""
    assert process.stdout is not None
    size = messages = 0
    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, ConnectionError):
        async with send:
            while True:
                try:
                    line = await process.stdout.readuntil(b"\n")
                except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
                    return
                size, messages = size + len(line), messages + 1
                if size > 4 * MOST_BYTES or messages > MOST_EVENTS:
                    return
                try:
                    message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    continue  # many programs write a greeting; a request that gets no answer has its time limit
                if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
                    size = messages = 0
                elif isinstance(message, types.JSONRPCNotification) and message.method not in _HEARD:
                    continue
                elif isinstance(message, types.JSONRPCRequest):
                    messages += _REQUEST_COUNTS  # each is refused, and to write that takes its time
                await send.send(SessionMessage(message))


async def _write(process: asyncio.subprocess.Process, sent: Any, send: Any) -> None:
    assert process.stdin is not None
    try:
        async for each in sent:
            line = each.message.model_dump_json(by_alias=True, exclude_unset=True)
            process.stdin.write(f"{line}\n".encode())
            await process.stdin.drain()
    except (OSError, RuntimeError):
        send.close()  # whoever waits for an answer must learn that none will come


async def _drain(process: asyncio.subprocess.Process, errors: Errors) -> None:
    assert process.stderr is not None
    while chunk := await process.stderr.read(65_536):
        errors.lines.extend(chunk[-4_000:].decode(errors="replace").splitlines())


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End the command as the protocol has it: its input, then a signal, then the other one."""
    assert process.stdin is not None
    process.stdin.close()
    for send_signal in (None, signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        if send_signal is not None:
            _signal(process, send_signal)
        with suppress(TimeoutError):
            # Not `wait`, which waits for its pipes as well: what it has started may hold them.
            async with asyncio.timeout(_GRACE_SECONDS):
                while process.returncode is None:  # noqa: ASYNC110  # there is no event for this
                    await asyncio.sleep(0.01)
            break


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    """Signal the command and what it has started. It has not ended: its number is not another's yet."""
    with suppress(ProcessLookupError, PermissionError):
        if sys.platform != "win32":
            os.killpg(process.pid, number)
        else:
            process.terminate()
