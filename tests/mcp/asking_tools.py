"""Tools that ask their user, say how far they are and what they do."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from agent_server import Accepted, Declined, ToolContext, tool
from tests.mcp.notes import Gate, Notes


class Size(BaseModel):
    """What fits."""

    size: Annotated[int, Field(ge=30, le=50, description="Your size in Europe.")]
    color: Literal["red", "blue"] = "red"
    name: str | None = None


class Sure(BaseModel):
    """A word."""

    sure: bool


@tool(scope="notes:write", effect="stored")
async def order_fins(context: ToolContext, pairs: int) -> str:
    """Order fins."""
    await context.repository(Notes).write("begun")
    size = await context.ask("Which size?", Size)
    if not isinstance(size, Accepted):
        return "declined" if isinstance(size, Declined) else "dismissed"
    sure = await context.ask(f"Order {pairs} of {size.data.size}?", Sure)
    if not isinstance(sure, Accepted) or not sure.data.sure:
        return "not sure"
    return (await context.repository(Notes).write(f"{pairs} {size.data.color} fins of {size.data.size}")).text


@tool(scope="notes:send", effect="keyed")
async def pay(context: ToolContext) -> dict[str, str]:
    """Pay on a page of the bank's."""
    context.resource(Runs).keys.append(context.idempotency_key)
    answer = await context.ask_to_open("Pay there", "https://bank.example/pay")
    return {"answer": type(answer).__name__, "key": context.idempotency_key}


@tool(scope="notes:write", effect="stored")
async def work(context: ToolContext) -> str:
    """Work and tell of it."""
    for done in (1, 2):
        await context.report_progress(done, 2, f"part {done}")
    await context.log("looked up", level="debug")
    await context.log("half done")
    await context.log("odd", level="warning")
    return "done"


@tool(scope="notes:read", effect="read")
async def quote(context: ToolContext, text: str) -> str:
    """Ask about a text."""
    return type(await context.ask(f"About {text}?", Sure)).__name__


@tool(scope="notes:read", effect="read")
async def keep_silent(context: ToolContext) -> str:
    """Wait and say nothing."""
    await context.resource(Gate).open.wait()
    return "done"


@dataclass
class Runs:
    """The keys of the runs of `pay`."""

    keys: list[str] = field(default_factory=list)


ASKING = {declared.name: declared for declared in (order_fins, pay, work, quote, keep_silent)}
