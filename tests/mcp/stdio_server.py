"""`python -m tests.mcp.stdio_server DATABASE_URL CALLER_ID SCOPE...`: what `agent-server mcp` does, with the notes."""

import asyncio
import sys
from uuid import UUID

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.db import Database
from agent_server.log import configure_logging
from agent_server.mcp.server import create_mcp_server
from agent_server.mcp.stdio import serve_stdio
from agent_server.settings import Settings
from tests.mcp.asking_tools import ASKING
from tests.mcp.notes import DOCUMENTS, TOOLS, Gate


async def main(url: str, id: str, *scopes: str) -> None:
    configure_logging("INFO", "json")
    database = Database(url)
    caller = Caller(id=UUID(id), kind="user", scopes=frozenset(scopes))
    runtime = Runtime(settings=Settings(), database=database, resources={Gate: Gate()})
    server = create_mcp_server(
        runtime,
        {**TOOLS, **ASKING},
        name="notes",
        version="1.0",
        instructions="Notes.",
        caller=lambda: caller,
        documents=DOCUMENTS,
    )
    await serve_stdio(server)
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
