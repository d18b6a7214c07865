"""Postgres: one engine per process, one way to a transaction."""

from agent_server.db.database import Database, after_commit, is_full
from agent_server.db.types import SYSTEM, Owned, Shared, Timestamps, new_id, now, storable

__all__ = [
    "SYSTEM",
    "Database",
    "Owned",
    "Shared",
    "Timestamps",
    "after_commit",
    "is_full",
    "new_id",
    "now",
    "storable",
]
