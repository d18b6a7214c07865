"""Turns as their owner may see them."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlmodel import col, select

from agent_server.conversations.models import Item
from agent_server.errors import InvalidInput, NotFound
from agent_server.repository import Repository
from agent_server.turns.models import Turn


class TurnRepository(Repository[Turn]):
    model = Turn

    async def find_open(self, conversation_id: UUID) -> Sequence[Turn]:
        """The running turn and those that wait behind it. They are in order."""
        statement = self.visible().where(
            col(Turn.conversation_id) == conversation_id, col(Turn.status).in_(("queued", "running"))
        )
        return (await self.session.execute(statement.order_by(col(Turn.turn_no)))).scalars().all()

    async def find_running(self, conversation_id: UUID) -> Turn | None:
        """The turn that is being answered or the first that waits to be."""
        return next(iter(await self.find_open(conversation_id)), None)

    async def get_by_cursor(self, cursor: str, conversation_id: UUID) -> Turn:
        """The turn that a `Last-Event-ID` names. Raises InvalidInput, and NotFound outside this conversation."""
        try:
            turn = await self.get(UUID(cursor.partition(":")[0]))
        except ValueError:
            raise InvalidInput("Last-Event-ID: not an id of a stream of ours; they look like <turn>:12") from None
        if turn.conversation_id != conversation_id:
            raise NotFound(f"There is no turn {turn.id} in this conversation")
        return turn

    async def list_by_number(self, conversation_id: UUID, turn_numbers: Sequence[int]) -> Sequence[Turn]:
        """The turns with these numbers."""
        statement = self.visible().where(
            col(Turn.conversation_id) == conversation_id, col(Turn.turn_no).in_(turn_numbers)
        )
        return (await self.session.execute(statement)).scalars().all()

    async def list_by_id(self, ids: Collection[UUID]) -> Sequence[Turn]:
        """The turns with these ids."""
        return (await self.session.execute(self.visible().where(col(Turn.id).in_(ids)))).scalars().all()

    async def list_latest(self, conversation_id: UUID, limit: int) -> Sequence[Turn]:
        """The last turns of a conversation in their order."""
        statement = self.visible().where(col(Turn.conversation_id) == conversation_id)
        found = await self.session.execute(statement.order_by(col(Turn.turn_no).desc()).limit(limit))
        return list(reversed(found.scalars().all()))

    async def items(self, turn: Turn) -> Sequence[Item]:
        """The items of a turn in their order."""
        statement = select(Item).where(
            col(Item.owner_id) == self.owner,
            col(Item.conversation_id) == turn.conversation_id,
            col(Item.turn_no) == turn.turn_no,
        )
        return (await self.session.execute(statement.order_by(col(Item.k)))).scalars().all()
