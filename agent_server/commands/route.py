"""agent-server route"""

import sys

import typer

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import say, show
from agent_server.knowledge.embedders import get_embedder
from agent_server.routing.workspaces import create_router


async def route(context: CommandContext, message: str | None, stdin: bool, as_json: bool) -> None:
    if (message is None) == (not stdin):
        raise typer.BadParameter("Give one MESSAGE, or --stdin with a message per line")
    router = await create_router(context.workspace, get_embedder(context.settings.embedder))
    for text in [message] if message is not None else [line.strip() for line in sys.stdin if line.strip()]:
        decision = await router.decide(text, None)
        confidence = round(decision.confidence, 4)
        if as_json:
            agent = {"agent": decision.agent, "confidence": confidence, "decided_by": decision.decided_by}
            show({"message": text} | agent)
        else:
            say(f"{decision.agent:<16} {confidence:.2f}  {decision.decided_by:<8} {text}")
