"""The router of a workspace."""

import asyncio

from agent_server.knowledge.embedders.base import Embedder
from agent_server.routing import RoutedAgent, Router, build_router, subjects
from agent_server.workspace import Workspace


async def create_router(workspace: Workspace, embedder: Embedder) -> Router:
    """The router over the workspace's specialists."""
    agents = [
        RoutedAgent(a.name, a.description, a.examples, a.knowledge, [workspace.tools[name] for name in a.tools])
        for a in workspace.specialists
    ]
    # It goes through all of the content, which would hold up every stream of the process.
    folder, without = workspace.content, workspace.left_out.collections
    content = await asyncio.to_thread(subjects, folder, without) if len(agents) > 1 else ()
    return await build_router(embedder, agents, content)
