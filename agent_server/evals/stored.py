"""Turns that are stored, with all that their answers were made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import and_, exists, literal, or_
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from agent_server.caller import Caller
from agent_server.conversations.calls import read_calls
from agent_server.conversations.models import Conversation, Item
from agent_server.conversations.notes import finish_of
from agent_server.db import Database
from agent_server.errors import NotFound
from agent_server.evals.answer import Answer, Citation, ToolCall
from agent_server.evals.ask import Reply, read_reply
from agent_server.evals.format import Stub
from agent_server.identity.profiles import read_profile
from agent_server.turns.earlier import read_events
from agent_server.turns.models import Turn
from agent_server.turns.sender import read_sender

MOST_TURNS = 200
"""So many turns are read at once, the latest ones."""
MOST_UNANSWERED = 5_000
"""So many messages without an answer are looked at, the latest ones."""


@dataclass(frozen=True, kw_only=True)
class StoredTurn:
    """A turn that was answered. `earlier` are the items before it, and `answered_last` is the agent that spoke then."""

    turn: Turn
    caller: Caller
    reply: Reply
    earlier: Sequence[Item]
    answered_last: str | None
    summary: dict[str, Any] | None
    profile: dict[str, Any]

    @property
    def message(self) -> str:
        return str(self.turn.input["message"])

    @property
    def agent(self) -> str | None:
        """The agent that was asked for."""
        return self.turn.input.get("agent")

    @property
    def messages(self) -> Sequence[str]:
        """What the user said up to this turn."""
        return [*(item.text or "" for item in self.earlier if item.role == "user"), self.message]

    @property
    def stubs(self) -> Sequence[Stub]:
        """The results of its tools, as the ledger has them."""
        return [
            Stub(tool=call.name, arguments=call.arguments, error=call.error)
            if call.error is not None
            else Stub(tool=call.name, arguments=call.arguments, returns=call.output)
            for call in self.reply.answer.calls
            if isinstance(call.arguments, dict)
        ]


async def read_conversation(database: Database, conversation_id: UUID, caller: Caller) -> Sequence[StoredTurn]:
    """The turns of a conversation in their order. Raises NotFound."""
    owner = await _find_owner(database, select(Conversation.owner_id).where(col(Conversation.id) == conversation_id))
    turns = await _read_turns(database, owner or caller.id, col(Turn.conversation_id) == conversation_id)
    if not turns:
        raise NotFound(f"There is no conversation {conversation_id}, or none of its turns has been answered")
    return turns


async def read_turn(database: Database, turn_id: UUID, caller: Caller) -> StoredTurn:
    """One turn. Raises NotFound."""
    owner = await _find_owner(database, select(Turn.owner_id).where(col(Turn.id) == turn_id))
    return await read_turn_of(database, owner or caller.id, turn_id)


async def read_turn_of(database: Database, owner: UUID, turn_id: UUID) -> StoredTurn:
    """One turn of this owner's, also one whose events are past retention. Raises NotFound."""
    turns = await _read_turns(database, owner, col(Turn.id) == turn_id, by_items=True)
    if not turns:
        raise NotFound(f"There is no turn {turn_id}, or it has not been answered")
    return turns[0]


async def read_turns_since(database: Database, since: datetime, caller: Caller) -> Sequence[StoredTurn]:
    """The turns since then: of everybody where the database's owner may read them, else the caller's."""
    statement = select(Turn.owner_id).where(col(Turn.created_at) >= since).distinct()
    async with database.owner.connect() as connection:
        owners = set((await connection.execute(statement)).scalars()) | {caller.id}
    found = [turn for owner in owners for turn in await _read_turns(database, owner, col(Turn.created_at) >= since)]
    return sorted(found, key=lambda stored: stored.turn.created_at)[-MOST_TURNS:]


