"""The REST routes with a router for each noun."""

from collections.abc import Sequence

from fastapi import APIRouter

from agent_server.api import (
    audit,
    auth,
    charts,
    chat,
    clients,
    confirmations,
    conversations,
    docs,
    documents,
    feedback,
    health,
    hooks,
    jobs,
    keys,
    me,
    messages,
    page,
    passages,
    resources,
    session,
    tools,
    turns,
    users,
)
from agent_server.workspace import Workspace


def create_routers(workspace: Workspace) -> Sequence[APIRouter]:
    """Every router. The one of the tools is made from the workspace."""
    return (
        chat.router,
        turns.router,
        charts.router,
        feedback.router,
        # Before the conversations', whose paths take any id, also one with slashes.
        messages.router,
        conversations.router,
        passages.router,
        resources.router,
        documents.router,
        session.router,
        health.router,
        page.router,
        docs.create_router(),
        auth.router,
        keys.router,
        clients.router,
        users.router,
        me.router,
        audit.router,
        confirmations.router,
        hooks.router,
        jobs.router,
        tools.create_router(workspace),
    )
