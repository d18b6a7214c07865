"""Clients that ask one question after the other, over connections that stay open, and read each answer to its end."""

import asyncio
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bench.model import FIRST, LAST

LENGTH = 10
"""Turns of a conversation; the next turn begins another one."""
PATIENCE = 600
"""Seconds after which a turn that has not ended counts as an error; being told to come again is among them."""
QUESTION = "How do I reset the password of my account? I tried the link in the mail and it did not work."
_CONVERSATION = re.compile(rb'"conversationId":"([^"]+)"')


@dataclass
class Load:
    """What clients have seen. Times are seconds, `first_texts` those from a request to the first word of its answer;
    `refused` counts the answers that said to come again."""

    clients: int
    turns: int = 0
    seconds: float = 0.0
    refused: int = 0
    size: int = 0
    first_texts: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class _Refused(Exception):
    """The server is busy; `seconds` is how long it says to stay away."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


async def ask(address: str, keys: Sequence[str], *, clients: int, turns: int) -> Load:
    """Have so many clients, who share the keys, ask so many questions in all."""
    load, left = Load(clients), iter(range(turns))
    began = time.monotonic()
    all_of_them = [_Client(address, keys[i % len(keys)], load) for i in range(min(clients, turns))]
    await asyncio.gather(*(client.stay(left) for client in all_of_them))
    load.seconds = time.monotonic() - began
    return load


async def ask_in(address: str, key: str, conversation: str | None) -> tuple[str, int]:
    """One turn in a conversation, or in a new one: which it is, and the bytes of the answer. Raises RuntimeError."""
    load = Load(1)
    client = _Client(address, key, load)
    client.conversation = conversation
    await client.stay(iter(range(1)))
    if load.errors or client.conversation is None:
        raise RuntimeError(f"A turn failed: {load.errors}")
    return client.conversation, load.size


class _Client:
    """One client, on one connection at a time."""

    def __init__(self, address: str, key: str, load: Load) -> None:
        where = urlsplit(address)
        self._host, self._port = where.hostname or "", where.port or 80
        self._key, self._load = key, load
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.conversation: str | None = None

    async def stay(self, left: Iterator[int]) -> None:
        for number, _ in enumerate(left):
            if number and number % LENGTH == 0:
                self.conversation = None
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._ask()
            except (OSError, TimeoutError, asyncio.IncompleteReadError, RuntimeError) as error:
                self._load.errors.append(repr(error)[:300])
                self.conversation = None
                self._close()
        self._close()

    async def _ask(self) -> None:
        while True:
            try:
                return await self._turn()
            except _Refused as refusal:
                self._load.refused += 1
                self._close()
                await asyncio.sleep(refusal.seconds)

    async def _turn(self) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        began, first = time.monotonic(), None
        writer.write(self._request())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b" 503 " in head[:14] or b" 429 " in head[:14]:
            again = re.search(rb"retry-after: (\d+)", head)
            raise _Refused(float(again[1]) if again else 1.0)
        if b" 200 " not in head[:14]:
            raise RuntimeError(head.decode(errors="replace"))
        body = b""
        while not body.endswith(b"\r\n0\r\n\r\n"):
            part = await reader.read(1 << 16)
            if not part:
                raise RuntimeError("the answer broke off")
            body += part
            if first is None and FIRST.encode() in body:
                first = time.monotonic() - began
        if first is None or LAST.encode() not in body:
            raise RuntimeError(f"the answer has no text: {body[-200:]!r}")
        if found := _CONVERSATION.search(body):
            self.conversation = found[1].decode()
        self._load.turns += 1
        self._load.size += len(body)
        self._load.first_texts.append(first)

    def _request(self) -> bytes:
        named = {"id": self.conversation} if self.conversation else {}
        body = json.dumps({"message": QUESTION, **named}).encode()
        head = (
            f"POST /api/chat HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def _close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
