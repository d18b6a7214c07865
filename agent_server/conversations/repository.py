"""Conversations and their messages as their owner may see them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, DateTime, Table, bindparam, delete, func, not_, or_, text, tuple_
from sqlmodel import SQLModel, col, select
from sqlmodel.sql.expression import SelectOfScalar

from agent_server.conversations.ids import RUNS, ConversationRef, name_id, refer
from agent_server.conversations.models import Conversation, Item
from agent_server.errors import InvalidInput, NotFound
from agent_server.repository import Page, Repository


class ConversationRepository(Repository[Conversation]):
    model = Conversation

    async def find(self, id: UUID | str, *, lock: bool = False) -> Conversation | None:
        """The conversation or None. `id` is ours or its client's own (`conversations.ids`)."""
        ref = refer(id, self.owner)
        if ref.client_id is None:
            return await super().find(ref.id, lock=lock)
        statement = _choose(self.visible(), ref)
        found = await self.session.execute(statement.with_for_update() if lock else statement)
        row: Conversation | None = found.scalar_one_or_none()
        return row

    async def get(self, id: UUID | str, *, lock: bool = False) -> Conversation:
        """As `find`. Raises NotFound."""
        row = await self.find(id, lock=lock)
        if row is None:
            raise NotFound(f"There is no conversation {name_id(id)}; list them to see which there are")
        return row

    async def page_recent(self, limit: int, cursor: str | None = None, words: str | None = None) -> Page[Conversation]:
        """Conversations by last activity. With `words`, only those whose title or one of whose messages holds them, in
        whatever capitals, accents and typography. Runs of the developer page are not among them. Raises InvalidInput."""
        before = _FIRST if cursor is None else _parse(cursor)
        rows = await (self._search(words, limit + 1, before) if words else self._list(limit + 1, before))
        more = len(rows) > limit
        return Page(rows[:limit], f"{rows[limit - 1].updated_at.isoformat()}~{rows[limit - 1].id}" if more else None)

    async def _list(self, limit: int, before: tuple[datetime, UUID]) -> Sequence[Conversation]:
        # The id decides between two that were changed in the same instant. Compared as one row: else the index would
        # not lead to a page far down.
        place = tuple_(col(Conversation.updated_at), col(Conversation.id))
        statement = self.visible().where(place < tuple_(*before), not_(_is_run()))
        statement = statement.order_by(*(part.desc() for part in place.clauses))
        return (await self.session.execute(statement.limit(limit))).scalars().all()

    async def list_runs(self, limit: int) -> Sequence[Conversation]:
        """The latest that the developer page began."""
        statement = self.visible().where(_is_run()).order_by(col(Conversation.updated_at).desc()).limit(limit)
        return (await self.session.execute(statement)).scalars().all()

    async def _search(self, words: str, limit: int, before: tuple[datetime, UUID]) -> Sequence[Conversation]:
        rows: list[Conversation] = []
        values = {"owner": self.owner, "words": words, "limit": limit, "latest": LATEST}
        while True:
            place = {"at": before[0], "last": before[1]}
            found = await self.session.execute(select(Conversation).from_statement(_SEARCH), values | place)
            page = found.scalars().all()
            rows += [row for row in page if not (row.client_id or "").startswith(RUNS)]
            if len(rows) >= limit or len(page) < limit:
                return rows[:limit]
            before = page[-1].updated_at, page[-1].id

    async def remove(self, row: Conversation) -> None:
        # What hangs on the conversation goes before it, though it would go by itself: an attempt locks its turn and
        # then the conversation, and a deletion in the other order would wait for it while it waits for the deletion.
        for table in _dependents():
            await self.session.execute(
                delete(table).where(table.c.owner_id == self.owner, table.c.conversation_id == row.id)
            )
        await super().remove(row)

    async def count(self) -> int:
        statement = select(func.count()).select_from(Conversation).where(col(Conversation.owner_id) == self.owner)
        return (await self.session.execute(statement)).scalar_one()


def _is_run() -> ColumnElement[bool]:
    return func.coalesce(func.starts_with(col(Conversation.client_id), RUNS), False)


def _choose(statement: SelectOfScalar[Any], ref: ConversationRef) -> SelectOfScalar[Any]:
    """The one conversation of `statement` that a client's id is meant for."""
    id, name = col(Conversation.id), col(Conversation.client_id)
    # Ours goes before the client's; of two that go by one name, the one that began under this owner.
    return (
        statement.where(or_(id.in_((ref.id, *ref.others)), name == ref.client_id))
        .order_by(id.in_(ref.others).desc(), (id == ref.id).desc(), col(Conversation.updated_at).desc())
        .limit(1)
    )


