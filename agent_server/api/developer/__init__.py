"""What the developer page asks, under /dev: in development and from this machine alone (`local`)."""

from collections.abc import Sequence

from fastapi import APIRouter

from agent_server.api.developer import cases, page, prompts, runs, timelines


def create_developer_routers() -> Sequence[APIRouter]:
    """Every router of the developer page."""
    return (page.router, timelines.router, runs.router, prompts.router, cases.router)
