"""Tools for the caller's own conversations."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from agent_server.conversations.ids import LONGEST_ID
from agent_server.conversations.repository import ConversationRepository, ItemRepository
from agent_server.errors import Conflict
from agent_server.tool import Loss, ToolContext, tool

Limit = Annotated[int, Field(ge=1, le=100, description="How many, at most.")]
Cursor = Annotated[str | None, Field(max_length=200, description="`next_cursor` of the page before.")]
ConversationId = Annotated[
    str, Field(min_length=1, max_length=LONGEST_ID, description="The conversation's id, ours or the client's own.")
]


CONVERSATIONS = """
{% for conversation in items %}
- **{{ conversation.title }}**, {{ conversation.updated_at | date }}
{% else %}
There are no such conversations.
{% endfor %}
{% if next_cursor %}

There are more.
{% endif %}
"""
MESSAGES = """
{% for message in items %}
- **{{ "You" if message.role == "user" else "Answer" }}**: {{ message.text | short }}
{% else %}
Nothing has been said.
{% endfor %}
{% if next_cursor %}

There are more.
{% endif %}
"""
"""How conversations read."""


class ConversationSummary(BaseModel):
    """A conversation; `agent` is the specialist that answered last."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    title: str
    agent: str | None
    created_at: datetime
    updated_at: datetime


class Conversations(BaseModel):
    """Conversations, latest activity first."""

    model_config = ConfigDict(from_attributes=True)

    items: list[ConversationSummary]
    next_cursor: str | None


class SaidMessage(BaseModel):
    """What was said, by whom."""

    model_config = ConfigDict(from_attributes=True)

    role: str
    text: str
    agent: str | None
    created_at: datetime


class Messages(BaseModel):
    """Messages, oldest first."""

    items: list[SaidMessage]
    next_cursor: str | None


class Count(BaseModel):
    """How many there are."""

    count: int


class Deleted(BaseModel):
    """What was deleted."""

    id: UUID


@tool(scope="conversations:read", effect="read", result=CONVERSATIONS)
async def list_conversations(context: ToolContext, limit: Limit = 20, cursor: Cursor = None) -> Conversations:
    """List the caller's conversations, latest activity first."""
    page = await context.repository(ConversationRepository).page_recent(limit, cursor)
    return Conversations.model_validate(page, from_attributes=True)


@tool(scope="conversations:read", effect="read", result=CONVERSATIONS)
async def search_conversations(
    context: ToolContext,
    text: Annotated[str, Field(min_length=1, max_length=200, description="Words in the title or in a message.")],
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Conversations:
    """Find the caller's conversations whose title or messages hold a text, latest activity first."""
    page = await context.repository(ConversationRepository).page_recent(limit, cursor, text)
    return Conversations.model_validate(page, from_attributes=True)


@tool(
    scope="conversations:read",
    effect="read",
    result="There {{ 'is' if count == 1 else 'are' }} {{ count }} conversation{{ '' if count == 1 else 's' }}.",
)
async def count_conversations(context: ToolContext) -> Count:
    """Count the caller's conversations."""
    return Count(count=await context.repository(ConversationRepository).count())


@tool(scope="conversations:read", effect="read", result="**{{ title }}**, last changed on {{ updated_at | date }}")
async def get_conversation(context: ToolContext, conversation_id: ConversationId) -> ConversationSummary:
    """Read one of the caller's conversations: its title, last specialist and times."""
    row = await context.repository(ConversationRepository).get(conversation_id)
    return ConversationSummary.model_validate(row)


@tool(scope="conversations:read", effect="read", result=MESSAGES)
async def list_messages(
    context: ToolContext, conversation_id: ConversationId, limit: Limit = 50, cursor: Cursor = None
) -> Messages:
    """List the messages of one of the caller's conversations, oldest first."""
    conversations = context.repository(ConversationRepository)
    row = await conversations.get(conversation_id)
    page = await ItemRepository(conversations, row).page(limit, cursor)
    said = [SaidMessage.model_validate(item) for item in page.items if item.role is not None]
    return Messages(items=said, next_cursor=page.next_cursor)


@tool(scope="conversations:write", effect="stored", result="It is now called **{{ title }}**.")
async def rename_conversation(
    context: ToolContext,
    conversation_id: ConversationId,
    title: Annotated[str, Field(min_length=1, max_length=200, description="The new title.")],
) -> ConversationSummary:
    """Give one of the caller's conversations another title."""
    row = await context.repository(ConversationRepository).get(conversation_id, lock=True)
    row.title = title
    # `updated_at` is set as the row is written.
    await context.session.flush()
    return ConversationSummary.model_validate(row)


async def _conversation_lost(context: ToolContext, conversation_id: ConversationId) -> list[Loss]:
    # Not locked where a turn only has its user asked: the turn's other calls write to its own conversation meanwhile.
    row = await context.repository(ConversationRepository).get(conversation_id, lock=context.turn_id is None)
    return [Loss(row.id, row.title)]


@tool(
    scope="conversations:write",
    effect="stored",
    destructive=True,
    losses=_conversation_lost,
    result="The conversation was deleted.",
)
async def delete_conversation(context: ToolContext, conversation_id: ConversationId) -> Deleted:
    """Delete one of the caller's conversations with all its messages. This cannot be undone."""
    conversations = context.repository(ConversationRepository)
    row = await conversations.get(conversation_id)
    # The turn that makes this call would lose its own row, and could not write its end.
    if context.turn_id is not None and row.id == context.conversation_id:
        raise Conflict("This is the conversation that is being answered; the user may delete it from the list")
    await conversations.remove(row)
    return Deleted(id=row.id)
