"""agent-server prompt list | schema | diff"""

import importlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text
from sqlalchemy import func
from sqlmodel import col, select

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import say, show
from agent_server.conversations.models import Item
from agent_server.errors import InvalidInput, NotFound, WorkspaceInvalid, name_known
from agent_server.prompts import AgentPrompt, read_prompt
from agent_server.prompts.comparison import Comparison, compare
from agent_server.prompts.schema import front_matter_schema
from agent_server.wording import count
from agent_server.workspace import Workspace

EVALS = "agent_server.evals.compare"
"""What compares the answers and the scores of two prompts, where it is there."""
_HASH = frozenset("0123456789abcdef")
_SHORTEST_HASH = 6


async def list_prompts(context: CommandContext, as_json: bool) -> None:
    versions = [version for agent in context.workspace.agents.values() for version in agent.versions]
    if as_json:
        show([_describe(version) for version in versions])
        return
    for version in versions:
        share = "" if version.share is None else f"{version.share:g} %"
        model = version.model or ""
        say(
            f"{version.name:<20} {version.version or '':<12} {share:<6} {version.sha:<16} {version.file:<32} {model}".rstrip()
        )


def _describe(version: AgentPrompt) -> dict[str, Any]:
    keys = ("name", "version", "share", "sha", "file", "description", "model", "temperature", "max_turns", "tools")
    return {
        **{key: getattr(version, key) for key in keys},
        "knowledge": version.knowledge,
        "handoffs": version.handoffs,
        "inputs": {name: declared.model_dump(exclude_none=True) for name, declared in version.inputs.items()},
        "output": version.output and version.output.schema,
        "parts": sorted(version.parts),
    }


async def show_schema(context: CommandContext) -> None:
    say(json.dumps(front_matter_schema(), indent=2))


async def diff_prompts(context: CommandContext, before: str, after: str, cases: bool, as_json: bool) -> int:
    one, other = [await _find(context, name) for name in (before, after)]
    found = compare(one, other)
    if as_json:
        show(
            {
                **_as_json(one, other, found),
                **({"cases": (await _compare_cases(context, one, other)).as_json()} if cases else {}),
            }
        )
        return 0
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text.assemble(("- ", "red"), _title(one)))
    console.print(Text.assemble(("+ ", "green"), _title(other)))
    for line, style in _write(found):
        console.print(Text(line, style))
    if found.is_same:
        console.print("They say the same.")
    if cases:
        for line in (await _compare_cases(context, one, other)).tell():
            console.print(line)
    return 0


async def _compare_cases(context: CommandContext, one: AgentPrompt, other: AgentPrompt) -> Any:
    """What evals say of the answers and scores of both. Raises InvalidInput where this server has none."""
    try:
        there = importlib.util.find_spec(EVALS)
    except ModuleNotFoundError:
        there = None
    if there is None:
        raise InvalidInput("--cases: this server was installed without cases; leave it out")
    return await importlib.import_module(EVALS).compare_prompts(context, one, other)


def _as_json(one: AgentPrompt, other: AgentPrompt, found: Comparison) -> dict[str, Any]:
    return {
        "before": {"name": one.name, "version": one.version, "sha": one.sha, "file": one.file},
        "after": {"name": other.name, "version": other.version, "sha": other.sha, "file": other.file},
        "same": found.is_same,
        "keys": [vars(key) for key in found.keys],
        "text": found.text,
    }


def _title(prompt: AgentPrompt) -> str:
    version = f" {prompt.version}" if prompt.version else ""
    return f"{prompt.name}{version} ({prompt.file}, {prompt.sha})"


def _write(found: Comparison) -> Iterator[tuple[str, str]]:
    """The lines of a difference, each with its style."""
    for each in found.keys:
        if isinstance(each.before, list) and isinstance(each.after, list):
            gone = [value for value in each.before if value not in each.after]
            new = [value for value in each.after if value not in each.before]
            yield f"{each.key}:" + ("" if gone or new else " in another order"), "bold"
            yield from ((f"  - {value}", "red") for value in gone)
            yield from ((f"  + {value}", "green") for value in new)
        else:
            yield f"{each.key}:", "bold"
            yield f"  - {_plain(each.before)}", "red"
            yield f"  + {_plain(each.after)}", "green"
    for line in found.text[2:]:
        style = "cyan" if line.startswith("@@") else "red" if line[:1] == "-" else "green" if line[:1] == "+" else ""
        yield line, style


def _plain(value: Any) -> str:
    if value is None:
        return "(not said)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


async def _find(context: CommandContext, name: str) -> AgentPrompt:
    """The prompt that a name, a file, a version or a hash stands for. Raises NotFound and WorkspaceInvalid."""
    workspace = context.workspace
    versions = [version for agent in workspace.agents.values() for version in agent.versions]
    if name in workspace.agents:
        return workspace.agents[name]
    # An agent and a version, or either as it stands in the list.
    if named := [v for v in versions if v.version and name in (f"{v.name}.{v.version}", v.version)]:
        if len(named) > 1:
            several = ", ".join(f"{v.name}.{v.version}" for v in named)
            raise InvalidInput(f"{name!r} is the version of several agents; write one of {several}")
        return named[0]
    if hashed := [v for v in versions if _is_hash(name) and v.sha.startswith(name)]:
        return hashed[0]
    for path in (Path(name), workspace.root / name):
        if path.is_file():
            return _read(path, workspace)
    raise NotFound(await _explain_missing(context, name))


def _is_hash(name: str) -> bool:
    return len(name) >= _SHORTEST_HASH and set(name) <= _HASH


def _read(path: Path, workspace: Workspace) -> AgentPrompt:
    resolved = path.resolve()
    for version in (v for agent in workspace.agents.values() for v in agent.versions):
        if resolved == (workspace.root / version.file).resolve():
            return version
    prompt, mistakes = read_prompt(path, workspace.root / "prompts", workspace.root, workspace.agents)
    if mistakes or prompt is None:
        raise WorkspaceInvalid(mistakes)
    return prompt


async def _explain_missing(context: CommandContext, name: str) -> str:
    """Why there is no text for a name. It may be one that stored messages have."""
    caller = await context.caller()
    named = col(Item.prompt_version) == name
    if _is_hash(name):
        named |= col(Item.prompt_sha).startswith(name)
    last = func.max(Item.created_at)
    made = select(Item.agent, Item.prompt_sha, func.count(), last).where(col(Item.owner_id) == caller.id, named)
    async with (await context.database()).transaction(caller.id) as session:
        grouped = made.group_by(col(Item.agent), col(Item.prompt_sha)).order_by(last.desc()).limit(1)
        stored = (await session.execute(grouped)).one_or_none()
    if stored is None:
        known = name_known(name, context.workspace.agents)
        return f"There is no agent, file, version or stored hash {name!r}; of agents {known}"
    agent, sha, messages, when = stored
    return (
        f"{name} made {count(messages, 'message')} of {agent} until {when:%Y-%m-%d %H:%M} UTC. Only the hash of "
        f"that prompt is stored, {sha}, and not its text: give the file that it was, from your version control"
    )
