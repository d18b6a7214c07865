"""What a request is answered with: the parts of this process, reached through `request.app.state`."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from agent_server.call import Runtime
from agent_server.db import Database
from agent_server.orchestrator.models import ModelChoice
from agent_server.settings import Settings
from agent_server.turns.hub import Hub
from agent_server.turns.runner import Runner
from agent_server.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Server:
    """One process's parts."""

    runtime: Runtime
    workspace: Workspace
    hub: Hub
    runner: Runner
    model: ModelChoice

    @property
    def settings(self) -> Settings:
        return self.runtime.settings

    @property
    def database(self) -> Database:
        return self.runtime.database

    @property
    def guest_scopes(self) -> frozenset[str]:
        """What a guest's agents may use: as set, else what the tools that the agents list need, and its own talk."""
        if self.settings.guest_scopes is not None:
            return frozenset(self.settings.guest_scopes)
        return self.workspace.agent_scopes | {"forms:read", "conversations:read", "conversations:write"}


def get_server(request: Request) -> Server:
    return cast(Server, request.app.state.server)


ServerDep = Annotated[Server, Depends(get_server)]
