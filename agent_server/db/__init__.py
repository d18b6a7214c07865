"""Postgres: one engine per process, one way to a transaction."""

from agent_server.db.database import Database
from agent_server.db.types import SYSTEM, Owned, Shared, Timestamps, new_id, now, storable

__all__ = ["SYSTEM", "Database", "Owned", "Shared", "Timestamps", "new_id", "now", "storable"]
