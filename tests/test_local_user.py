"""The local user comes into being once, whichever commands need it first."""

import asyncio

from agent_server.commands.stores import LOCAL, get_user
from agent_server.db import Database


async def test_commands_that_need_the_local_user_at_one_time_get_the_same(database: Database) -> None:
    users = await asyncio.gather(*(get_user(database, LOCAL) for _ in range(8)))
    assert len({user.id for user in users}) == 1
