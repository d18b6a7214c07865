"""The database of a command, and the users in it."""

from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from agent_server.db import Database
from agent_server.db.revisions import revisions
from agent_server.errors import Conflict, InvalidInput, Unavailable
from agent_server.identity.models import User
from agent_server.identity.roles import ADMIN
from agent_server.identity.users import LOCAL_USER, create_user, find_user
from agent_server.settings import Settings
from agent_server.storage import connect, migrate

__all__ = ["LOCAL", "get_user", "migrate", "open_database", "revisions"]

LOCAL = LOCAL_USER


async def open_database(settings: Settings) -> Database:
    """The database of the settings, which answers. Raises Unavailable that says why it does not, without a password."""
    try:
        database = connect(settings)
    except (ValueError, SQLAlchemyError):  # neither is shown: they quote the address, perhaps with its password
        raise _wrong_address() from None
    try:
        await database.make_login()
        await database.check()
    except (ValueError, TypeError):
        raise _wrong_address() from None
    except (Unavailable, DBAPIError) as error:
        await database.close()
        # Only the driver's own words: the text of SQLAlchemy's error holds the statement and its parameters.
        cause = error.orig if isinstance(error, DBAPIError) else error.__cause__
        raise Unavailable(
            f"The database at {_place(make_url(database.url))} does not answer ({cause}); start it, or correct DATABASE_URL"
        ) from error
    return database


def _wrong_address() -> InvalidInput:
    form = "postgresql://user:password@host:5432/database"
    return InvalidInput(f"DATABASE_URL: write {form}; in a password, %40 stands for @, %2F for /, %3A for a colon")


def _place(url: URL) -> str:
    # Host, port and name only: the rest of the address may hold a password.
    return f"{url.host or url.query.get('host', 'localhost')}:{url.port or 5432}/{url.database or ''}"


async def _find(database: Database, name: str) -> User | None:
    async with database.transaction(scopes=["users:*"]) as session:
        return await find_user(session, name)


async def get_user(database: Database, name: str) -> User:
    """The user of that name; the local one comes into being when it is first needed. Raises InvalidInput."""
    user = await _find(database, name)
    # Nobody should have to make a user before a first try on their own machine.
    if user is None and name == LOCAL:
        try:
            async with database.transaction(scopes=["users:*"]) as session:
                return await create_user(session, name, roles=[ADMIN])
        except Conflict:  # another command has made it meanwhile
            user = await _find(database, name)
    if user is None:
        raise InvalidInput(f"There is no user {name!r}; `agent-server user create {name}` makes one")
    return user
