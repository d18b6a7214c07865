"""Feedback as its owner may see it, and as staff may."""

from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID

from sqlmodel import col, select

from agent_server.errors import Conflict, NotFound
from agent_server.feedback.models import Feedback, Rating
from agent_server.repository import Page, Repository
from agent_server.turns.models import FINISHED
from agent_server.turns.repository import TurnRepository


class FeedbackRepository(Repository[Feedback]):
    model = Feedback

    async def give(self, turn_id: UUID, rating: Rating, comment: str | None) -> Feedback:
        """Rate a turn of the caller's, in place of the rating it had. A comment of spaces is none.

        Raises NotFound, and Conflict while the turn is being answered.
        """
        # Held until the end, so that the turn is there for as long as its feedback is stored.
        turn = await TurnRepository(self.session, self.caller).get(turn_id, lock=True)
        if turn.status not in FINISHED:
            raise Conflict("The turn is still being answered; rate it when it has ended")
        comment = (comment or "").strip() or None
        row = await self._find_of(turn_id)
        if row is None:
            return await self.add(Feedback(turn_id=turn_id, rating=rating, comment=comment))
        row.rating, row.comment = rating, comment
        await self.session.flush()
        return row

    async def get_of(self, turn_id: UUID) -> Feedback:
        """The feedback on a turn. Raises NotFound."""
        row = await self._find_of(turn_id)
        if row is None:
            raise NotFound(f"There is no feedback on turn {turn_id}; give some first")
        return row

    async def list_of(self, turn_ids: Collection[UUID]) -> Mapping[UUID, Feedback]:
        """What was given on these turns, by the turn."""
        rows = await self.session.execute(self.visible().where(col(Feedback.turn_id).in_(turn_ids)))
        return {row.turn_id: row for row in rows.scalars()}

    async def _find_of(self, turn_id: UUID) -> Feedback | None:
        statement = self.visible().where(col(Feedback.turn_id) == turn_id)
        row: Feedback | None = (await self.session.execute(statement)).scalar_one_or_none()
        return row

    async def page_of_all_callers(
        self, limit: int, cursor: str | None = None, *, rating: Rating | None = None, since: datetime | None = None
    ) -> Page[Feedback]:
        """Feedback whoever gave it, newest first: for staff, in a transaction with `READ_SCOPE`. Raises InvalidInput."""
        statement = select(Feedback)
        if rating is not None:
            statement = statement.where(col(Feedback.rating) == rating)
        if since is not None:
            statement = statement.where(col(Feedback.updated_at) >= since)
        return await self.page(limit, cursor, statement)

    async def get_of_any_caller(self, id: UUID) -> Feedback:
        """One by its id, as `page_of_all_callers`. Raises NotFound."""
        row: Feedback | None = (
            await self.session.execute(select(Feedback).where(col(Feedback.id) == id))
        ).scalar_one_or_none()
        if row is None:
            raise NotFound(f"There is no feedback {id}; `agent-server feedback list` shows which there is")
        return row
