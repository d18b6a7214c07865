"""The pictures of charts at /api/turns/{turn}/charts/{call}."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel

from agent_server.charts.chart import Chart
from agent_server.charts.drawing import CannotDraw, Drawings
from agent_server.charts.looks import Look, Theme
from agent_server.charts.telling import list_charts
from agent_server.conversations.calls import read_calls
from agent_server.conversations.history import OF_TURN
from agent_server.errors import NotFound, quote_value
from agent_server.http.auth import ReaderDep, ServerDep
from agent_server.turns.repository import TurnRepository

router = APIRouter(tags=["conversations"])


class Picture(BaseModel):
    """A chart of a result. `alt` says what it shows. `svg` is None where it could not be drawn, and `note` says why."""

    title: str
    alt: str
    svg: str | None = None
    note: str | None = None


@router.get("/api/turns/{turn}/charts/{call}")
async def draw_charts(
    turn: UUID, call: str, caller: ReaderDep, server: ServerDep, theme: Theme = "light", narrow: bool = False
) -> list[Picture]:
    """The charts in the result of a call, drawn for a light or a dark page. With `narrow` they fit a phone."""
    async with server.database.transaction(caller.id) as session:
        row = await TurnRepository(session, caller).get(turn)
        of_turn = {"owner_id": row.owner_id, "conversation_id": row.conversation_id, "turn_no": row.turn_no}
        items: Sequence[Any] = (await session.execute(OF_TURN, of_turn)).all()
    found = next((each for each in read_calls(items) if each.call_id == call), None)
    if found is None:
        raise NotFound(f"This turn has no call {quote_value(call)}")
    look = Look("svg", theme, narrow)
    return await asyncio.gather(*(_draw(server.runtime.drawings, each, look) for each in list_charts(found.output)))


async def _draw(drawings: Drawings, chart: Chart, look: Look) -> Picture:
    try:
        svg = (await drawings.draw(chart, look)).decode()
    except CannotDraw as error:
        return Picture(title=chart.title, alt=chart.alt, note=str(error))
    return Picture(title=chart.title, alt=chart.alt, svg=svg)
