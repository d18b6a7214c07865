"""Postgres: one engine per process, one way to a transaction."""

from agent_server.db.database import Database, after_commit
from agent_server.db.outages import DatabaseAway, busy_database, is_deadlock, is_full
from agent_server.db.pool import be_patient, keep_promise, patience
from agent_server.db.quick import Executor
from agent_server.db.sweep import Swept, What, remove_swept, sweep, sweep_held, sweep_turns
from agent_server.db.types import (
    OUT_OF_REACH,
    OWN_DATA,
    SYSTEM,
    Owned,
    RowPolicy,
    Shared,
    Submitted,
    Timestamps,
    new_id,
    now,
    storable,
    submission_policy,
)

__all__ = [
    "OUT_OF_REACH",
    "OWN_DATA",
    "SYSTEM",
    "Database",
    "DatabaseAway",
    "Executor",
    "Owned",
    "RowPolicy",
    "Shared",
    "Submitted",
    "Swept",
    "Timestamps",
    "What",
    "after_commit",
    "be_patient",
    "busy_database",
    "is_deadlock",
    "is_full",
    "keep_promise",
    "new_id",
    "now",
    "patience",
    "remove_swept",
    "storable",
    "submission_policy",
    "sweep",
    "sweep_held",
    "sweep_turns",
]
