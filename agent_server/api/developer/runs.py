"""A message to an agent whose prompt may be edited, at /dev/runs.

A run is a turn like any other, in a conversation of its own that no list has.
"""

from typing import Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from agent_server.api.developer.prompts import parse_text
from agent_server.api.local import DEVELOPER, DeveloperDep
from agent_server.api.parameters import Body
from agent_server.caller import Caller
from agent_server.conversations.ids import refer, run_name
from agent_server.conversations.models import Conversation, Item
from agent_server.db import new_id
from agent_server.errors import InvalidInput
from agent_server.evals.stored import StoredTurn
from agent_server.evals.stored import read_turn as read_stored
from agent_server.http.auth import ServerDep
from agent_server.identity.profiles import MAX_BYTES, fits
from agent_server.server import Server, check_text
from agent_server.turns.accept import Message
from agent_server.turns.repository import TurnRepository
from agent_server.wording import one_line, shorten
from agent_server.workspace import Workspace

router = APIRouter(include_in_schema=False)

_LONGEST_TITLE = 60


class Run(Body):
    """What is to be run.

    `prompt` is the text of an agent's file as it is edited, and `profile` what its agents are told of the caller; both
    are for this run alone. `inputs` are values for variables of prompts. `after` is a turn whose conversation goes on from where that turn began.
    """

    message: str
    agent: str | None = Field(None, max_length=40)
    profile: dict[str, Any] | None = None
    inputs: dict[str, Any] = Field(default_factory=dict)
    prompt: str | None = Field(None, max_length=400_000)
    after: UUID | None = None


class Begun(BaseModel):
    """The turn that runs."""

    conversation_id: UUID
    turn_id: UUID
    turn_no: int


@router.post(f"{DEVELOPER}/runs", status_code=202)
async def begin_run(body: Run, server: ServerDep, caller: DeveloperDep) -> Begun:
    """Run a message. The answer is followed as that of any turn."""
    check_text(body.message, server.settings.message_limit)
    if body.profile is not None and not fits(body.profile):
        raise InvalidInput(f"profile: at most {MAX_BYTES} bytes of JSON are kept; shorten it")
    workspace: Workspace | None = None
    if body.prompt is not None:
        workspace = server.workspace.with_prompt(parse_text(body.prompt, server.workspace))
    name = run_name(new_id())
    id = refer(name, caller.id).id
    if body.after is not None:
        await _begin_from(server, caller, body.after, id, name, body.message)
    await server.try_out(id, workspace, body.profile)
    message = Message(text=body.message, conversation_id=name, create=True, agent=body.agent, inputs=body.inputs)
    accepted = await server.accept(caller, message)
    return Begun(conversation_id=id, turn_id=accepted.turn.id, turn_no=accepted.turn.turn_no)


async def _begin_from(server: Server, caller: Caller, turn_id: UUID, id: UUID, name: str, message: str) -> None:
    """Make a conversation that begins with what was said before a turn."""
    stored = await read_own(server, caller, turn_id)
    async with server.database.transaction(caller.id) as session:
        conversation = Conversation(
            owner_id=caller.id,
            id=id,
            client_id=name,
            title=shorten(one_line(message), _LONGEST_TITLE),
            next_turn=stored.turn.turn_no,
            agent=stored.answered_last,
            summary=stored.summary,
        )
        session.add(conversation)
        await session.flush()
        for item in stored.earlier:
            values = item.model_dump(exclude={"owner_id", "conversation_id"})
            session.add(Item(owner_id=caller.id, conversation_id=id, **values))


async def read_own(server: Server, caller: Caller, turn_id: UUID) -> StoredTurn:
    """A turn of the caller's that was answered. Raises NotFound."""
    async with server.database.transaction(caller.id) as session:
        # First: the other would find anybody's, where the tables' owner sees them.
        await TurnRepository(session, caller).get(turn_id)
    return await read_stored(server.database, turn_id, caller)
