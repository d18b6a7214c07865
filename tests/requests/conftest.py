"""What providers were sent, to the byte."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import pytest

from agent_server.models.lean.wire import Incoming
from agent_server.testing.wire import InProcess


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bodies of all requests to scripted models, in order."""
    sent: list[bytes] = []
    send = InProcess.send

    @asynccontextmanager
    async def keep(
        self: InProcess, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncGenerator[Incoming]:
        sent.append(body or b"")
        async with send(self, method, url, headers, body) as incoming:
            yield incoming

    monkeypatch.setattr(InProcess, "send", keep)  # the double of the network
    return sent
