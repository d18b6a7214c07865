"""Conversations as MCP clients read them."""

from collections.abc import Iterator, Sequence

from agent_server.conversations.ids import CONVERSATION, LONGEST_ID
from agent_server.conversations.models import Conversation, Item
from agent_server.conversations.repository import ConversationRepository, ItemRepository
from agent_server.conversations.tools import ConversationId
from agent_server.resource import resource
from agent_server.tool import ToolContext

MOST_ITEMS = 2_000
"""Items of a transcript. Of a longer conversation it has the last turns."""
_OFFERED = 50


async def _list_ids(context: ToolContext, value: str) -> Sequence[str]:
    """The ids of the latest conversations that begin with what was typed, or whose titles hold it."""
    conversations = context.repository(ConversationRepository)
    latest = [row for row in (await conversations.page_recent(_OFFERED)).items if str(row.id).startswith(value)]
    named = (await conversations.page_recent(_OFFERED, words=value[:LONGEST_ID])).items if value.strip() else []
    return list(dict.fromkeys(str(row.id) for row in (*latest, *named)))


@resource(CONVERSATION + "{id}", scope="conversations:read", mime_type="text/markdown", complete={"id": _list_ids})
async def conversation(context: ToolContext, id: ConversationId) -> str:
    """What was said in one of the caller's conversations, as Markdown."""
    conversations = context.repository(ConversationRepository)
    row = await conversations.get(id)
    items = await ItemRepository(conversations, row).list_latest(MOST_ITEMS, before=row.next_turn)
    return "\n\n".join(_transcribe(row, items)) + "\n"


def _transcribe(row: Conversation, items: Sequence[Item]) -> Iterator[str]:
    yield f"# {' '.join(row.title.split())}"
    if items and items[0].turn_no > 1 + sum(int(number) < items[0].turn_no for number in row.replaced):
        yield "(What was said before is left out.)"
    for item in items:
        if item.role is None:
            continue
        who = "User" if item.role == "user" else f"Assistant ({item.agent})" if item.agent else "Assistant"
        yield f"**{who}**, {item.created_at:%Y-%m-%d %H:%M} UTC:\n\n{item.text or ''}"
