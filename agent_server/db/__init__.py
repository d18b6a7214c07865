"""Postgres: one engine per process, one way to a transaction."""

from agent_server.db.database import Database, DatabaseAway, after_commit, is_full
from agent_server.db.sweep import Swept, What, remove_swept, sweep
from agent_server.db.types import (
    OWN_DATA,
    SYSTEM,
    Access,
    Owned,
    Shared,
    Submitted,
    Timestamps,
    new_id,
    now,
    storable,
    submitted,
)

__all__ = [
    "OWN_DATA",
    "SYSTEM",
    "Access",
    "Database",
    "DatabaseAway",
    "Owned",
    "Shared",
    "Submitted",
    "Swept",
    "Timestamps",
    "What",
    "after_commit",
    "is_full",
    "new_id",
    "now",
    "remove_swept",
    "storable",
    "submitted",
    "sweep",
]
