"""Tools for the caller's own documents."""

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from agent_server.documents.models import READ, WRITE
from agent_server.late import Late
from agent_server.tool import Loss, ToolContext, tool

if TYPE_CHECKING:
    from agent_server.documents import repository, shelf
else:
    repository, shelf = Late("agent_server.documents.repository"), Late("agent_server.documents.shelf")

LONGEST_TEXT = 100_000
"""Characters that a tool takes of a document. A longer one is sent as a file (`POST /api/documents`)."""
PART = 20_000
"""Characters of a document that a tool gives at once."""

DOCUMENTS = """
{% for document in items %}
- **{{ document.name }}**{% if document.title != document.name %}: {{ document.title | short }}{% endif %}, {{ document.updated_at | date }}
{% else %}
You have no documents of your own.
{% endfor %}
{% if next_cursor %}

There are more.
{% endif %}
"""
"""How own documents read."""

Reference = Annotated[str, Field(min_length=1, max_length=200, description="The document's name or id.")]


class MyDocument(BaseModel):
    """A document of the caller's own. `size` is what counts against the quota, in bytes."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    title: str
    size: int
    passages: int
    created_at: datetime
    updated_at: datetime


class MyDocuments(BaseModel):
    """Documents of the caller's own, the last added first."""

    model_config = ConfigDict(from_attributes=True)

    items: list[MyDocument]
    next_cursor: str | None


class MyDocumentText(BaseModel):
    """A part of a document's text. It goes on at `next_start`."""

    id: UUID
    name: str
    text: str
    next_start: int | None


class DeletedDocument(BaseModel):
    """What was deleted."""

    id: UUID
    name: str


@tool(
    scope=WRITE, effect="stored", result="**{{ name }}** is among your documents; your questions find it from now on."
)
async def add_my_document(
    context: ToolContext,
    name: Annotated[str, Field(min_length=1, max_length=200, description="What the document is called.")],
    text: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT, description="Its text, plain or Markdown.")],
) -> MyDocument:
    """Add a text to the documents of the user's own, which only this user's questions find. One of the same name is
    replaced."""
    own = context.resource(shelf.Shelf)
    name, content = shelf.tidy_name(name), text.encode()
    documents = context.repository(repository.OwnDocuments)
    row = await documents.find_latest(name)
    if row is None or row.sha != await asyncio.to_thread(own.sign, name, content):
        row = (await documents.put(name, await own.index(name, content), own.quota)).document
    return MyDocument.model_validate(row)


@tool(
    scope=READ,
    effect="read",
    phrases=("list [all] my [own] documents", "show [me] [all] my [own] documents"),
    result=DOCUMENTS,
)
async def list_my_documents(
    context: ToolContext,
    limit: Annotated[int, Field(ge=1, le=100, description="How many, at most.")] = 50,
    cursor: Annotated[str | None, Field(max_length=100, description="`next_cursor` of the page before.")] = None,
) -> MyDocuments:
    """List the documents of the user's own, the last added first."""
    page = await context.repository(repository.OwnDocuments).page_latest(limit, cursor)
    return MyDocuments.model_validate(page, from_attributes=True)


@tool(scope=READ, effect="read", result="**{{ name }}**\n\n{{ text | short(600) }}")
async def read_my_document(
    context: ToolContext,
    document: Reference,
    start: Annotated[int, Field(ge=0, description="The character to begin at.")] = 0,
) -> MyDocumentText:
    """Read a document of the user's own, as Markdown, a part at a time."""
    row = await context.repository(repository.OwnDocuments).get_named(document)
    end = start + PART
    return MyDocumentText(
        id=row.id, name=row.name, text=row.text[start:end], next_start=end if end < len(row.text) else None
    )


async def _document_lost(context: ToolContext, document: Reference) -> list[Loss]:
    row = await context.repository(repository.OwnDocuments).get_named(document, lock=True)
    return [Loss(row.id, row.name)]


@tool(
    scope=WRITE,
    effect="stored",
    destructive=True,
    losses=_document_lost,
    phrases=("delete my [own] document {document}", "remove my [own] document {document}"),
    result="**{{ name }}** was deleted.",
)
async def delete_my_document(context: ToolContext, document: Reference) -> DeletedDocument:
    """Delete a document of the user's own. This cannot be undone."""
    documents = context.repository(repository.OwnDocuments)
    row = await documents.get_named(document)
    await documents.remove(row)
    return DeletedDocument(id=row.id, name=row.name)
