"""The parts of a server in a command, and who acts in it."""

import os

from agent_server.app import create_server
from agent_server.caller import Caller
from agent_server.commands.stores import LOCAL, get_user
from agent_server.db import Database
from agent_server.identity.resolver import resolve_caller
from agent_server.identity.roles import define_roles
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.ingest import ingest
from agent_server.seed import load_seeds
from agent_server.server import Server
from agent_server.settings import Settings
from agent_server.workspace import Workspace


async def fill_server(settings: Settings, workspace: Workspace, database: Database) -> Server:
    """The parts of a server, on a database that holds the seeds and the content as they are now."""
    server = create_server(settings, workspace, database)
    await load_seeds(database, workspace.seeds, workspace.root)
    await ingest(
        database, server.runtime.resources[Embedder], workspace.content, without=workspace.left_out.collections
    )
    return server


async def get_caller(settings: Settings, workspace: Workspace, database: Database) -> Caller:
    """The owner of the key in AGENT_SERVER_KEY, else the local user. Raises Unauthorized for a bad key."""
    if key := os.environ.get("AGENT_SERVER_KEY"):
        roles = define_roles(settings.roles, workspace.agent_scopes, workspace.staff_scopes)
        return await resolve_caller(database, key, roles=roles)
    return Caller(id=(await get_user(database, LOCAL)).id, kind="user", scopes=frozenset({"*"}))
