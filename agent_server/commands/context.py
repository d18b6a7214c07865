"""What most commands need: the workspace, the database and the local user, opened when first asked for."""

import os
from functools import cached_property

from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from agent_server.app import connect, create_server, migrate
from agent_server.caller import Caller
from agent_server.db import Database
from agent_server.errors import InvalidInput, Unavailable
from agent_server.identity.models import User
from agent_server.identity.resolver import resolve_caller
from agent_server.identity.roles import ADMIN, define_roles
from agent_server.identity.users import LOCAL_USER, create_user, find_user
from agent_server.inspection import open_workspace
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.ingest import ingest
from agent_server.seed import load_seeds
from agent_server.server import Server
from agent_server.settings import Settings
from agent_server.workspace import Workspace

LOCAL = LOCAL_USER


class CommandContext:
    """The parts of one command."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._database: Database | None = None

    @cached_property
    def workspace(self) -> Workspace:
        return open_workspace(self.settings)

    async def database(self) -> Database:
        """The database, migrated."""
        if self._database is None:
            await migrate(self.settings, self.workspace, await self.raw_database())
        return await self.raw_database()

    async def raw_database(self) -> Database:
        """The database as it is."""
        if self._database is None:
            self._database = await open_database(self.settings)
        return self._database

    async def server(self) -> Server:
        """The parts of a server, on a database that holds the seeds and the content as they are now."""
        server = create_server(self.settings, self.workspace, await self.database())
        await load_seeds(server.database, self.workspace.seeds, self.workspace.root)
        await ingest(server.database, server.runtime.resources[Embedder], self.workspace.content)
        return server

    async def caller(self) -> Caller:
        """The owner of the key in AGENT_SERVER_KEY, else the local user. Raises Unauthorized for a bad key."""
        database = await self.database()
        if key := os.environ.get("AGENT_SERVER_KEY"):
            workspace = self.workspace
            roles = define_roles(self.settings.roles, workspace.agent_scopes, workspace.staff_scopes)
            return await resolve_caller(database, key, roles=roles)
        return Caller(id=(await get_user(database, LOCAL)).id, kind="user", scopes=frozenset({"*"}))

    async def close(self) -> None:
        if self._database is not None:
            await self._database.close()


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


async def get_user(database: Database, name: str) -> User:
    """The user of that name; the local one comes into being when it is first needed. Raises InvalidInput."""
    async with database.transaction(scopes=["users:*"]) as session:
        user = await find_user(session, name)
        # Nobody should have to make a user before a first try on their own machine.
        if user is None and name == LOCAL:
            user = await create_user(session, name, roles=[ADMIN])
    if user is None:
        raise InvalidInput(f"There is no user {name!r}; `agent-server user create {name}` makes one")
    return user
