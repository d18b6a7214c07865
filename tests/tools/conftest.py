"""The tools of slices, called the way every surface calls them.

`agent-server init --template` copies this file with the tests of a slice. So it needs nothing but `agent_server` and its
fixtures, and so do the tests in the folders beside it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server import Caller, Surface, Tool, new_id
from agent_server.calls.call import Runtime, call_tool
from agent_server.db import Database
from agent_server.settings import load_settings


@dataclass(frozen=True)
class Tools:
    """Calls as `caller`, in `conversation_id` if there is one."""

    runtime: Runtime
    caller: Caller
    surface: Surface = "rest"
    conversation_id: UUID | None = None

    async def __call__(self, tool: Tool[..., Any], **arguments: Any) -> Any:
        return await call_tool(
            self.runtime,
            tool,
            arguments,
            caller=self.caller,
            surface=self.surface,
            conversation_id=self.conversation_id,
        )

    def limited_to(self, *scopes: str) -> "Tools":
        return replace(self, caller=replace(self.caller, scopes=frozenset(scopes)))


_settings = cache(partial(load_settings, environment="test"))


@pytest.fixture
async def database(agent_database: str, anyio_backend: Any) -> AsyncIterator[Database]:
    """A database of this test's own, with the seeds and the content of the workspace."""
    database = Database(agent_database)
    yield database
    await database.close()


@asynccontextmanager
async def everything(database: Database) -> AsyncIterator[AsyncSession]:
    """A transaction of the user who owns the tables, to whom the rows of all callers are there."""
    async with AsyncSession(database.owner, expire_on_commit=False) as session, session.begin():
        yield session


@pytest.fixture
def me() -> Caller:
    return Caller(id=new_id(), kind="user", scopes=frozenset({"*"}))


@pytest.fixture
def other() -> Caller:
    return Caller(id=new_id(), kind="user", scopes=frozenset({"*"}))


@pytest.fixture
def runtime(database: Database) -> Runtime:
    return Runtime(settings=_settings(), database=database)


@pytest.fixture
def mine(runtime: Runtime, me: Caller) -> Tools:
    return Tools(runtime, me)


@pytest.fixture
def theirs(runtime: Runtime, other: Caller) -> Tools:
    return Tools(runtime, other)
