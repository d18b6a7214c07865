"""A process says that it lives whatever else it does: its heartbeat waits for nothing, and is nobody else's connection."""

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from structlog.testing import capture_logs

from agent_server.caller import Caller
from agent_server.db import Database, new_id
from agent_server.signals import TurnGrew
from tests.conftest import everything
from tests.proxy import proxied
from tests.turns.ledger import never, replica, until


async def _beat_of(database: Database, replica: UUID) -> datetime:
    async with everything(database) as session:
        found = await session.execute(text("select beat from replica where id = :id"), {"id": replica})
        beat: datetime = found.scalar_one()
        return beat


async def _beats(database: Database, replica: UUID, times: int = 3) -> None:
    """Wait until the replica has beaten so often."""
    for _ in range(times):
        before = await _beat_of(database, replica)

        async def beaten(before: datetime = before) -> bool:
            return await _beat_of(database, replica) > before

        await until(beaten)


async def test_hints_over_a_slow_link_and_a_pool_in_use_hold_up_no_beat_and_lose_no_connection(
    url: str, database: Database
) -> None:
    async with proxied(url) as proxy, AsyncExitStack() as stack:
        far = Database(proxy.url, pool_size=1, pool_timeout=0.5)
        here = await stack.enter_async_context(replica(far, never))
        taken = await stack.enter_async_context(far.transaction())
        await taken.connection()
        proxy.latency = 0.05

        async def hint() -> None:
            while True:
                here.runner.replica.signals.send(TurnGrew(new_id()))
                await asyncio.sleep(0.01)

        with capture_logs() as logs:
            hints = asyncio.create_task(hint())
            await _beats(database, here.runner.replica.id)
            hints.cancel()
        assert not here.runner.replica.is_silent
        assert "database.direct_lost" not in [line["event"] for line in logs]
        proxy.latency = 0.0
        await stack.aclose()
        await far.close()


async def test_turns_that_are_let_go_hold_up_no_beat(database: Database) -> None:
    async with replica(database, never, slots=100) as here:
        for _ in range(4):  # accepted and not begun: they are lost
            await here.accept(Caller(id=new_id(), kind="user"))
        async with everything(database) as session:
            await session.execute(text("select 1 from turn for update"))  # whoever lets them go waits
            await _beats(database, here.runner.replica.id)
        assert not here.runner.replica.is_silent
