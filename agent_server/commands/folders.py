"""agent-server prompt render | tool list: what is read of the workspace's folders alone"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent_server.commands.context import CommandContext
from agent_server.commands.inputs import read_inputs
from agent_server.commands.terminal import say, show
from agent_server.errors import InvalidInput
from agent_server.tool import describe


async def render_prompt(
    context: CommandContext,
    name: str,
    message: str | None = None,
    profile: Path | None = None,
    conversation: str | None = None,
    inputs: Sequence[str] = (),
    as_json: bool = False,
) -> None:
    workspace = context.workspace
    agent = workspace.agents.get(name) or workspace.prompts.get(name)
    if agent is None:
        alone = [each for each in workspace.prompts if each not in workspace.agents]
        raise InvalidInput(f"There is no agent {name!r}; there are {', '.join([*workspace.agents, *alone])}")
    if name not in workspace.agents and message is not None:
        raise InvalidInput(
            f"--message: {name} is a prompt of MCP clients alone, and no agent that answers; leave it out"
        )
    declared = workspace.inputs if name in workspace.agents else agent.inputs
    known, values = _read_profile(profile), read_inputs(inputs, declared)
    if message is None:
        if conversation is not None or as_json:
            raise InvalidInput("--message: is missing; say what the request is for, as in --message 'Is it safe?'")
        say(agent.render(profile=known or {}, today=datetime.now(UTC).date().isoformat(), inputs=values))
        return
    from agent_server.commands import previews  # noqa: PLC0415  # heavy

    await previews.show_preview(context, name, message, known, conversation, values, as_json=as_json)


def _read_profile(file: Path | None) -> dict[str, Any] | None:
    if file is None:
        return None
    try:
        profile = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"--profile: {file} cannot be read as JSON ({error}); write a file with {{...}}") from None
    if not isinstance(profile, dict):
        raise InvalidInput(f'--profile: {file} is no JSON object; write one, as in {{"language": "de"}}')
    return profile


async def list_tools(context: CommandContext, as_json: bool) -> None:
    tools = context.workspace.tools.values()
    if as_json:
        show([describe(tool) for tool in tools])
        return
    for tool in tools:
        say(f"{tool.name:<24} {tool.effect:<7} {tool.scope:<22} {tool.description.partition(chr(10))[0]}")
