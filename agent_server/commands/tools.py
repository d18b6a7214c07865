"""agent-server tool call"""

import asyncio
import difflib
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import typer

from agent_server.caller import Caller
from agent_server.calls.call import Runtime, ask_first, call_tool
from agent_server.calls.confirmations import find_asker
from agent_server.commands.consent import settle
from agent_server.commands.context import CommandContext
from agent_server.commands.inquiries import put_inquiry, show_call
from agent_server.commands.jobs import call_long
from agent_server.commands.markdown import show_markdown
from agent_server.commands.terminal import fail, show
from agent_server.questions import Answers, Asked
from agent_server.results import tell_result
from agent_server.tool import Tool


async def call(
    context: CommandContext, name: str, arguments: Sequence[str], json_arguments: str | None, yes: bool = False
) -> int:
    tool = context.workspace.tools.get(name)
    if tool is None:
        near = difflib.get_close_matches(name, context.workspace.tools, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`agent-server tool list` shows which there are"
        raise typer.BadParameter(f"There is no tool {name!r}; {hint}")
    values = _options(arguments) if json_arguments is None else json_arguments
    # A person at a terminal reads sentences; a program, and whoever writes the arguments as JSON, gets JSON.
    in_words = json_arguments is None and sys.stdout.isatty()
    if json_arguments is not None and arguments:
        raise typer.BadParameter("Give the arguments as --NAME VALUE or as --json, not both")
    asks = find_asker(tool, "cli") == "terminal" and not yes
    if asks and not sys.stdin.isatty():
        raise typer.BadParameter(f"{tool.name} loses something for good; without a terminal to ask on, give --yes")
    server, caller = await context.server(), await context.caller()
    if asks:
        question = await ask_first(server.runtime, tool, values, caller=caller, surface="cli")
        done = await settle(server.runtime, context.workspace.tools, question, caller=caller, surface="cli")
        if done is None:
            fail("Not done.")
            return 1
        output = done.output
    elif tool.is_job:
        output = await call_long(server, tool, values, caller)
    else:
        output = await _call(server.runtime, tool, values, caller)
    show_markdown(tell_result(name, tool, output)) if in_words else show(output)
    return 0


async def _call(runtime: Runtime, tool: Tool[..., Any], values: Mapping[str, Any] | str, caller: Caller) -> Any:
    """Make the call, and put what the tool asks to whoever sits at the terminal. Raises as `call_tool`."""
    asks = sys.stdin.isatty()
    answers = Answers(key=uuid4().hex, can=frozenset({"forms", "urls"} if asks else ()))
    while True:
        try:
            with show_call(tool.title) as listener:
                return await call_tool(
                    runtime, tool, values, caller=caller, surface="cli", listener=listener, answers=answers
                )
        except Asked as asked:
            answers = asked.answers
            for inquiry in asked.inquiries:
                answers = answers.add(inquiry, await asyncio.to_thread(put_inquiry, inquiry))


def _options(words: Sequence[str]) -> dict[str, str]:
    """`--due 2026-12-01 --limit=5` as arguments. The tool reads each as its schema has it. Raises
    typer.BadParameter."""
    values: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise typer.BadParameter(f"{word!r}: write arguments as --NAME VALUE")
        name, given, value = word[2:].partition("=")
        # Options are written with hyphens by custom, and Python's names have none.
        name = name.replace("-", "_")
        if not given:
            if not rest:
                raise typer.BadParameter(f"--{name} needs a value")
            value = rest.pop(0)
        values[name] = value
    return values
