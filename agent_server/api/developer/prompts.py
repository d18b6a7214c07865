"""The agents and the files of their prompts, at /dev/agents."""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from agent_server.api.health import ModelView, describe_model
from agent_server.api.local import DEVELOPER, DeveloperDep
from agent_server.api.parameters import Body
from agent_server.errors import Conflict, FieldError, InvalidInput, Mistake, NotFound, WorkspaceInvalid, name_known
from agent_server.evals.edited import parse_edited
from agent_server.folders import write_file
from agent_server.http.auth import ServerDep
from agent_server.identity.profiles import read_profile
from agent_server.inspection import open_workspace
from agent_server.prompts import AgentPrompt
from agent_server.server import Server
from agent_server.workspace import Workspace

router = APIRouter(include_in_schema=False)

_LONGEST = 400_000
"""Characters of a prompt's file."""


class AgentView(BaseModel):
    """An agent, or a candidate of it, by the `name` of the file. `text` is the file as it is now, and `version` what that is
    known by; None of one that has no file."""

    name: str
    agent: str
    title: str
    description: str
    file: str
    text: str | None
    version: str | None
    tools: list[str]
    handoffs: list[str]
    examples: list[str]


class AgentsView(BaseModel):
    """What the page begins with. `profile` is what is known of the caller, `inputs` are the names of what prompts take."""

    name: str
    model: ModelView
    entry: str
    agents: list[AgentView]
    profile: dict[str, Any]
    inputs: list[str]
    message_limit: int


class Saved(BaseModel):
    """The version of what was saved. `mistakes` keep the workspace, and with it the file, from being taken over."""

    version: str
    mistakes: list[str] = []


class Save(Body):
    """A prompt's file. `version` is that of what was edited."""

    text: str = Field(max_length=_LONGEST)
    version: str


@router.get(f"{DEVELOPER}/agents")
async def list_agents(server: ServerDep, caller: DeveloperDep) -> AgentsView:
    """The agents with the files of their prompts."""
    async with server.database.transaction(caller.id) as session:
        profile = await read_profile(session, caller)
    workspace = server.workspace
    agents = await asyncio.to_thread(lambda: [_view(agent, workspace) for agent in _list_versions(workspace)])
    return AgentsView(
        name=server.settings.title,
        model=describe_model(server),
        entry=workspace.entry,
        agents=agents,
        profile=profile,
        inputs=list(workspace.inputs),
        message_limit=server.settings.message_limit,
    )


@router.put(f"{DEVELOPER}/agents/{{name}}")
async def save_prompt(name: str, body: Save, request: Request, server: ServerDep, caller: DeveloperDep) -> Saved:
    """Write the file of an agent's prompt. Turns that begin from now on are answered by it.

    With a mistake in it nothing is written. Raises Conflict where the file has changed since it was read.
    """
    versions = {_name(version): version for version in _list_versions(server.workspace)}
    agent = versions.get(name)
    path = None if agent is None else find_file(agent, server.workspace)
    if agent is None or path is None:
        raise NotFound(f"There is no file of an agent {name!r}; {name_known(name, versions)}")
    if parse_text(body.text, server.workspace).name != agent.name:
        raise InvalidInput(f"name: is another agent's; the file {agent.file} is that of {agent.name!r}")
    before = await asyncio.to_thread(path.read_bytes)
    if _version(before) != body.version:
        raise Conflict(f"{agent.file} has changed since it was read; load it again, and edit that")
    text = body.text.replace("\r\n", "\n")
    after = (text.replace("\n", "\r\n") if b"\r\n" in before else text).encode()
    await asyncio.to_thread(write_file, path, after)
    mistakes = await _take_over(request, server)
    if own := [mistake for mistake in mistakes if mistake.file == agent.file]:
        await asyncio.to_thread(write_file, path, before)
        raise _wrong(own)
    return Saved(version=_version(after), mistakes=[str(mistake) for mistake in mistakes])


async def _take_over(request: Request, server: Server) -> Iterable[Mistake]:
    """Have the workspace as it is now answer; where it has mistakes, return them, and the version before goes on."""
    try:
        workspace = await asyncio.to_thread(open_workspace, server.settings)
    except WorkspaceInvalid as error:
        return error.problems
    await request.app.state.take_over(workspace)
    return []


def parse_text(text: str, workspace: Workspace) -> AgentPrompt:
    """The prompt that the text of a file is. Raises InvalidInput with every mistake in it."""
    try:
        return parse_edited(text, "prompt", workspace)
    except WorkspaceInvalid as error:
        raise _wrong(error.problems) from None


def _wrong(mistakes: Iterable[Mistake]) -> InvalidInput:
    found = [FieldError(f"line {m.line}" if m.line else "prompt", m.message) for m in mistakes]
    return InvalidInput("; ".join(f"{one.field}: {one.message}" for one in found), found)


def _list_versions(workspace: Workspace) -> Sequence[AgentPrompt]:
    return [version for agent in workspace.agents.values() for version in agent.versions]


def _name(version: AgentPrompt) -> str:
    """The name of a version's file, or the agent's where it has none."""
    return version.file.rpartition("/")[2].removesuffix(".md") or version.name


def find_file(agent: AgentPrompt, workspace: Workspace) -> Path | None:
    """The file of an agent's prompt; None of one that the engine has made."""
    path = (workspace.root / agent.file).resolve()
    return path if path.is_file() and path.is_relative_to(workspace.root / "prompts") else None


def _view(agent: AgentPrompt, workspace: Workspace) -> AgentView:
    path = find_file(agent, workspace)
    data = None if path is None else path.read_bytes()
    return AgentView(
        name=_name(agent),
        agent=agent.name,
        title=agent.title if _name(agent) == agent.name else f"{agent.title}, {_name(agent)}.md",
        description=agent.description,
        file=agent.file,
        text=None if data is None else data.decode(errors="replace").removeprefix("\ufeff").replace("\r\n", "\n"),
        version=None if data is None else _version(data),
        tools=list(agent.tools),
        handoffs=list(agent.handoffs),
        examples=list(agent.examples),
    )


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
