"""A server that has nothing to do leaves its database alone, and loses nothing by it."""

import asyncio
from uuid import UUID

from agent_server.db import new_id
from agent_server.db.sleep import Sleep
from agent_server.errors import Unavailable
from tests.conftest import execute, fetch
from tests.server import Start
from tests.turns.ledger import until

_CONNECTED = """
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'agent-server' and backend_start > '{since}'"""
_REPLICAS = "select count(*) from replica"
_JOB = "select due_at > now() from job where kind = 'expire_rates'"


async def test_a_server_without_work_has_no_connection_until_somebody_comes(start: Start, stocked_url: str) -> None:
    ((since,),) = await fetch(stocked_url, "select clock_timestamp()")

    async def is_asleep() -> bool:
        return await fetch(stocked_url, _CONNECTED.format(since=since)) == [(0,)]

    async def has_done_the_job() -> bool:
        return await fetch(stocked_url, _JOB) == [(True,)]

    async def is_answered(turn: UUID) -> bool:
        return await fetch(stocked_url, f"select status from turn where id = '{turn}'") == [("done",)]

    async with start(database_sleep=0.2) as client:
        first = await client.ask("Hello")
        await until(is_asleep)
        # It has taken leave: others do not wait for it.
        assert await fetch(stocked_url, _REPLICAS) == [(0,)]
        # A job is due, and a replica has died within a turn.
        ((turn,),) = await fetch(stocked_url, "select id from turn")
        await execute(
            stocked_url,
            "update job set due_at = now() - interval '1 hour' where kind = 'expire_rates'",
            f"update turn set status = 'running', finished_at = null, owner = '{new_id()}'",
        )
        for probe in ("/health", "/readyz"):
            assert (await client.http.get(probe)).status_code == 200
        assert await is_asleep()
        assert not await has_done_the_job()
        assert not await is_answered(turn)
        # Somebody comes.
        second = await client.ask("And now?")
        assert second["conversation_id"] != first["conversation_id"]
        await until(has_done_the_job)
        await until(lambda: is_answered(turn))
        await until(is_asleep)
        assert len(await client.get("/api/conversations")) >= 1


async def test_who_wakes_a_process_waits_until_its_database_answers() -> None:
    sleep, slept, tries = Sleep(0.01), asyncio.Event(), 3

    async def lie_down() -> None:
        slept.set()

    async def get_up() -> None:
        nonlocal tries
        tries -= 1
        if tries:
            raise Unavailable("not yet")

    running = asyncio.create_task(sleep.run(lambda: False, lie_down, get_up))
    await slept.wait()
    with sleep.work():
        assert sleep.is_asleep
        await sleep.wake()
        assert (sleep.is_asleep, tries) == (False, 0)
    running.cancel()
