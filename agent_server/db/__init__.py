"""Postgres: one engine per process, one way to a transaction.

Names are looked up when first asked for: who declares a table must not import the way to the database.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_server.db.database import Database as Database
    from agent_server.db.database import after_commit as after_commit
    from agent_server.db.executor import Executor as Executor
    from agent_server.db.outages import BROKEN as BROKEN
    from agent_server.db.outages import DatabaseAway as DatabaseAway
    from agent_server.db.outages import busy_database as busy_database
    from agent_server.db.outages import is_deadlock as is_deadlock
    from agent_server.db.outages import is_full as is_full
    from agent_server.db.pool import be_patient as be_patient
    from agent_server.db.pool import keep_promise as keep_promise
    from agent_server.db.pool import patience as patience
    from agent_server.db.types import DERIVED as DERIVED
    from agent_server.db.types import OUT_OF_REACH as OUT_OF_REACH
    from agent_server.db.types import OWN_DATA as OWN_DATA
    from agent_server.db.types import PURGE as PURGE
    from agent_server.db.types import SYSTEM as SYSTEM
    from agent_server.db.types import Audited as Audited
    from agent_server.db.types import Owned as Owned
    from agent_server.db.types import RowPolicy as RowPolicy
    from agent_server.db.types import Shared as Shared
    from agent_server.db.types import SoftDeleted as SoftDeleted
    from agent_server.db.types import Submitted as Submitted
    from agent_server.db.types import Supervised as Supervised
    from agent_server.db.types import Timestamps as Timestamps
    from agent_server.db.types import Versioned as Versioned
    from agent_server.db.types import new_id as new_id
    from agent_server.db.types import now as now
    from agent_server.db.types import storable as storable
    from agent_server.db.types import submission_policy as submission_policy
    from agent_server.db.types import supervision_policy as supervision_policy

_HOME = {
    "PURGE": "agent_server.db.types",
    "supervision_policy": "agent_server.db.types",
    "Supervised": "agent_server.db.types",
    "SoftDeleted": "agent_server.db.types",
    "Versioned": "agent_server.db.types",
    "Audited": "agent_server.db.types",
    "Database": "agent_server.db.database",
    "BROKEN": "agent_server.db.outages",
    "DERIVED": "agent_server.db.types",
    "DatabaseAway": "agent_server.db.outages",
    "Executor": "agent_server.db.executor",
    "OUT_OF_REACH": "agent_server.db.types",
    "OWN_DATA": "agent_server.db.types",
    "Owned": "agent_server.db.types",
    "RowPolicy": "agent_server.db.types",
    "SYSTEM": "agent_server.db.types",
    "Shared": "agent_server.db.types",
    "Submitted": "agent_server.db.types",
    "Timestamps": "agent_server.db.types",
    "after_commit": "agent_server.db.database",
    "be_patient": "agent_server.db.pool",
    "busy_database": "agent_server.db.outages",
    "is_deadlock": "agent_server.db.outages",
    "is_full": "agent_server.db.outages",
    "keep_promise": "agent_server.db.pool",
    "new_id": "agent_server.db.types",
    "now": "agent_server.db.types",
    "patience": "agent_server.db.pool",
    "storable": "agent_server.db.types",
    "submission_policy": "agent_server.db.types",
}
__all__ = [
    "DERIVED",
    "OUT_OF_REACH",
    "OWN_DATA",
    "PURGE",
    "SYSTEM",
    "Audited",
    "Database",
    "DatabaseAway",
    "Executor",
    "Owned",
    "RowPolicy",
    "Shared",
    "SoftDeleted",
    "Submitted",
    "Supervised",
    "Timestamps",
    "Versioned",
    "after_commit",
    "be_patient",
    "busy_database",
    "is_deadlock",
    "is_full",
    "keep_promise",
    "new_id",
    "now",
    "patience",
    "storable",
    "submission_policy",
    "supervision_policy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"agent_server.db has no {name!r}; it has {', '.join(_HOME)}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value
