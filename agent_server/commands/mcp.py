"""agent-server mcp"""

import asyncio

from agent_server.commands.context import CommandContext
from agent_server.mcp.process import create_mcp
from agent_server.mcp.stdio import serve_stdio


async def mcp(context: CommandContext, toolset: str | None) -> None:
    server = await context.server()
    caller = await context.caller()
    starting, runs = asyncio.Lock(), False

    async def start() -> None:
        # With the first question to an agent, or the first task: a client that only calls tools needs no process that
        # runs turns. It takes up what a process before this one has left as well.
        nonlocal runs
        async with starting:
            if not runs:
                await server.runner.start()
                server.tasks.runner.start()
                runs = True

    try:
        await serve_stdio(create_mcp(server, caller, toolset, start=start))
    finally:
        if runs:
            await server.tasks.runner.close()
            await server.runner.close()
            await server.close_models()
