"""agent-server prompt render | tool list | content validate: what is read of the workspace's folders alone"""

from datetime import UTC, datetime

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import say, show
from agent_server.errors import InvalidInput
from agent_server.knowledge.parse import read_content
from agent_server.tool import describe
from agent_server.wording import count


async def render_prompt(context: CommandContext, name: str) -> None:
    agent = context.workspace.agents.get(name)
    if agent is None:
        raise InvalidInput(f"There is no agent {name!r}; there are {', '.join(context.workspace.agents)}")
    say(agent.render(today=datetime.now(UTC).date().isoformat()))


async def list_tools(context: CommandContext, as_json: bool) -> None:
    tools = context.workspace.tools.values()
    if as_json:
        show([describe(tool) for tool in tools])
        return
    for tool in tools:
        say(f"{tool.name:<24} {tool.effect:<7} {tool.scope:<22} {tool.description.partition(chr(10))[0]}")


async def validate_content(context: CommandContext, as_json: bool) -> int:
    pages, problems = read_content(context.settings.workspace.resolve() / "content")
    if as_json:
        show([vars(problem) for problem in problems])
    else:
        for problem in problems:
            say(str(problem))
        say(count(len(problems), "mistake") if problems else f"{count(len(pages), 'page', ('is', 'are'))} in order")
    return 1 if problems else 0
