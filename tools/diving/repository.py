"""Destinations and dive sites, which everybody may see, and leads, which their owner leaves for staff."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import exists, func, or_, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from agent_server import Page, Repository
from tools.diving.models import LEVELS, Destination, DiveSite, Kind, Lead, Level, SentLead


class DestinationRepository(Repository[Destination]):
    model = Destination

    async def suited(self, month: int | None = None, level: Level | None = None) -> Sequence[Destination]:
        """By name: those with `month` in their season, which ask for no more than `level`."""
        statement = self.visible().order_by(col(Destination.name))
        if month is not None:
            statement = statement.where(col(Destination.season_months).contains([month]))
        if level is not None:
            statement = statement.where(col(Destination.level).in_(up_to(level)))
        return (await self.session.execute(statement)).scalars().all()

    async def named(self, place: str) -> Sequence[Destination]:
        """Those that `place` names: one by its slug or whole name, else all whose name, country or region has it."""
        words, rows = folded(place), await self.suited()
        exact = [row for row in rows if words in (folded(row.slug), folded(row.name))]
        return exact or [
            row
            for row in rows
            if words and any(f" {words} " in f" {folded(t)} " for t in (row.slug, row.name, row.country, row.region))
        ]


class SiteRepository(Repository[DiveSite]):
    model = DiveSite

    def suited(
        self, level: Level | None = None, kind: Kind | None = None, max_depth_m: int | None = None
    ) -> SelectOfScalar[DiveSite]:
        """Those of this kind that ask for no more than this level and depth."""
        statement = self.visible()
        if level is not None:
            statement = statement.where(col(DiveSite.level).in_(up_to(level)))
        if kind is not None:
            statement = statement.where(col(DiveSite.kind) == kind)
        if max_depth_m is not None:
            statement = statement.where(col(DiveSite.max_depth_m) <= max_depth_m)
        return statement

    async def first(self, statement: SelectOfScalar[DiveSite], limit: int) -> tuple[Sequence[DiveSite], int]:
        """The first `limit` rows of `statement` by name, and how many it has."""
        rows = await self.session.execute(statement.order_by(col(DiveSite.name)).limit(limit))
        total = await self.session.execute(select(func.count()).select_from(statement.subquery()))
        return rows.scalars().all(), total.scalar_one()

    async def named(self, site: str) -> Sequence[DiveSite]:
        """Those that `site` names: one by its slug or whole name, else all whose name has it."""
        slug = folded(site).replace(" ", "-")
        if not slug:  # signs alone, which would be a part of every slug
            return []
        whole = or_(col(DiveSite.slug) == slug, func.lower(col(DiveSite.name)) == func.lower(site.strip()))
        part = or_(
            col(DiveSite.slug).contains(slug, autoescape=True),
            col(DiveSite.name).icontains(site.strip(), autoescape=True),
        )
        for condition in (whole, part):
            statement = self.visible().where(condition).order_by(col(DiveSite.name))
            if rows := (await self.session.execute(statement)).scalars().all():
                return rows
        return []


def mentioning(statement: SelectOfScalar[DiveSite], text: str) -> SelectOfScalar[DiveSite]:
    """The sites of `statement` whose name, kind, summary or hazards have all words of `text`, in singular or plural."""
    said = func.concat_ws(
        " ",
        col(DiveSite.slug),
        col(DiveSite.name),
        col(DiveSite.kind),
        col(DiveSite.summary),
        func.array_to_string(col(DiveSite.hazards), " "),
    )
    return statement.where(*(said.icontains(word.removesuffix("s"), autoescape=True) for word in text.lower().split()))


def up_to(level: Level) -> Sequence[Level]:
    return LEVELS[: LEVELS.index(level) + 1]


def folded(text: str) -> str:
    """Words without case, accents, signs and a leading "the": "The Galápagos" is "galapagos"."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).casefold()
    return " ".join(re.findall(r"[^\W_]+", plain)).removeprefix("the ")


class LeadRepository(Repository[Lead]):
    model = Lead

    async def of_all_callers(self, limit: int, cursor: str | None) -> Page[Lead]:
        """Leads whoever left them, newest first: for staff. Raises InvalidInput for a cursor that is not ours."""
        earlier = aliased(Lead)
        same = (col(getattr(earlier, name)) == col(getattr(Lead, name)) for name in _SAME)
        page = await self.page(
            limit, cursor, select(Lead).where(~exists().where(*same, col(earlier.id) < col(Lead.id)))
        )
        talked = [_key(lead) for lead in page.items if lead.conversation_id is not None]
        statement = select(Lead).where(tuple_(*(col(getattr(Lead, name)) for name in _SAME)).in_(talked))
        added: dict[tuple[Any, ...], list[Lead]] = {}
        for row in (await self.session.execute(statement.order_by(col(Lead.id)))).scalars() if talked else ():
            added.setdefault(_key(row), []).append(row)
        return Page([_together(added.get(_key(lead), [lead])) for lead in page.items], page.next_cursor)


class SentLeadRepository(Repository[SentLead]):
    model = SentLead

    async def once(self, key: UUID, lead_id: UUID) -> UUID:
        """The lead that was left under this key. It is `lead_id`, unless there is one already."""
        # One statement, so that of two at once one is first.
        statement = insert(SentLead).values(owner_id=self.owner, id=key, lead_id=lead_id).on_conflict_do_nothing()
        first = await self.session.execute(statement.returning(col(SentLead.lead_id)))
        return first.scalar_one_or_none() or (await self.get(key)).lead_id


_SAME = ("owner_id", "conversation_id", "email")
_FILLED = ("name", "phone", "interest", "message")


def _key(lead: Lead) -> tuple[Any, ...]:
    return tuple(getattr(lead, name) for name in _SAME)


def _together(rows: Sequence[Lead]) -> Lead:
    """The lead that rows of one conversation and address make, oldest first."""
    said = {
        name: next((v for row in reversed(rows) if (v := getattr(row, name)) is not None), None) for name in _FILLED
    }
    last = {name: getattr(rows[-1], name) for name in ("status", "source", "details", "updated_at")}
    return Lead(**{**rows[0].model_dump(), **said, **last})
