"""agent-server check"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import say, show
from agent_server.errors import InvalidInput, Mistake
from agent_server.evals.cases import list_files, read_cases
from agent_server.inspection import Findings, inspect_workspace
from agent_server.settings import Settings, default_settings
from agent_server.wording import count


async def check(context: CommandContext, as_json: bool) -> int:
    return _check(context.settings, (), as_json)


def check_by_defaults(error: InvalidInput, workspace: Path | None, *, as_json: bool) -> int:
    """Say what is wrong with the settings beside what is wrong with the workspace. Returns the exit code."""
    where, _, what = error.message.partition(": ")
    return _check(default_settings(workspace), [Mistake(where, None, what)], as_json)


def _check(settings: Settings, wrong: Sequence[Mistake], as_json: bool) -> int:
    found = inspect_workspace(settings)
    mistakes = [*wrong, *found.mistakes, *found.pages, *_find_wrong_cases(found)]
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


def _find_wrong_cases(found: Findings) -> Iterator[Mistake]:
    # Of an agent or a tool that was not read, each case would say that it is not there.
    if found.workspace is None or any(one.file.startswith(("prompts/", "tools/")) for one in found.mistakes):
        return
    for file in list_files(found.workspace.root, found.workspace.left_out.evals):
        yield from read_cases(file, found.workspace)[1]
