"""agent-server prompt render, agent-server prompt blame"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from agent_server.caller import Caller
from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import fail, say
from agent_server.conversations.budget import count_tokens
from agent_server.errors import InvalidInput, NotFound
from agent_server.requests.rebuild import SentRequest, calls_of_items, rebuild_requests
from agent_server.timeline import show_request
from agent_server.turns.repository import TurnRepository


async def render(
    context: CommandContext,
    name: str,
    message: str | None,
    profile: Path | None,
    conversation: str | None,
    as_json: bool,
) -> None:
    agent = context.workspace.agents.get(name)
    if agent is None:
        raise InvalidInput(f"There is no agent {name!r}; there are {', '.join(context.workspace.agents)}")
    known = _read_profile(profile)
    if message is None:
        if conversation is not None or as_json:
            raise InvalidInput("--message: is missing; say what the request is for, as in --message 'Is it safe?'")
        say(agent.render(profile=known or {}, today=datetime.now(UTC).date().isoformat()))
        return
    from agent_server.commands.previews import preview  # noqa: PLC0415  # heavy

    _print(await preview(context, name, message, known, conversation), as_json=as_json)


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


async def blame(context: CommandContext, message: str, call: int | None, owner: str | None, as_json: bool) -> None:
    turn_id, k = _read_name(message)
    database = await context.database()
    caller = await context.caller()
    if owner is not None:
        # Who runs this command holds the address of the database, and may read every row as it is.
        caller = Caller(id=_read_id(owner, "--owner"), kind="user")
    async with database.transaction(caller.id) as session:
        turns = TurnRepository(session, caller)
        turn = await turns.get(turn_id)
        items = await turns.items(turn)
        sent = await rebuild_requests(session, caller.id, turn_id)
    if not sent:
        raise NotFound("No model was sent anything for this message: no answer of it was stored")
    if call is None and k is not None:
        made = [(i.k, {"role": "assistant"} if i.model else i.body) for i in items if i.model or "type" in i.body]
        call = calls_of_items([(n, b) for n, b in made if b.get("type") != "function_call_output"], sent).get(k)
    numbers = [request.no for request in sent]
    if call is not None and call not in numbers:
        raise NotFound(f"There is no model call {call} in this turn; there are {', '.join(map(str, numbers))}")
    request = next((each for each in sent if each.no == call), sent[-1])
    _print(request, as_json=as_json, calls=len(sent))


def _read_name(message: str) -> tuple[UUID, int | None]:
    """The turn and the item that a message's id names."""
    turn, _, k = message.partition(".")
    if k and not k.isdecimal():
        raise InvalidInput("MESSAGE: after the point stands a number, as in 019a....3")
    return _read_id(turn, "MESSAGE"), int(k) if k else None


def _read_id(text: str, what: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput(f"{what}: {text!r} is no id; they look like 01a224b5-10d6-7360-89ba-b879cb65c7e1") from None


def _print(request: SentRequest, *, as_json: bool, calls: int | None = None) -> None:
    if as_json:
        # As it was sent, to the byte.
        say(request.body.decode())
    else:
        for line in describe(request, calls):
            say(line)
    if request.is_exact is False:
        fail("This is not to the byte what was sent: another version of the server sent it, or its items were changed")


def describe(request: SentRequest, calls: int | None = None) -> Sequence[str]:
    """A request for people, in sections with about how many tokens each is."""
    shown = show_request(request)
    head = [f"agent {request.agent}", f"prompt {request.prompt_sha}", f"model {request.provider}"]
    lines = [f"# Model call {request.no}" + (f" of {calls}" if calls else ""), "  ".join(head)]
    if request.is_exact is not None:
        lines.append("to the byte what was sent" if request.is_exact else "not to the byte what was sent")
    lines += [_title("Settings", json.dumps(shown.settings)), json.dumps(shown.settings, ensure_ascii=False)]
    lines.append(_title("Instructions", request.instructions))
    for section in request.sections:
        lines += [_title(f"  {section.name}", section.text), section.text.strip("\n")]
    lines.append(_title("Messages", json.dumps(shown.input)))
    for message in shown.input:
        text = message.get("content") or ""
        lines += [_title(f"  {message['role']}", text if isinstance(text, str) else json.dumps(text))]
        lines += [str(text)] if text else []
        lines += [f"-> {c['function']['name']} {c['function']['arguments']}" for c in message.get("tool_calls", ())]
    lines.append(_title("Tools", json.dumps(shown.tools)))
    lines += [f"  {tool['function']['name']:<28} {count_tokens(json.dumps(tool)):>5} tokens" for tool in shown.tools]
    return lines


def _title(name: str, text: str) -> str:
    return f"\n## {name} (about {count_tokens(text) if text else 0:,} tokens)"
