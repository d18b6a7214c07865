"""Tools over the content."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field

from agent_server.errors import InvalidInput, NotFound
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.passages import OwnPassages, Passage, merge
from agent_server.late import Late
from agent_server.tool import ToolContext, tool

if TYPE_CHECKING:
    from agent_server.knowledge import search as knowledge
else:
    knowledge = Late("agent_server.knowledge.search")  # commands that list tools search nothing

KNOWLEDGE = "knowledge:read"
"""The scope that passages ask for, on every way to them."""
DOCUMENT_CHARACTERS = 20_000
DOCUMENTS = """
{% for document in items[:20] %}
- **{{ document.title }}**{% if document.description %}: {{ document.description | short }}{% endif %}
{% else %}
There are no documents.
{% endfor %}
{% if items | length > 20 %}

And {{ items | length - 20 }} more.
{% endif %}
"""
"""How documents read."""


class Passages(BaseModel):
    """Passages, best match first; `start` and `end` are character offsets in the document's file."""

    hits: list[Passage]


class DocumentText(BaseModel):
    """A document's Markdown; `truncated` where it goes on."""

    path: str
    text: str
    truncated: bool


class DocumentEntry(BaseModel):
    """A document of the content."""

    path: str
    collection: str
    title: str
    description: str


class DocumentList(BaseModel):
    """Documents, by path."""

    items: list[DocumentEntry]


@tool(
    scope=KNOWLEDGE,
    effect="read",
    phrases=("search [the content] for {query}", "search the knowledge [base] for {query}"),
)
async def search_knowledge(
    context: ToolContext,
    query: Annotated[str, Field(min_length=1, max_length=2000, description="What to look for, in the user's words.")],
    limit: Annotated[int, Field(ge=1, le=20, description="How many passages.")] = 5,
    collections: Annotated[
        list[str] | None,
        Field(
            max_length=50,
            description="Folders of the content to look in; when absent, all, and the documents of the user's own.",
        ),
    ] = None,
) -> Passages:
    """Search the content and the user's own documents, and return the passages that best match, each with its document,
    heading and text."""
    if collections is not None:
        await _refuse_unknown(context, collections)
    # An agent answers from its collections, whatever its model asks for.
    within = context.collections if collections is None else collections
    embedder = context.resource(Embedder)  # type: ignore[type-abstract]  # whichever implementation the server has
    hits = await knowledge.search(context.session, embedder, query, collections=within, limit=limit)
    own: OwnPassages | None = context.resources.get(OwnPassages)
    if own is not None and collections is None:
        hits = merge(hits, await own.search(context.session, context.caller, query, limit=limit), limit)
    return Passages(hits=hits)


async def _documents(context: ToolContext) -> "Sequence[knowledge.DocumentSummary]":
    """The documents that this call may read."""
    found = await knowledge.list_documents(context.session)
    return [d for d in found if context.collections is None or d.collection in context.collections]


async def _refuse_unknown(context: ToolContext, collections: list[str]) -> None:
    """Raise InvalidInput for folders that the content does not have for this call."""
    # Without this, a misspelt folder looks like content that says nothing about the question.
    there = {document.collection for document in await _documents(context)}
    if unknown := sorted(set(collections) - there):
        named = ", ".join(repr(name) for name in unknown)
        raise InvalidInput(
            f"collections: there is no collection {named}; there are {', '.join(map(repr, sorted(there))) or 'none'}"
        )


@tool(scope=KNOWLEDGE, effect="read", result=DOCUMENTS)
async def list_documents(context: ToolContext) -> DocumentList:
    """List the documents of the content: path, title and what each is about."""
    found = await _documents(context)
    return DocumentList(items=[DocumentEntry.model_validate(d, from_attributes=True) for d in found])


@tool(scope=KNOWLEDGE, effect="read", result="**{{ path }}**\n\n{{ text | short(600) }}")
async def read_document(
    context: ToolContext,
    document: Annotated[str, Field(max_length=500, description="Its path, as search and lists give it.")],
) -> DocumentText:
    """Read one document of the content as Markdown."""
    if context.collections is not None and document not in {d.path for d in await _documents(context)}:
        raise NotFound(f"There is no document {document!r}; list_documents shows which there are")
    text = await knowledge.read_document(context.session, document)
    return DocumentText(path=document, text=text[:DOCUMENT_CHARACTERS], truncated=len(text) > DOCUMENT_CHARACTERS)
