"""A server of the reference workspace with two users, and what they do with documents."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.server import Client, Start

LOCKER = "# Locker\n\nThe code of my blue locker at the harbour is 4711. Nobody else may know it.\n"


@dataclass
class Person:
    """Somebody who calls a server by REST with a key of their own."""

    client: Client
    key: str

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    async def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.client.http.request(method, path, headers=self.auth, **more)

    async def add(self, name: str, content: str | bytes) -> httpx.Response:
        return await self.send("POST", "/api/documents", params={"name": name}, content=content)

    async def list(self) -> list[dict[str, Any]]:
        response = await self.send("GET", "/api/documents")
        assert response.status_code == 200, response.text
        items: list[dict[str, Any]] = response.json()["items"]
        return items

    async def call(self, tool: str, **arguments: Any) -> Any:
        return (await self.send("POST", f"/api/tools/{tool}", json=arguments)).json()

    async def ask(self, message: str) -> dict[str, Any]:
        response = await self.send("POST", "/api/chat", json={"message": message, "stream": False})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


@pytest.fixture
async def client(start: Start) -> AsyncIterator[Client]:
    async with start() as client:
        yield client


@pytest.fixture
def ann(client: Client) -> Person:
    return Person(client, client.key)


@pytest.fixture
async def ben(client: Client) -> Person:
    return Person(client, await client.new_key("*"))
