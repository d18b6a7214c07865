"""Public API of the engine: what a workspace may import."""

from agent_server.audit import Surface
from agent_server.db import Owned, Shared, Timestamps, new_id, now
from agent_server.errors import (
    AgentServerError,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    TooMany,
    Unavailable,
)
from agent_server.identity import Caller
from agent_server.identity.profiles import read_profile, update_profile
from agent_server.repository import Page, Repository
from agent_server.seed import SeedFile
from agent_server.tool import Effect, Tool, ToolContext, tool

__version__ = "0.1.0"

__all__ = [
    "AgentServerError",
    "Caller",
    "Conflict",
    "Effect",
    "Forbidden",
    "InvalidInput",
    "NotFound",
    "Owned",
    "Page",
    "Repository",
    "SeedFile",
    "Shared",
    "Surface",
    "Timestamps",
    "TooMany",
    "Tool",
    "ToolContext",
    "Unavailable",
    "new_id",
    "now",
    "read_profile",
    "tool",
    "update_profile",
]
