"""A tool of each effect. `label` is what a call is about: it is the same however often a call is made."""

import asyncio
import os
from typing import Annotated
from uuid import UUID

import httpx
from pydantic import Field
from sqlmodel import Field as Column

from agent_server import Owned, Repository, ToolContext, tool

Label = Annotated[str, Field(min_length=1, max_length=40, description="What the call is about.")]


class Note(Owned, table=True):
    """What `store` leaves: a row for each time that it took effect."""

    __tablename__ = "chaos_note"

    turn_id: UUID
    label: str = Column(max_length=40)


class NoteRepository(Repository[Note]):
    model = Note


@tool(scope="chaos:write", effect="stored")
async def store(context: ToolContext, label: Label) -> str:
    """Note a label in our own database."""
    assert context.turn_id is not None
    await context.repository(NoteRepository).add(Note(turn_id=context.turn_id, label=label))
    await asyncio.sleep(0.02)  # a window between the effect and its record
    return label


@tool(scope="chaos:write", effect="keyed")
async def charge(context: ToolContext, label: Label) -> str:
    """Have an effect outside, where our idempotency key is known."""
    return await _outside(label, {"Idempotency-Key": str(context.idempotency_key)})


@tool(scope="chaos:write", effect="once")
async def send(context: ToolContext, label: Label) -> str:
    """Have an effect outside, where nobody knows a key."""
    return await _outside(label, {})


@tool(scope="chaos:read", effect="read")
async def look(context: ToolContext, label: Label) -> str:
    """Look something up."""
    return label


async def _outside(label: str, headers: dict[str, str]) -> str:
    async with httpx.AsyncClient(timeout=20) as http:
        response = await http.post(os.environ["CHAOS_OUTSIDE_URL"], json={"label": label}, headers=headers)
        response.raise_for_status()
    return label
