"""Notes: one table and two tools over it."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Field as Column

from agent_server import Owned, Page, Repository, Timestamps, ToolContext, tool


class Note(Owned, Timestamps, table=True):
    """A row belongs to whoever added it; nobody else sees it."""

    __tablename__ = "note"

    text: str = Column(max_length=2000)


class NoteRepository(Repository[Note]):
    model = Note


class NoteView(BaseModel):
    """A note as it is given out."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    text: str
    created_at: datetime


class Notes(BaseModel):
    """Notes, newest first; `next_cursor` is null on the last page."""

    model_config = ConfigDict(from_attributes=True)

    items: list[NoteView]
    next_cursor: str | None


# `result` is how what a tool returns reads to people; without it they get labels and values.
@tool(
    scope="notes:write",
    effect="stored",
    phrases=("note that {text}", "[make|add|write] a note that {text}"),
    result="Noted: **{{ text }}**",
)
async def add_note(
    context: ToolContext,
    text: Annotated[str, Field(min_length=1, max_length=2000, description="What to remember, in the user's words.")],
) -> NoteView:
    """Write down a note for the user."""
    return NoteView.model_validate(await context.repository(NoteRepository).add(Note(text=text)))


@tool(
    scope="notes:read",
    effect="read",
    phrases=("[show|list] [me] my notes", "what are my notes"),
    result="""
    {% for note in items %}
    - {{ note.text }}
    {% else %}
    You have no notes yet. Say, for example: Note that the release is on Friday.
    {% endfor %}
    """,
)
async def list_notes(
    context: ToolContext,
    limit: Annotated[int, Field(ge=1, le=100, description="How many, at most.")] = 20,
    cursor: Annotated[str | None, Field(max_length=100, description="`next_cursor` of the page before.")] = None,
) -> Notes:
    """List the user's notes, newest first."""
    page: Page[Note] = await context.repository(NoteRepository).page(limit, cursor)
    return Notes.model_validate(page)
