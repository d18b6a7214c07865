"""What a citation opens at /api/passages."""

import asyncio
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from agent_server.caller import Caller
from agent_server.documents.shelf import Shelf
from agent_server.http.auth import ServerDep, caller_with
from agent_server.knowledge.search import get_passage
from agent_server.knowledge.tools import KNOWLEDGE
from agent_server.web.render import render_blocks

router = APIRouter(tags=["conversations"])


class PassageView(BaseModel):
    """A passage as it now is. `start` and `end` are character offsets in the document's file."""

    id: str
    document: str
    title: str
    heading: str
    text: str
    html: str
    start: int
    end: int


@router.get("/api/passages/{passage}")
async def read_passage(
    passage: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")],
    caller: Annotated[Caller, caller_with(KNOWLEDGE)],
    server: ServerDep,
) -> PassageView:
    """The passage that a citation names, of the content or of a document of the caller's own."""
    shelf: Shelf = server.runtime.resources[Shelf]
    async with server.database.transaction(caller.id) as session:
        found = await shelf.find(session, caller, passage) or await get_passage(session, passage)
    html = "".join(await asyncio.to_thread(render_blocks, found.text))
    return PassageView(
        id=found.id,
        document=found.document,
        title=found.title,
        heading=found.heading,
        text=found.text,
        html=html,
        start=found.start,
        end=found.end,
    )
