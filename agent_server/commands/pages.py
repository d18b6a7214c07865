"""agent-server content validate"""

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import say, show
from agent_server.knowledge.parse import read_folder
from agent_server.wording import count


async def validate(context: CommandContext, as_json: bool) -> int:
    reading = read_folder(context.settings.workspace.resolve() / "content", without=context.left_out.collections)
    pages, problems = reading.pages, reading.mistakes
    if as_json:
        show([vars(problem) for problem in problems])
    else:
        for problem in problems:
            say(str(problem))
        for remark in reading.remarks:
            say(f"{remark} (a remark)")
        say(count(len(problems), "mistake") if problems else f"{count(len(pages), 'page', ('is', 'are'))} in order")
    return 1 if problems else 0
