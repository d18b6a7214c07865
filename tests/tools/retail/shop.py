"""A shop to test with: its staff, its customers, and two servers of it."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from agent_server.testing import AgentCaller, AgentServer, run_agent_server
from agent_server.workspace import Workspace

T = TypeVar("T")
STAFF = ("stock:*", "orders:*", "customers:*", "invoices:*")
CUSTOMER = ("purchases:read",)


def staff(server: AgentServer) -> AgentCaller:
    return server.as_caller(*STAFF)


async def add_product(clerk: AgentCaller, sku: str, pieces: int, **given: Any) -> None:
    """A product of the test's own, with so many pieces in stock."""
    about = {"name": f"Product {sku}", "currency": "EUR", "price_minor": 1000, "cost_minor": 400, "tax_rate_bp": 2000}
    await clerk.call("add_product", sku=sku, **{**about, **given})
    if pieces:
        await clerk.call("receive_stock", product=sku, quantity=pieces)


async def draft(clerk: AgentCaller, customer: str, **items: int) -> int:
    """The number of a new order: `draft(clerk, "Anna", MUG=2)`."""
    wanted = [{"product": sku.replace("_", "-"), "quantity": quantity} for sku, quantity in items.items()]
    order = await clerk.call("create_order", customer=customer, items=wanted)
    number: int = order["number"]
    return number


async def ledger(clerk: AgentCaller, sku: str) -> list[tuple[str, int]]:
    """What came and went of a product, oldest first."""
    found = await clerk.call("list_stock_movements", product=sku, limit=100)
    assert found["next_cursor"] is None
    return [(movement["kind"], movement["quantity"]) for movement in reversed(found["items"])]


@dataclass(frozen=True)
class Pair:
    """Two servers on one database, and the loop that they run in."""

    one: AgentServer
    other: AgentServer
    runner: asyncio.Runner

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)


@contextmanager
def run_pair(workspace: Workspace, url: str) -> Iterator[Pair]:
    """Two servers for a test that runs many examples in them."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def open_both() -> list[AgentServer]:
            return [await stack.enter_async_context(run_agent_server(workspace, url)) for _ in range(2)]

        try:
            one, other = runner.run(open_both())
            yield Pair(one, other, runner)
        finally:
            runner.run(stack.aclose())
