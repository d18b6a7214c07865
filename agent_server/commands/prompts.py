"""agent-server prompt list | schema | diff"""

import importlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
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
from agent_server.requests.sources import STORED_FILE, find_prompt
from agent_server.wording import count
from agent_server.workspace import Workspace

EVALS = "agent_server.evals.compare"
"""What compares the answers and the scores of two prompts, where it is there."""
_HASH = frozenset("0123456789abcdef")
_SHORTEST_HASH = 6


async def list_prompts(context: CommandContext, as_json: bool) -> None:
    versions = [version for agent in _list_files(context.workspace).values() for version in agent.versions]
    if as_json:
        show([_describe(version) for version in versions])
        return
    for version in versions:
        share = "" if version.share is None else f"{version.share:g} %"
        model = version.model or ""
        say(
            f"{version.name:<20} {version.version or '':<12} {share:<6} {version.sha:<16} {version.file:<32} {model}".rstrip()
        )


def _list_files(workspace: Workspace) -> Mapping[str, AgentPrompt]:
    """The agents, and the prompts that are none, by name."""
    alone = {name: prompt for name, prompt in workspace.prompts.items() if name not in workspace.agents}
    return {**workspace.agents, **alone}


def _describe(version: AgentPrompt) -> dict[str, Any]:
    keys = (
        "name",
        "version",
        "share",
        "sha",
        "file",
        "description",
        "model",
        "temperature",
        "max_turns",
        "rephrase",
        "tools",
        "mcp",
    )
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
    stored = [prompt for prompt in (one, other) if prompt.file == STORED_FILE]
    if stored and cases:
        raise InvalidInput(
            f"--cases: only the text of {stored[0].sha} is stored, which is not enough to run it; give a file"
        )
    found = compare(one, other, text_only=bool(stored))
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
    if stored:
        hashes = " and ".join(prompt.sha for prompt in stored)
        console.print(f"The front matter of {hashes} is not stored: this compares what the model is told.")
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
        # None: what is stored of a prompt has no front matter.
        "keys": None if STORED_FILE in (one.file, other.file) else [vars(key) for key in found.keys],
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
    files = _list_files(workspace)
    versions = [version for agent in files.values() for version in agent.versions]
    if name in files:
        return files[name]
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
    return await _find_stored(context, name)


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


async def _find_stored(context: CommandContext, name: str) -> AgentPrompt:
    """The text of the prompt that made messages of the caller's. Raises NotFound, which says why there is none."""
    caller = await context.caller()
    named = col(Item.prompt_version) == name
    if _is_hash(name):
        named |= col(Item.prompt_sha).startswith(name)
    made = select(Item).where(col(Item.owner_id) == caller.id, named, col(Item.prompt_sha).is_not(None))
    # What is past retention is so for all turns before it.
    latest = made.order_by(col(Item.created_at).desc(), col(Item.turn_id).desc()).limit(1)
    async with (await context.database()).transaction(caller.id) as session:
        last = (await session.execute(latest)).scalar_one_or_none()
        if last is None or last.prompt_sha is None:
            known = name_known(name, context.workspace.agents)
            raise NotFound(f"There is no agent, file, version or stored hash {name!r}; of agents {known}")
        if (found := await find_prompt(session, caller.id, last.turn_id, last.prompt_sha)) is not None:
            return found
        messages = select(func.count()).where(col(Item.owner_id) == caller.id, Item.prompt_sha == last.prompt_sha)
        made_by_it = (await session.execute(messages)).scalar_one()
    raise NotFound(
        f"{name} made {count(made_by_it, 'message')} of {last.agent} until {last.created_at:%Y-%m-%d %H:%M} UTC. Only the "
        f"hash of that prompt is stored by now, {last.prompt_sha}, and not its text: give the file that it was, from your "
        "version control"
    )
