"""What is kept of changes to rows: their versions, what changed in each, and who did it when.

A repository has its session stamp what is written, so that it is right however a tool changes a row. Statements that
change rows past the session (`update(...)`) are not stamped.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from pydantic_core import to_jsonable_python
from sqlalchemy import event, inspect
from sqlalchemy.orm import InstanceState, Session
from sqlmodel import SQLModel

from agent_server.caller import Caller
from agent_server.db import Audited, Versioned, now, storable
from agent_server.errors import Conflict, InvalidInput, cut

KEPT = 20
"""Changes that a row keeps."""
LONGEST_KEPT = 200
"""Characters of a value that a change keeps."""
LONGEST_SHOWN = 60
_CALLER = "agent_server.records.caller"
_STAMPS = frozenset({"created_at", "created_by", "updated_at", "updated_by"})
_BOOKKEEPING = frozenset({"version", "changes"})


def stamp_changes(session: Session, caller: Caller) -> None:
    """Have a session set versions and audit columns when it writes, for `caller`.

    Raises ValueError where it does so for another: a transaction is one caller's.
    """
    if _CALLER not in session.info:
        session.info[_CALLER] = caller
        event.listen(session, "before_flush", _stamp)
    elif session.info[_CALLER].id != caller.id:
        raise ValueError("the session writes for another caller; begin a transaction for each")


def _stamp(session: Session, *_: Any) -> None:
    by = session.info[_CALLER].id
    for row in session.new:
        _stamp_added(row, by)
    for row in session.dirty:
        if session.is_modified(row):
            _stamp_changed(row, by)


def _stamp_added(row: Any, by: UUID) -> None:
    if isinstance(row, Audited):
        row.created_at = row.updated_at = now()
        row.created_by = row.updated_by = by
    if isinstance(row, Versioned):
        row.version, row.changes = 1, []


def _stamp_changed(row: Any, by: UUID) -> None:
    if not isinstance(row, Audited | Versioned):
        return
    fields = dict(_changed_fields(row))
    if not_ours := sorted(fields.keys() & (_kept_columns(row))):
        raise ValueError(f"{', '.join(not_ours)}: the repository sets this; leave it out")
    at = now()
    if isinstance(row, Audited):
        row.updated_at, row.updated_by = at, by
    if isinstance(row, Versioned):
        row.version += 1
        who: dict[str, str] = {"at": at.isoformat(), "by": str(by)} if isinstance(row, Audited) else {}
        row.changes = [*row.changes, {"version": row.version, **who, "fields": fields}][-KEPT:]


def _kept_columns(row: Any) -> frozenset[str]:
    stamps = _STAMPS if isinstance(row, Audited) else frozenset[str]()
    return stamps | _BOOKKEEPING if isinstance(row, Versioned) else stamps


def _changed_fields(row: SQLModel) -> Iterator[tuple[str, list[Any]]]:
    """Each column that was set to something else, with what it was and what it is."""
    state: InstanceState[Any] = inspect(row)
    for attribute in state.mapper.column_attrs:
        history = state.attrs[attribute.key].history
        if history.has_changes():
            old, new = (values[0] if values else None for values in (history.deleted, history.added))
            yield attribute.key, [_keep(old), _keep(new)]


def _keep(value: Any) -> Any:
    """A value as a change keeps it: ready for JSON, and short."""
    plain = storable(to_jsonable_python(value, bytes_mode="base64", fallback=str))
    written = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    return plain if len(written) <= LONGEST_KEPT else cut(written, LONGEST_KEPT)


def check_version(row: Versioned, version: int, caller: Caller) -> None:
    """Whether `version`, which the caller has seen, is the row's. Raises Conflict that says what has changed since, and
    InvalidInput for one that there never was."""
    noun = type(row).__name__.lower()
    if not 1 <= version <= row.version:
        raise InvalidInput(f"version: there is no version {version}; the {noun} is at version {row.version}")
    if version < row.version:
        raise Conflict(
            f"The {noun} has changed since version {version} and is at version {row.version} now; look whether your "
            f"change still fits and send it again with version {row.version}. {_describe(row, version, caller)}"
        )


def _describe(row: Versioned, version: int, caller: Caller) -> str:
    """What is otherwise than in `version`, as far as it is kept."""
    since = [change for change in row.changes if change["version"] > version]
    fields: dict[str, tuple[Any, Any, Mapping[str, Any]]] = {}
    for change in since:
        for name, (old, new) in change["fields"].items():
            fields[name] = (fields.get(name, (old,))[0], new, change)
    told = [
        f"{name} from {_show(old)} to {_show(new)}{_who(change, caller)}"
        for name, (old, new, change) in fields.items()
        if old != new
    ]
    more = " (changes before these are not kept)" if len(since) < row.version - version else ""
    return f"What changed: {'; '.join(told) or 'nothing that is left of it'}{more}"


def _show(value: Any) -> str:
    return cut(json.dumps(value, ensure_ascii=False), LONGEST_SHOWN)


def _who(change: Mapping[str, Any], caller: Caller) -> str:
    if "by" not in change:
        return ""
    by = "you" if change["by"] == str(caller.id) else change["by"]
    return f", by {by} at {change['at'][:16]} UTC"
