"""agent-server prompt blame, and how a request is shown"""

import json
from collections.abc import Sequence
from uuid import UUID

from agent_server.caller import Caller
from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import fail, say
from agent_server.conversations.budget import count_tokens
from agent_server.errors import InvalidInput, NotFound
from agent_server.requests.rebuild import SentRequest, calls_of_items, rebuild_requests
from agent_server.timeline import show_request
from agent_server.turns.repository import TurnRepository


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
    print_request(request, as_json=as_json, calls=len(sent))


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


def print_request(request: SentRequest, *, as_json: bool, calls: int | None = None) -> None:
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
