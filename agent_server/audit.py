"""Who did what, on which surface, with what outcome; append-only."""

import re
from collections.abc import Collection
from datetime import datetime
from typing import Any, ClassVar, Literal
from uuid import UUID

from sqlalchemy import DateTime, Index, func, insert, text
from sqlmodel import Field, SQLModel, col, select

from agent_server.caller import Caller
from agent_server.db import Owned, RowPolicy, new_id, now, send_with_commit
from agent_server.repository import Repository

Surface = Literal["agent", "mcp", "rest", "cli"]


class Audit(Owned, table=True):
    """One act of the caller `owner_id`.

    `action` is a tool's name, or another act (`auth.login`), `outcome` is `ok` or an error code.
    """

    # No arguments, no results, no names: when a caller is erased, its id here stands for nobody.

    row_policy: ClassVar[RowPolicy] = RowPolicy(append_only=True, read_scope="audit:read")

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_owner_at", "owner_id", "at"),)

    at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    caller_kind: str
    surface: str
    action: str
    outcome: str
    latency_ms: float
    conversation_id: UUID | None = None
    turn_id: UUID | None = None
    request_id: str | None = None


TIMES_OF_TURN = text("""
    select action, latency_ms from audit where owner_id = :owner_id and turn_id = :id and surface = 'agent' order by at""")
"""How long each call of a tool took that agents made in a turn."""
_RECORD = insert(SQLModel.metadata.tables[Audit.__tablename__])


_PLAIN = re.compile(r"[\w.:+ -]*", re.ASCII)


def _literal(value: UUID | datetime | str | float | None) -> str | None:
    """A value as SQL. None for a text that would have to be escaped."""
    match value:
        case None:
            return "null"
        case float() | int():
            return repr(value)
        case _:
            return f"'{value}'" if _PLAIN.fullmatch(str(value)) else None


def insert_acts(of: str) -> str:
    """SQL that adds the acts in the parameter `new_acts`, a list of `act_json`, of the owner in the one row of `of`."""
    return f"""
        insert into audit (owner_id, id, at, caller_kind, surface, action, outcome, latency_ms, conversation_id, turn_id,
                           request_id)
        select o.owner_id, a.id, a.at, a.caller_kind, a.surface, a.action, a.outcome, a.latency_ms, a.conversation_id,
               a.turn_id, a.request_id
        from {of} o cross join jsonb_to_recordset(cast(:new_acts as jsonb))
            as a(id uuid, at timestamptz, caller_kind text, surface text, action text, outcome text, latency_ms float,
                 conversation_id uuid, turn_id uuid, request_id text)"""  # noqa: S608  # SQL of our own


def act_json(caller: Caller, **columns: Any) -> dict[str, Any]:
    """An act of the caller's for `insert_acts`."""
    act = {"id": new_id(), "at": now().isoformat(), "caller_kind": caller.kind, **columns}
    return {name: str(value) if isinstance(value, UUID) else value for name, value in act.items()}


class AuditRepository(Repository[Audit]):
    model = Audit

    async def record(self, **columns: Any) -> None:
        """Add a row."""
        # A plain insert costs a fraction of what `add` does, and each call of a tool makes one.
        row = {"owner_id": self.owner, "id": new_id(), "at": now(), "caller_kind": self.caller.kind, **columns}
        await self.session.execute(_RECORD, row)

    async def record_last(self, **columns: Any) -> None:
        """Add a row as the last thing of the transaction: it is sent with the commit."""
        row = {"owner_id": self.owner, "id": new_id(), "at": now(), "caller_kind": self.caller.kind, **columns}
        values = [_literal(value) for value in row.values()]
        insert = f"insert into audit ({', '.join(row)}) values ({', '.join(filter(None, values))})"  # noqa: S608  # names of ours
        if None in values or not send_with_commit(self.session, insert):
            await self.session.execute(_RECORD, row)

    async def find_latest(
        self, conversation_id: UUID, actions: Collection[str], *, surface: Surface, since: datetime
    ) -> dict[str, datetime]:
        """When each of these acts last went well in a conversation, after `since`."""
        statement = (
            select(Audit.action, func.max(Audit.at).label("latest"))
            .where(
                col(Audit.owner_id) == self.owner,
                col(Audit.at) > since,
                col(Audit.conversation_id) == conversation_id,
                col(Audit.surface) == surface,
                col(Audit.action).in_(actions),
                col(Audit.outcome) == "ok",
            )
            .group_by(col(Audit.action))
        )
        return {row.action: row.latest for row in (await self.session.execute(statement)).all()}
