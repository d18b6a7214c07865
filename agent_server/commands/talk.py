"""agent-server chat"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from agent_server.caller import Caller
from agent_server.commands.consent import settle
from agent_server.commands.context import CommandContext
from agent_server.commands.inputs import read_inputs
from agent_server.commands.inquiries import word_progress
from agent_server.commands.markdown import MarkdownWriter, show_markdown
from agent_server.commands.terminal import fail, say, show
from agent_server.errors import AgentServerError
from agent_server.results import tell_failure, tell_result
from agent_server.server import Server
from agent_server.turns.accept import Message
from agent_server.turns.events import (
    AgentChosen,
    Cited,
    ConfirmationAsked,
    Failed,
    Note,
    PassagesFound,
    Reset,
    TextDelta,
    ThoughtDelta,
    ToolCalled,
    ToolProgress,
    ToolReturned,
)
from agent_server.turns.models import Turn

GOODBYE = frozenset({"exit", "quit", "/exit", "/quit"})


async def chat(
    context: CommandContext,
    message: str | None,
    agent: str | None,
    conversation: str | None,
    inputs: Sequence[str],
    as_json: bool,
    trace: bool = False,
) -> int:
    values = read_inputs(inputs, context.workspace.inputs)
    server, caller = await context.server(), await context.caller()
    id: UUID | str | None = conversation or None
    await server.runner.start()
    server.tasks.runner.start()
    try:
        if message is not None:
            said = Message(text=message, conversation_id=id, agent=agent, inputs=values)
            turn = (await server.accept(caller, said)).turn
            return await _show(server, caller, turn, as_json, trace=trace)
        # In a thread: the turns of this conversation run on the event loop.
        while (typed := await asyncio.to_thread(_read_message, as_json)) is not None:
            said = Message(text=typed, conversation_id=id, agent=agent, inputs=values)
            turn = (await server.accept(caller, said)).turn
            id = turn.conversation_id
            await _show(server, caller, turn, as_json, trace=trace)
        return 0
    finally:
        if server.tasks.runner.is_busy:
            fail("A job goes on where a server runs; `agent-server job list` shows how far it is.")
        await server.tasks.runner.close()
        await server.runner.close()
        await server.close_models()


def _read_message(as_json: bool) -> str | None:
    """The next message typed; None at the end of input or a goodbye."""
    message = ""
    while not message:
        if as_json:  # `input` writes its prompt to standard output, which is for JSON alone
            print("you> ", end="", file=sys.stderr, flush=True)  # noqa: T201  # a command's prompt
        try:
            message = input("" if as_json else "you> ").strip()
        except EOFError:
            return None
    return None if message in GOODBYE else message


async def _show(server: Server, caller: Caller, turn: Turn, as_json: bool, *, trace: bool) -> int:
    """Follow a turn on the terminal, and with `trace` show what happened in it once it is over."""
    status = await _follow(server, caller, turn, as_json)
    if trace:
        from agent_server.commands.trace import show_trace  # noqa: PLC0415  # heavy

        await show_trace(server, caller, turn.id, as_json=as_json)
    return status


async def _follow(server: Server, caller: Caller, turn: Turn, as_json: bool) -> int:
    """Follow a turn on the terminal: the text on standard output, what is around it on standard error."""
    console, out = Console(stderr=True), MarkdownWriter()
    passages: dict[int, dict[str, Any]] = {}
    cited: list[int] = []
    asked: list[ConfirmationAsked] = []
    notes: list[str] = []
    failed = thinks = False
    async for numbered in server.hub.follow(turn.owner_id, turn.id):
        # None says only that nothing has come for a while.
        if numbered is None:
            continue
        event = numbered.event
        failed = failed or isinstance(event, Failed)
        if as_json:
            show(
                {"conversation": turn.conversation_id, "turn": turn.id, "seq": numbered.seq, "kind": event.kind}
                | vars(event)
            )
            continue
        match event:
            case AgentChosen(name=name):
                console.print(f"[dim]{name}[/dim]")
            case ToolCalled(name=name, input=input):
                console.print(f"[dim]→ {name} {escape(str(input))}[/dim]", highlight=False)
            case ToolProgress() as at:
                console.print(f"[dim]  {escape(word_progress(at.message, at.done, at.total))}[/dim]", highlight=False)
            case ToolReturned(name=name, error=str(error)):
                console.print(Text(tell_failure(name, server.workspace.tools.get(name), error), "dim"))
            case PassagesFound(passages=found):
                passages.update({p["n"]: p for p in found})
            case Cited(n=n):
                cited.append(n)
            case TextDelta(text=text):
                if thinks:
                    console.print()
                    thinks = False
                out.write(text)
            case ThoughtDelta(text=text):
                console.print(f"[dim italic]{escape(text)}[/dim italic]", end="", highlight=False)
                thinks = True
            case Reset():
                out.write("\n(the answer starts over)\n")
            case Note(text=text):
                notes.append(text)
            case ConfirmationAsked():
                asked.append(event)
            case Failed(message=message):
                fail(message)
    if not as_json:
        out.end()
        _show_end(console, notes, [(n, passages[n]) for n in cited], turn)
    for question in asked:
        await _settle(server, caller, question)
    return 1 if failed else 0


def _show_end(
    console: Console, notes: Sequence[str], cited: Sequence[tuple[int, Mapping[str, Any]]], turn: Turn
) -> None:
    say()
    for text in notes:
        console.print(f"[yellow]{text}[/yellow]", highlight=False)
    for n, passage in cited:
        # The backslash keeps Rich from taking the number for markup.
        console.print(f"[dim]\\[{n}] {passage['document']}: {passage['heading']}[/dim]", highlight=False)
    console.print(f"[dim]conversation {turn.conversation_id}[/dim]")


async def _settle(server: Server, caller: Caller, asked: ConfirmationAsked) -> None:
    """Ask what the turn asked, where there is a terminal to ask on; elsewhere it stays open for `/api/confirmations`."""
    # The input may be a script: what it says next is not meant as consent.
    if not sys.stdin.isatty():
        return fail(
            f"{asked.question} It waits for POST /api/confirmations/{asked.id} until {asked.expires_at:%Y-%m-%d %H:%M} UTC"
        )
    try:
        tools = server.workspace.tools
        done = await settle(server.runtime, tools, asked, caller=caller, surface="agent")
        if done is not None:
            show_markdown(tell_result(asked.tool, tools.get(asked.tool), done.output))
    except AgentServerError as error:
        fail(f"{error.code}: {error.message}")
