"""What a user is asked before something is lost for good. Each answer counts once.

asked       the call is recorded as not made, with its question, in one transaction; what it would lose is read there and
            kept with the question
answered    the row is marked and the call made in one transaction, if it would still lose the same; where its effect is
            outside our database, the row is marked first, so that two answers at once never make it twice
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol
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
from agent_server.tool import Loss, Tool
from agent_server.tool_context import Listener

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
_LISTED = 20
"""How many losses a question names."""


def find_asker(tool: Tool[..., Any], surface: Surface) -> Asker:
    """Who asks before this tool is called on this surface."""
    return ASKERS[surface] if tool.destructive else "nobody"


class Confirmation(Owned, table=True):
    """A call of a destructive tool that waits for its caller's word until `expires_at`. `used_at` is when it was given,
    and `confirmed` what it was. `outcome` is how the call ended: `ok` or `code: message`, None where that is not
    known."""

    __tablename__ = "confirmation"

    tool: str
    arguments: dict[str, Any] = Field(sa_type=JSONB)
    # None of a tool that does not say what it loses.
    losses: list[dict[str, str]] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    conversation_id: UUID | None = None
    turn_id: UUID | None = None
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    expires_at: datetime = Field(sa_type=DateTime(timezone=True))
    used_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    confirmed: bool | None = None
    outcome: str | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """A confirmation as clients are asked for it. `expires_at` is ISO 8601."""

    id: str
    tool: str
    title: str
    arguments: dict[str, Any]
    question: str
    expires_at: str


class Changed(Conflict):
    """A call that was confirmed would no longer lose what its user was asked about.

    `losses` are what it would lose now, and `question` asks about them; None where it cannot be made any more.
    """

    def __init__(self, reason: str, losses: list[dict[str, str]] | None) -> None:
        super().__init__(f"Nothing was done: {reason}")
        self.losses = losses
        self.question: Question | None = None

    def ask(self, question: Question) -> None:
        self.question = question
        self.message += f"; answer the new question {question.id}: {question.question}"


def question_of(row: Confirmation, title: str) -> Question:
    """`title` is the tool's name for people."""
    return Question(
        id=str(row.id),
        tool=row.tool,
        title=show_plainly(title),
        arguments=row.arguments,
        question=word_question(title, row.arguments, row.losses),
        expires_at=row.expires_at.isoformat(),
    )


def describe_question(question: Question) -> dict[str, Any]:
    """What a model reads in place of the result of a call that waits for its user's word."""
    return {
        "done": False,
        "confirmation": question.id,
        "question": question.question,
        "message": f"Not done. The user has been asked to confirm it, and it happens when they do. Tell them so, and do "
        f"not call {question.tool} again for this.",
    }


def losses_json(losses: Sequence[Loss]) -> list[dict[str, str]]:
    """What a call would lose, to be kept and compared. The order in which it is read says nothing."""
    return sorted(({"id": str(loss.id), "title": loss.title} for loss in losses), key=lambda kept: kept["id"])


def word_question(title: str, arguments: Mapping[str, Any], losses: Sequence[Mapping[str, str]] | None = None) -> str:
    """The question for people. It names what the call would lose, where the tool says that.

    Else it repeats what the call would be given. A model chose that, and may have chosen wrongly.
    """
    if losses is not None:
        return show_plainly(_ask_about(title, losses))
    given = [f"{name.replace('_', ' ')}: {_quote(v)}" for name, v in arguments.items() if v is not None]
    return show_plainly(f"{title} ({'; '.join(given)})?" if given else f"{title}?")