async def read_unanswered(database: Database, since: datetime, caller: Caller) -> Sequence[tuple[str, datetime]]:
    """The messages whose answers cite nothing and rest on no tool, with the latest first."""
    body = col(Item.body)
    returned = and_(
        body["type"].astext == literal("function_call_output"),
        # what a hand-over to another agent leaves (`turns.called`)
        body["output"].astext.not_like('{"assistant":%'),
    )
    rests = or_(col(Item.sources) != literal([], JSONB), returned)
    of_turn = (col(Item.owner_id) == col(Turn.owner_id), col(Item.conversation_id) == col(Turn.conversation_id))
    answered = exists().where(*of_turn, col(Item.turn_no) == col(Turn.turn_no), rests)
    chosen = select(Turn.input, Turn.created_at, Turn.owner_id).where(
        col(Turn.created_at) >= since, col(Turn.status) == "done", ~answered
    )
    latest = chosen.order_by(col(Turn.created_at).desc()).limit(MOST_UNANSWERED)
    async with database.owner.connect() as connection:
        rows = (await connection.execute(latest)).all()
    if not rows:  # the tables' owner may see no rows
        async with database.transaction(caller.id) as session:
            rows = (await session.execute(latest.where(col(Turn.owner_id) == caller.id))).all()
    return [(str(row.input["message"]), row.created_at) for row in rows]


async def _find_owner(database: Database, statement: SelectOfScalar[UUID]) -> UUID | None:
    """The one whose row it is, where the tables' owner may see it: on the embedded database, it may."""
    async with database.owner.connect() as connection:
        return (await connection.execute(statement)).scalars().first()


async def _read_turns(database: Database, owner: UUID, which: Any, *, by_items: bool = False) -> Sequence[StoredTurn]:
    """Turns in their order. Those without events are left out, or with `by_items` read as their items have them."""
    found: list[StoredTurn] = []
    async with database.transaction(owner) as session:
        chosen = select(Turn).where(col(Turn.owner_id) == owner, col(Turn.status).in_(("done", "failed")), which)
        latest = chosen.order_by(col(Turn.created_at).desc()).limit(MOST_TURNS)
        turns = sorted((await session.execute(latest)).scalars(), key=lambda turn: (turn.created_at, turn.turn_no))
        for turn in turns:
            conversation = await session.get(Conversation, (owner, turn.conversation_id))
            events = list(await read_events(session, owner_id=owner, turn_id=turn.id))
            if conversation is None or not (events or by_items):
                continue
            items = await session.execute(
                select(Item)
                .where(
                    col(Item.owner_id) == owner,
                    col(Item.conversation_id) == turn.conversation_id,
                    col(Item.turn_no) <= turn.turn_no,
                )
                .order_by(col(Item.turn_no), col(Item.k))
            )
            there = items.scalars().all()
            own = [item for item in there if item.turn_no == turn.turn_no]
            before = there[: len(there) - len(own)]
            earlier = [item for item in before if str(item.turn_no) not in conversation.replaced]
            caller = read_sender(owner, turn.input["caller"])
            summary = conversation.summary
            found.append(
                StoredTurn(
                    turn=turn,
                    caller=caller,
                    reply=read_reply(str(turn.input["message"]), turn.conversation_id, events)
                    if events
                    else _read_reply_of_items(turn, own),
                    earlier=earlier,
                    answered_last=next((item.agent for item in reversed(earlier) if item.agent), None),
                    summary=summary if summary and summary.get("until", 0) < turn.turn_no else None,
                    profile=await read_profile(session, caller),
                )
            )
    return found


def _read_reply_of_items(turn: Turn, items: Sequence[Item]) -> Reply:
    said = [item for item in items if item.role == "assistant"]
    cited = {source["n"]: source for item in said for source in item.sources}
    return Reply(
        message=str(turn.input["message"]),
        answer=Answer(
            text="\n\n".join(item.text for item in said if item.text),
            agent=turn.agent,
            citations=[Citation(n, one["document"], one["heading"], one["text"]) for n, one in cited.items()],
            calls=[ToolCall(call.name, call.arguments, call.output, call.error) for call in read_calls(items)],
            conversation=turn.conversation_id,
            events=(),
        ),
        usage=turn.usage or {},
        finish=finish_of(said[-1].notes if said else ()),
        failure=f"{turn.error['code']}: {turn.error['message']}" if turn.error else None,
    )
