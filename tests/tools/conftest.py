"""The reference workspace's tools, called the way every surface calls them."""

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any
from uuid import UUID

import pytest

from agent_server import Caller, Surface, Tool
from agent_server.calls.call import Runtime, call_tool
from agent_server.db import Database
from agent_server.seed import SeedReport, load_seeds
from agent_server.settings import load_settings
from tools.diving import destinations, sites

SEEDS = (destinations.seed, sites.seed)


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
def runtime(database: Database) -> Runtime:
    return Runtime(settings=_settings(), database=database)


@pytest.fixture
def mine(runtime: Runtime, me: Caller) -> Tools:
    return Tools(runtime, me)


@pytest.fixture
def theirs(runtime: Runtime, other: Caller) -> Tools:
    return Tools(runtime, other)


@pytest.fixture
async def seeded(runtime: Runtime) -> SeedReport:
    """What the first load of the reference data wrote."""
    return await load_seeds(runtime.database, SEEDS)
