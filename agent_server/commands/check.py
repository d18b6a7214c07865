"""agent-server check"""

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import say, show
from agent_server.inspection import inspect_workspace
from agent_server.wording import count


async def check(context: CommandContext, as_json: bool) -> int:
    found = inspect_workspace(context.settings)
    mistakes = [*found.mistakes, *found.pages]
    if as_json:
        entries = [("mistake", mistake) for mistake in mistakes] + [("remark", remark) for remark in found.remarks]
        show([{**vars(one), "severity": severity} for severity, one in entries])
        return 1 if mistakes else 0
    for mistake in mistakes:
        say(str(mistake))
    for remark in found.remarks:
        say(f"{remark} (a remark)")
    counted = [count(len(mistakes), "mistake")] if mistakes else ["The workspace is in order"]
    counted += [count(len(found.remarks), "remark")] if found.remarks else []
    say(", ".join(counted))
    return 1 if mistakes else 0
