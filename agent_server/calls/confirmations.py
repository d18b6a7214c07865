"""What a user is asked before something is lost for good. Each answer counts once.

asked       the call is recorded as not made, with its question, in one transaction
answered    the row is marked and the call made in one transaction; where its effect is outside our database, the
            row is marked first, so that two answers at once never make it twice
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import DateTime, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field

from agent_server.audit import Surface
from agent_server.caller import Caller
from agent_server.db import Database, Owned, now
from agent_server.errors import Conflict, NotFound
from agent_server.repository import Repository
from agent_server.tool import Tool

Asker = Literal["row", "client", "terminal", "nobody"]

ASKERS: Mapping[Surface, Asker] = {
    # A model may have been talked into the call, and its user may be away: a row waits for their word.
    "agent": "row",
    # Where the client can ask. Others are told by `destructiveHint` to ask by themselves, and their calls are made.
    "mcp": "client",
    # Whoever writes a program has decided.
    "rest": "nobody",
    "cli": "terminal",
}
"""Who asks the caller, on each surface, before something is lost for good."""

LASTS = timedelta(minutes=15)
_SHOWN = 80
"""Longest value in a question, characters; `arguments` has it whole."""


def find_asker(tool: Tool[..., Any], surface: Surface) -> Asker:
    """Who asks before this tool is called on this surface."""
    return ASKERS[surface] if tool.destructive else "nobody"


class Confirmation(Owned, table=True):
    """A call of a destructive tool that waits for its caller's word until `expires_at`. `used_at` is when it was given,
    and `confirmed` what it was."""

    __tablename__ = "confirmation"

    tool: str
    arguments: dict[str, Any] = Field(sa_type=JSONB)
    conversation_id: UUID | None = None
    turn_id: UUID | None = None
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    expires_at: datetime = Field(sa_type=DateTime(timezone=True))
    used_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    confirmed: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """A confirmation as clients are asked for it. `expires_at` is ISO 8601."""

    id: str
    tool: str
    title: str
    arguments: dict[str, Any]
    question: str
    expires_at: str


def question_of(row: Confirmation, title: str) -> Question:
    """`title` is the tool's name for people."""
    return Question(
        id=str(row.id),
        tool=row.tool,
        title=title,
        arguments=row.arguments,
        question=word_question(title, row.arguments),
        expires_at=row.expires_at.isoformat(),
    )


def word_question(title: str, arguments: Mapping[str, Any]) -> str:
    """The question for people with what the call would be given. The model chose that, and may have chosen wrongly."""
    given = [f"{name.replace('_', ' ')}: {_short(value)}" for name, value in arguments.items() if value is not None]
    return f"{title} ({'; '.join(given)})?" if given else f"{title}?"


def _short(value: Any) -> str:
    words = " ".join(str(value).split())
    return words if len(words) <= _SHOWN else words[:_SHOWN] + "…"


# Condition and write are one statement, so that of two answers at once only one finds the question open.
_MARK = text("""
    update confirmation set used_at = now(), confirmed = :confirmed
    where owner_id = :owner_id and id = :id and used_at is null and expires_at > now() returning 1""")


class ConfirmationRepository(Repository[Confirmation]):
    model = Confirmation

    async def get_open(self, id: UUID) -> Confirmation:
        """The question that waits for its answer.

        Raises NotFound, and Conflict for one that was answered or has expired.
        """
        row = await self.get(id)
        # For a message that says what is wrong. What decides is `mark`.
        if row.used_at is not None:
            raise Conflict("This has been answered already; each question is answered once")
        if row.expires_at <= now():
            raise Conflict("This question has expired; ask for it again")
        return row

    async def get(self, id: UUID, *, lock: bool = False) -> Confirmation:
        if (row := await self.find(id, lock=lock)) is None:
            raise NotFound(f"There is no question {id} to answer")
        return row

    async def mark(self, id: UUID, *, confirmed: bool) -> None:
        """Use it up. Raises Conflict where it is used up or has expired."""
        values = {"owner_id": self.owner, "id": id, "confirmed": confirmed}
        if (await self.session.execute(_MARK, values)).first() is None:
            raise Conflict("This has been answered already, or has expired in this moment")


@dataclass
class ConfirmationLedger:
    """The `call.Ledger` of a call that its caller has said yes to. It is no part of a turn any more."""

    database: Database
    caller: Caller
    confirmation: Confirmation
    is_confirmed: bool = True
    turn_id: None = None
    outcome: None = None
    cut_off: bool = False
    _marked: bool = field(default=False, init=False)

    @property
    def conversation_id(self) -> UUID | None:
        return self.confirmation.conversation_id

    @property
    def idempotency_key(self) -> str:
        # Whoever answers again names the same call to the service that keeps the key.
        return str(self.confirmation.id)

    async def start(self) -> None:
        async with self.database.transaction(self.caller.id) as session:
            await self._mark(session)
        # After the commit: where that fails, the question is still open.
        self._marked = True

    async def finish(self, session: AsyncSession, outcome: object, question: Question | None = None) -> None:
        # Whatever the outcome: a call that failed is not made again by the same answer.
        if not self._marked:
            await self._mark(session)

    async def _mark(self, session: AsyncSession) -> None:
        await ConfirmationRepository(session, self.caller).mark(self.confirmation.id, confirmed=True)
