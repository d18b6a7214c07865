"""A turn as a case of evals/, at /dev/cases."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

import yaml
from fastapi import APIRouter
from pydantic import BaseModel, Field

from agent_server.api.developer.runs import read_own
from agent_server.api.local import DEVELOPER, DeveloperDep
from agent_server.api.parameters import Body
from agent_server.errors import InvalidInput, NotFound
from agent_server.evals.adding import make_case
from agent_server.evals.cases import FOLDER, append_case, list_files, read_cases
from agent_server.evals.yaml_text import dump_yaml
from agent_server.http.auth import ServerDep
from agent_server.requests.rebuild import rebuild_requests
from agent_server.workspace import Workspace

router = APIRouter(include_in_schema=False)

_FILE = re.compile(r"[a-z0-9][a-z0-9_-]{0,60}\.ya?ml")


class CaseView(BaseModel):
    """A case as YAML, with what happened as what is expected. `files` are those it may be put into."""

    text: str
    file: str
    files: list[str]


class Add(Body):
    """A case as YAML, and the file in evals/ that it is put at the end of."""

    file: str = Field(max_length=70)
    text: Annotated[str, Field(max_length=200_000)]


class Added(BaseModel):
    """Where the case stands, as `agent-server eval run` takes it."""

    id: str


@router.get(f"{DEVELOPER}/turns/{{turn}}/case")
async def draft_case(turn: UUID, server: ServerDep, caller: DeveloperDep) -> CaseView:
    """The case that a turn of the caller's would be."""
    stored = await read_own(server, caller, turn)
    async with server.database.transaction(caller.id) as session:
        try:
            sent = await rebuild_requests(session, caller.id, turn)
        except NotFound:
            sent = []
    if sent:
        # What its agents were told, which a run may have replaced.
        stored = replace(stored, profile=dict(sent[0].told.profile))
    workspace = server.workspace
    names = await asyncio.to_thread(_list_names, workspace)
    case = make_case(stored, workspace, names, with_profile=True)
    files = [path.name for path in list_files(workspace.root, workspace.left_out.evals)]
    agent = stored.reply.answer.agent or workspace.entry
    first = next((name for name in files if name.startswith(f"{agent}.")), f"{agent}.yaml")
    text = dump_yaml(case, width=100)
    return CaseView(text=text, file=first, files=files)


@router.post(f"{DEVELOPER}/cases", status_code=201)
async def add_case(body: Add, server: ServerDep, caller: DeveloperDep) -> Added:
    """Put a case at the end of a file. Raises InvalidInput with what is wrong with it, and nothing is written."""
    if not _FILE.fullmatch(body.file):
        raise InvalidInput("file: name one of evals/, as in support.yaml")
    folder = server.workspace.root / FOLDER
    path = folder / body.file
    if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
        raise InvalidInput("file: is a link out of evals/; name another")
    case = _read_yaml(body.text)
    await asyncio.to_thread(append_case, path, case)
    return Added(id=f"{FOLDER}/{body.file}::{case['name']}")


def _read_yaml(text: str) -> dict[str, Any]:
    try:
        case = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(f"case: is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(case, dict):
        raise InvalidInput("case: is none; write `name: A note is kept` and `inputs: Remind me to buy fins`")
    return case


def _list_names(workspace: Workspace) -> Sequence[str]:
    """The names of the cases that there are."""
    return [
        case.name
        for path in list_files(workspace.root, workspace.left_out.evals)
        for case in read_cases(path, workspace)[0]
    ]
