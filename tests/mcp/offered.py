"""Prompts and resources of the small workspace of these tests."""

import base64
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from agent_server import ToolContext, resource
from agent_server.conversations.resources import conversation
from agent_server.errors import NotFound
from agent_server.mcp import Offers, Watching
from agent_server.prompts import load_prompts
from agent_server.workspace import Workspace
from tests.mcp.notes import TOOLS, Notes

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)
PROMPTS = {
    "plan": """---
name: plan
description: Plan a dive.
mcp: true
inputs:
  site: {description: Where to dive.}
  depth: {type: integer, default: 18}
  mood: {enum: [calm, wild, "wild and calm"], default: calm, description: How it should feel.}
  month: {examples: [May, June, July], default: May}
---
Plan a {{ mood }} dive at {{ site }} in {{ month }}, to {{ depth }} m.
""",
    "look": """---
name: look
description: Look at the map.
mcp: only
inputs: {page: {default: "content://safety/flying.md"}}
---
Look at the map.

![The map](notes://map)
![The page]({{ page }})
![A picture of somebody else's](https://example.com/a.png)

What is on it?
""",
    "tidy": """---
name: tidy
description: Tidy the notes.
tools: [drop_note]
mcp: only
---
Tidy my notes.
""",
    "secret": "---\nname: secret\ndescription: An agent of the house.\n---\nYou know the vault.\n",
}


class NoteView(BaseModel):
    """A note and its number."""

    number: int
    text: str


@resource("notes://all", scope="notes:read", mime_type="text/markdown", icon="https://example.com/notes.png")
async def all_notes(context: ToolContext) -> str:
    """The caller's notes."""
    return "\n".join(f"- {text}" for text in await context.repository(Notes).texts())


async def _numbers(context: ToolContext, value: str) -> list[str]:
    numbers = map(str, range(1, len(await context.repository(Notes).texts()) + 1))
    return [number for number in numbers if number.startswith(value)]


@resource("notes://{number}", scope="notes:read", complete={"number": _numbers})
async def one_note(context: ToolContext, number: Annotated[int, Field(ge=1)]) -> NoteView:
    """One of the caller's notes, by its number."""
    texts = await context.repository(Notes).texts()
    if number > len(texts):
        raise NotFound(f"There is no note {number}")
    return NoteView(number=number, text=texts[number - 1])


@resource("notes://map", scope="notes:read", mime_type="image/png")
async def note_map(context: ToolContext) -> bytes:
    """A picture."""
    return PNG


@resource("notes://{kind}/{+path}", scope="notes:read", mime_type="text/plain")
async def filed_note(context: ToolContext, kind: Literal["log", "list"], path: str) -> str:
    """A note in a folder."""
    return f"{kind}: {path}"


RESOURCES = (all_notes, one_note, note_map, filed_note, conversation)


def create_offers(root: Path, watching: Watching | None = None, prompts: dict[str, str] | None = None) -> Offers:
    """What a workspace of these prompts and resources offers."""
    (root / "prompts").mkdir(exist_ok=True)
    for name, text in (PROMPTS if prompts is None else prompts).items():
        (root / "prompts" / f"{name}.md").write_text(text)
    loaded, mistakes = load_prompts(root / "prompts", root)
    assert mistakes == []
    return Offers(
        Workspace(
            root=root,
            name="notes",
            tools=TOOLS,
            agents={},
            entry="",
            prompts={name: prompt for name, prompt in loaded.items() if prompt.mcp},
            resources=RESOURCES,
        ),
        watching,
    )
