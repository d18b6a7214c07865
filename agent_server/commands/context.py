"""What most commands need: the workspace, the database and the local user, opened when first asked for."""

from functools import cached_property
from typing import TYPE_CHECKING

from agent_server.folders import find_root
from agent_server.settings import Settings
from agent_server.slices import LeftOut, leave_out, read_slices

if TYPE_CHECKING:
    from pathlib import Path

    from agent_server.caller import Caller
    from agent_server.db import Database
    from agent_server.server import Server
    from agent_server.workspace import Workspace


class CommandContext:
    """The parts of one command."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._database: Database | None = None

    @cached_property
    def workspace(self) -> "Workspace":
        from agent_server.inspection import open_workspace  # noqa: PLC0415  # heavy

        return open_workspace(self.settings)

    @cached_property
    def root(self) -> "Path":
        """The folder of the workspace, for what needs nothing that is loaded of it. Raises WorkspaceInvalid."""
        return find_root(self.settings.workspace)

    @property
    def content(self) -> "Path":
        return self.root / "content"

    @cached_property
    def left_out(self) -> LeftOut:
        """What belongs to the slices that are left out, for what needs nothing that is loaded of the workspace."""
        # Nothing is read where all are served, as nearly everywhere.
        chosen = self.settings.slices
        return leave_out(read_slices(self.root)[0], chosen) if chosen else LeftOut()

    async def database(self) -> "Database":
        """The database, migrated, with the tables of tools/."""
        if self._database is None:
            from agent_server.commands import stores  # noqa: PLC0415  # heavy

            await stores.migrate(self.settings, self.workspace.root, await self.raw_database())
        return await self.raw_database()

    async def engine_database(self) -> "Database":
        """The same for what needs the tables of the engine alone: tools/ is not loaded where nothing has to be migrated."""
        if self._database is None:
            from agent_server.commands import stores  # noqa: PLC0415  # heavy

            database = await self.raw_database()
            if (await stores.revisions(database, self.root)).pending:
                _ = self.workspace  # who may reach the rows of a new table follows from what declares it
            await stores.migrate(self.settings, self.root, database)
        return await self.raw_database()

    async def raw_database(self) -> "Database":
        """The database as it is."""
        if self._database is None:
            from agent_server.commands import stores  # noqa: PLC0415  # heavy

            _ = self.root  # else the embedded database would come into being in a folder that is no workspace
            self._database = await stores.open_database(self.settings)
        return self._database

    async def server(self) -> "Server":
        """The parts of a server, on a database that holds the seeds and the content as they are now."""
        from agent_server.commands import parts  # noqa: PLC0415  # heavy

        return await parts.fill_server(self.settings, self.workspace, await self.database())

    async def caller(self) -> "Caller":
        """The owner of the key in AGENT_SERVER_KEY, else the local user. Raises Unauthorized for a bad key."""
        from agent_server.commands import parts  # noqa: PLC0415  # heavy

        return await parts.get_caller(self.settings, self.workspace, await self.database())

    async def close(self) -> None:
        if self._database is not None:
            await self._database.close()