def _ask_about(title: str, losses: Sequence[Mapping[str, str]]) -> str:
    """`Delete the task "Buy fins"?`, or `Delete old tasks: "Buy fins" and "Rent a mask"?`"""
    titles = Counter(loss["title"] for loss in losses)
    # An id says nothing to a person who does not have to tell two things of one title apart.
    named = [
        _quote(loss["title"]) + (f" (id {loss['id']})" if titles[loss["title"]] > 1 else "")
        for loss in losses[:_LISTED]
    ]
    if not named:
        return f"{title}? There is nothing to be lost."
    if len(losses) == 1 and len(words := title.split()) == 2:
        return f"{words[0]} the {words[1]} {named[0]}?"
    last = f"{more} more" if (more := len(losses) - _LISTED) > 0 else named.pop()
    return f"{title}: {', '.join(named)} and {last}?" if named else f"{title}: {last}?"


def _quote(value: Any) -> str:
    text = str(value)
    text = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    # Within quotes no text can pass for the end of its own or for another argument. A number cannot.
    return text if isinstance(value, int | float) else '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Co", "Cn", "Cs"})
"""Unicode categories: control, format (bidirectional, zero width), line ends, private, unassigned, half a pair."""
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0\U00016fe4") | frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)
"""Letters and marks that look like nothing."""


def show_plainly(text: str) -> str:
    """`text` with everything as an escape that a reader could not see, or that would reorder what is seen."""
    return "".join(_escape(c) if c in _BLANK or unicodedata.category(c) in _UNSEEN else c for c in text)


def show_lines(text: str) -> str:
    """`text` as `show_plainly` has it, with its lines."""
    return "\n".join(map(show_plainly, text.split("\n")))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# Condition and write are one statement, so that of two answers at once only one finds the question open.
_MARK = text("""
    update confirmation set used_at = now(), confirmed = :confirmed
    where owner_id = :owner_id and id = :id and used_at is null and expires_at > now() returning 1""")
_KEEP = text("update confirmation set outcome = :outcome where owner_id = :owner_id and id = :id")
# Not `now()`, which is when the transaction began: another answer's may have begun before, and would find it open.
_END = text("""
    update confirmation set used_at = null, confirmed = null, expires_at = created_at
    where owner_id = :owner_id and id = :id and (used_at is null and expires_at > now() or :mine) returning 1""")


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
            raise Conflict("This has just been answered, or has just expired")

    async def keep_outcome(self, id: UUID, outcome: str) -> None:
        """Keep how its call ended: `ok`, or the failure as `code: message`."""
        await self.session.execute(_KEEP, {"owner_id": self.owner, "id": id, "outcome": outcome})

    async def end(self, id: UUID, *, mine: bool) -> None:
        """Let it expire unanswered. `mine` says that it was marked for this answer. Raises Conflict as `mark`."""
        if (await self.session.execute(_END, {"owner_id": self.owner, "id": id, "mine": mine})).first() is None:
            raise Conflict("This has just been answered, or has just expired")


class Ending(Protocol):
    """How a call ended. `error` is None, or the failure as `code: message`."""

    @property
    def error(self) -> str | None: ...


@dataclass
class ConfirmationLedger:
    """The `call.Ledger` of a call that its caller has said yes to. It is no part of a turn any more."""

    database: Database
    caller: Caller
    confirmation: Confirmation
    listener: Listener | None = None
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

    def hold(self, outcome: Ending, act: Mapping[str, Any]) -> None:
        # Only calls of tools that read are held, and no question is asked about those.
        raise NotImplementedError("a call that is asked about has an effect")

    async def finish(self, session: AsyncSession, outcome: Ending, question: Question | None = None) -> None:
        # Whatever the outcome: a call that failed is not made again by the same answer.
        if not self._marked:
            await self._mark(session)
        await ConfirmationRepository(session, self.caller).keep_outcome(self.confirmation.id, outcome.error or "ok")

    async def end(self, session: AsyncSession) -> None:
        """Let the question expire. Its call was not made, and another question takes its place."""
        await ConfirmationRepository(session, self.caller).end(self.confirmation.id, mine=self._marked)

    async def _mark(self, session: AsyncSession) -> None:
        await ConfirmationRepository(session, self.caller).mark(self.confirmation.id, confirmed=True)