def _dependents() -> list[Table]:
    """The tables whose rows hang on a conversation. Any package may declare one."""
    return [
        table
        for table in SQLModel.metadata.sorted_tables
        if any(key.referred_table.name == Conversation.__tablename__ for key in table.foreign_key_constraints)
    ]


LATEST = 500
"""Turns of the latest conversations that a search reads for one letter, which no index knows, and at a time for words that
are common among them."""
_FIRST = (datetime(9999, 12, 31, tzinfo=UTC), UUID(int=2**128 - 1))
"""The place before the first of a list."""

# The function finds the ids of a page (migrations/engine, `find_talks`), and the rows are read under row-level security.
_SEARCH = text("""
    select * from conversation where owner_id = :owner and id = any (array(
        select f from find_talks(:owner, :words, :at, :last, :limit, :latest) f))
    order by updated_at desc, id desc""").bindparams(bindparam("at", type_=DateTime(timezone=True)))


def _parse(cursor: str) -> tuple[datetime, UUID]:
    at, _, id = cursor.partition("~")
    try:
        return datetime.fromisoformat(at).astimezone(UTC), UUID(id)
    # A client may send any date; near year 1 or 9999 the change of its zone overflows.
    except (ValueError, OverflowError):
        raise InvalidInput("cursor: not one of ours; pass next_cursor of the page before, or leave it out") from None


@dataclass(frozen=True)
class ItemPage:
    """Items in the order of the conversation. `next_cursor` is None after the last page."""

    items: Sequence[Item]
    next_cursor: str | None


class ItemRepository:
    """The items of one conversation of the caller's, without those of turns that were replaced."""

    def __init__(self, conversations: ConversationRepository, conversation: Conversation) -> None:
        self.session = conversations.session
        self.owner, self.conversation_id = conversations.owner, conversation.id
        self._replaced = [int(turn_no) for turn_no in conversation.replaced]

    async def page(self, limit: int, cursor: str | None = None, *, replaced: bool = False) -> ItemPage:
        """Whole turns, oldest first. A page has at least one turn and about `limit` items; `cursor` is the last turn's
        number. With `replaced` turns that were replaced are among them."""
        # A number of more digits may not fit an integer of Postgres.
        if cursor is not None and not re.fullmatch("[0-9]{1,9}", cursor):
            raise InvalidInput("cursor: not one of ours; pass next_cursor of the page before, or leave it out")
        after = int(cursor or 0)
        rows = (
            (
                await self.session.execute(
                    select(Item)
                    .where(
                        col(Item.owner_id) == self.owner,
                        col(Item.conversation_id) == self.conversation_id,
                        col(Item.turn_no) > after,
                        col(Item.turn_no).not_in([] if replaced else self._replaced),
                    )
                    .order_by(col(Item.turn_no), col(Item.k))
                    .limit(limit + 1)
                )
            )
            .scalars()
            .all()
        )
        if len(rows) <= limit:
            return ItemPage(rows, None)
        cut = rows[limit].turn_no
        whole = [row for row in rows if row.turn_no < cut]
        if whole:
            return ItemPage(whole, str(whole[-1].turn_no))
        return await self.page(limit * 2, cursor, replaced=replaced)  # one turn longer than a page

    async def list_latest(self, limit: int, *, before: int, after: int = 0) -> Sequence[Item]:
        """The items of the last turns between the numbers `after` and `before` in their order, at most `limit` of them.

        Turns are whole, and the last one is there however long it is.
        """
        rows = (await self.session.execute(self._latest(before, after=after).limit(limit + 1))).scalars().all()
        if len(rows) > limit:
            cut = rows[limit].turn_no
            if cut == rows[0].turn_no:
                rows = (await self.session.execute(self._latest(before, after=cut - 1))).scalars().all()
            else:
                rows = [row for row in rows if row.turn_no > cut]
        return list(reversed(rows))

    def _latest(self, before: int, *, after: int = 0) -> SelectOfScalar[Item]:
        return (
            select(Item)
            .where(
                col(Item.owner_id) == self.owner,
                col(Item.conversation_id) == self.conversation_id,
                col(Item.turn_no) < before,
                col(Item.turn_no) > after,
                col(Item.turn_no).not_in(self._replaced),
            )
            .order_by(col(Item.turn_no).desc(), col(Item.k).desc())
        )
