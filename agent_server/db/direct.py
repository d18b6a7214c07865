"""Whether the direct connection is one: what listens through a pooler in transaction mode hears nothing, silently."""

import asyncio
from uuid import uuid4

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from agent_server.db.database import THROUGH_POOLER, Database
from agent_server.db.outages import not_our_session
from agent_server.errors import InvalidInput, Unavailable

HEARD_WITHIN = 5.0


async def check_direct(database: Database) -> None:
    """Send a notification to an idle direct connection. Raises InvalidInput when it does not arrive, Unavailable when
    one of the two addresses does not answer."""
    try:
        connection = await database.direct()
    except Unavailable as error:
        cause = (
            error.__cause__
            if isinstance(error.__cause__, OSError | asyncpg.PostgresError)
            else "its address cannot be read"
        )
        raise Unavailable(f"{_name(database)}: the database does not answer ({cause})") from error
    try:
        heard = await _hears(connection, database)
    except (DBAPIError, asyncpg.PostgresError) as error:
        if not not_our_session(error.orig if isinstance(error, DBAPIError) else error):
            raise
        heard = False
    finally:
        connection.terminate()
    if not heard:
        raise InvalidInput(f"{_name(database)}: {THROUGH_POOLER} (a notification did not arrive)")


async def _hears(connection: asyncpg.Connection, database: Database) -> bool:
    # A channel of its own, because other replicas may make this check at the same time.
    channel, heard = f"check_{uuid4().hex}", asyncio.Event()
    await connection.add_listener(channel, lambda *_: heard.set())
    async with database.pool.begin() as pooled:
        await pooled.execute(text("select pg_notify(:channel, '')"), {"channel": channel})
    try:
        async with asyncio.timeout(HEARD_WITHIN):
            return await heard.wait()
    except TimeoutError:
        return False


def _name(database: Database) -> str:
    return "DATABASE_URL" if database.direct_url == database.url else "DATABASE_DIRECT_URL"
