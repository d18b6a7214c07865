"""What a process calls tools with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from agent_server.calls.share import Shares
from agent_server.charts.drawing import Drawings
from agent_server.db import Database
from agent_server.identity.logins import SigningSecret
from agent_server.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What a process calls tools with."""

    settings: Settings
    database: Database
    resources: Mapping[type[Any], Any] = field(default_factory=dict)

    @cached_property
    def shares(self) -> Shares:
        """What callers' calls may take of this process's connections."""
        return Shares(self.database.pool_status()["size"], self.settings.database_pool_timeout)

    @cached_property
    def drawings(self) -> Drawings:
        """The pictures of charts that this process has drawn."""
        return Drawings()

    @cached_property
    def secret(self) -> SigningSecret:
        return SigningSecret(self.database)
