"""A small workspace for these tests: notes, kept as rows of the audit table so that no table is needed for them."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, Field
from sqlmodel import col, func, select

from agent_server.audit import Audit, AuditRepository
from agent_server.errors import Conflict, Forbidden, InvalidInput, NotFound, TooMany, Unavailable
from agent_server.mcp import Documents
from agent_server.resource import announce
from agent_server.tool import Loss, ToolContext, tool


class Notes(AuditRepository):
    async def write(self, text: str) -> "Note":
        row = Audit(caller_kind="note", surface="note", action=text, outcome="note", latency_ms=0)
        return Note(text=(await self.add(row)).action)

    async def losses(self) -> list[Loss]:
        rows = await self.session.execute(self.visible().where(col(Audit.outcome) == "note"))
        return [Loss(row.id, row.action) for row in rows.scalars()]

    async def texts(self) -> list[str]:
        rows = await self.session.execute(self.visible().where(col(Audit.outcome) == "note").order_by(col(Audit.at)))
        return [row.action for row in rows.scalars()]


class Note(BaseModel):
    """What a tool shows of a note."""

    text: str
    topic: str | None = None


@dataclass
class Gate:
    """Lets a test know that a tool has begun, and that it was stopped; `open` lets one end that nobody stopped."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)


@tool(scope="notes:write", effect="stored")
async def add_note(context: ToolContext, text: Annotated[str, Field(max_length=40)], topic: str | None = None) -> Note:
    """Write a note."""
    note = await context.repository(Notes).write(text)
    announce(context, "notes://all")
    return note.model_copy(update={"topic": topic})


@tool(scope="notes:read", effect="read", title="All notes")
async def list_notes(context: ToolContext) -> list[Note]:
    """List the caller's notes, oldest first."""
    return [Note(text=text) for text in await context.repository(Notes).texts()]


@tool(scope="notes:read", effect="read")
async def count_notes(context: ToolContext) -> int:
    """Count the caller's notes."""
    counted = select(func.count()).select_from(context.repository(Notes).visible().subquery())
    return (await context.session.execute(counted)).scalar_one()


async def _notes_lost(context: ToolContext) -> list[Loss]:
    return await context.repository(Notes).losses()


@tool(scope="notes:write", effect="stored", destructive=True, losses=_notes_lost)
async def drop_notes(context: ToolContext) -> None:
    """Delete every note."""
    await context.repository(Notes).write("dropped all")


@tool(scope="notes:write", effect="stored", destructive=True)
async def drop_note(context: ToolContext, text: str) -> Note:
    """Delete a note."""
    return await context.repository(Notes).write(f"dropped: {text}")


@tool(scope="notes:send", effect="keyed")
async def share_note(context: ToolContext, text: str) -> dict[str, str | None]:
    """Share a note by a service that knows our idempotency keys."""
    return {"text": text, "key": context.idempotency_key}


@tool(scope="notes:send", effect="once")
async def mail_note(context: ToolContext, text: str) -> str:
    """Mail a note."""
    return text


@tool(scope="notes:read", effect="read")
async def long_note(context: ToolContext, length: int) -> str:
    """Return a note of some length."""
    return "é" * length


@tool(scope="notes:read", effect="read")
async def odd_note(context: ToolContext, number: bool) -> float | str:
    """Return what JSON cannot hold."""
    return float("nan") if number else "half a pair: \ud83e"


Failure = Literal["invalid", "missing", "conflict", "busy", "away", "forbidden", "bug"]


@tool(scope="notes:write", effect="stored")
async def fail(context: ToolContext, how: Failure) -> str:
    """Write a note, then fail."""
    await context.repository(Notes).write("never kept")
    match how:
        case "invalid":
            raise InvalidInput("text: must not be empty")
        case "missing":
            raise NotFound("There is no note 7")
        case "conflict":
            raise Conflict("The note is closed")
        case "busy":
            raise TooMany("Ten notes a minute")
        case "away":
            raise Unavailable("The shelf is away")
        case "forbidden":
            raise Forbidden("This note is sealed")
        case "bug":
            raise ZeroDivisionError("password=hunter2")


@tool(scope="notes:write", effect="stored")
async def wait_forever(context: ToolContext) -> None:
    """Write a note and wait."""
    await context.repository(Notes).write("half done")
    gate = context.resource(Gate)
    gate.begun.set()
    try:
        await gate.open.wait()
    finally:
        gate.stopped.set()


@tool(scope="notes:read", effect="read")
async def chatter(context: ToolContext) -> str:
    """Print to standard output, as careless tools do."""
    print("this is not JSON-RPC")  # noqa: T201
    return "said it"


TOOLS = {
    declared.name: declared
    for declared in (
        wait_forever,
        add_note,
        list_notes,
        count_notes,
        drop_note,
        drop_notes,
        share_note,
        mail_note,
        long_note,
        odd_note,
        fail,
        chatter,
    )
}


@dataclass(frozen=True)
class Page:
    path: str
    title: str


PAGES = {
    Page("safety/flying.md", "Flying after diving"): "# Flying\n\nWait 18 hours.",
    Page("destinations/über uns.md", "About us"): "# Über uns",
}


async def list_pages(after: str | None, most: int) -> list[Page]:
    pages = sorted(PAGES, key=lambda page: page.path)
    return [page for page in pages if after is None or page.path > after][:most]


async def read_page(path: str) -> str:
    assert "\x00" not in path  # Postgres would not even compare it
    for page, text in PAGES.items():
        if page.path == path:
            return text
    raise NotFound("There is no such document; resources/list shows which there are")


DOCUMENTS = Documents(scope="knowledge:read", list_documents=list_pages, read_document=read_page)
