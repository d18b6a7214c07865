"""ask_agent: a whole turn of an agent as one call.

    client                         this process                      the database
    tools/call ask_agent(message)  server.accept ------------------> the turn is stored
    <- progress: the turn's id
    <- progress: the text so far   <- the turn's events, on whichever replica it runs
    <- the answer, its citations and ids

The turn is as every other: it goes on when the client leaves, when this process ends and when it is killed. A client that
lost the answer asks again with the turn's id, here or elsewhere, and gets that of the same turn.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import anyio
import mcp_types as types

from agent_server.caller import Caller
from agent_server.errors import InvalidInput, Unavailable
from agent_server.identity.rights import require
from agent_server.mcp.back_channel import is_stopped
from agent_server.mcp.metadata import CHAT
from agent_server.mcp.own import Call, OwnTool, read_text
from agent_server.mcp.tools import MAY_BE_TASK
from agent_server.server import Server
from agent_server.tool_context import Listener
from agent_server.toolsets import ASK_AGENT
from agent_server.turns.accept import Message
from agent_server.turns.events import (
    AgentChosen,
    Cancelled,
    Cited,
    ConfirmationAsked,
    Event,
    Failed,
    PassagesFound,
    Reset,
    Snapshot,
    TextDelta,
    ToolProgress,
)
from agent_server.turns.hub import Moved
from agent_server.turns.models import Turn
from agent_server.turns.repository import TurnRepository

READ = "conversations:read"
_SOURCE = ("n", "document", "heading", "text")
_LEAST_GROWTH, _GROWTH = 40, 1.1
"""How much longer the text is before it is sent again, in characters and as a factor: each time it is sent whole."""


def needed_scope(arguments: Mapping[str, Any]) -> str:
    """What a caller must hold to ask, or to read what was answered, as in a chat."""
    return READ if arguments.get("turn_id") is not None and not arguments.get("stop") else CHAT


@dataclass
class _Answer:
    """What a turn has answered so far."""

    agent: str | None = None
    texts: dict[int, str] = field(default_factory=dict)
    passages: dict[int, dict[str, Any]] = field(default_factory=dict)
    cited: dict[int, dict[str, Any]] = field(default_factory=dict)
    questions: list[dict[str, Any]] = field(default_factory=list)
    status: str = "done"
    error: str | None = None

    def take(self, event: Event) -> None:
        match event:
            case AgentChosen(name=name):
                self.agent = name
            case PassagesFound(passages=found):
                self.passages |= {passage["n"]: passage for passage in found}
            case Cited(n=n):
                self.cited[n] = self.passages[n]
            case TextDelta(call=call, text=text):
                self.texts[call] = self.texts.get(call, "") + text
            case Reset(call=call):
                self.texts.pop(call, None)
            case ConfirmationAsked(id=id, tool=tool, question=question, expires_at=expires_at):
                self.questions.append({"id": id, "tool": tool, "question": question, "expires_at": str(expires_at)})
            case Snapshot(messages=messages):
                said = [message for message in messages if message["role"] == "assistant"]
                self.texts = {n: message["text"] or "" for n, message in enumerate(said)}
                self.cited = {source["n"]: source for message in said for source in message["sources"] or ()}
                self.agent = said[-1]["agent"] if said else None
            case Failed(code=code, message=message):
                self.status, self.error = "failed", f"{code}: {message}"
            case Cancelled():
                self.status, self.error = "cancelled", "cancelled: the turn was stopped"

    @property
    def text(self) -> str:
        return "".join(self.texts.values())

    def render(self, turn: Turn) -> types.CallToolResult:
        citations = [{name: source[name] for name in _SOURCE if name in source} for source in self.cited.values()]
        structured: dict[str, Any] = {
            "conversation_id": str(turn.conversation_id),
            "turn_id": str(turn.id),
            "status": self.status,
            "agent": self.agent,
            "text": self.text,
            "citations": citations,
        }
        if self.questions:
            structured["confirmations"] = self.questions
        if self.error is not None:
            structured["error"] = self.error
        text = json.dumps(structured, ensure_ascii=False, separators=(",", ":"))
        return types.CallToolResult(
            content=[types.TextContent(text=text)], structured_content=structured, is_error=self.error is not None
        )


@dataclass(frozen=True)
class AskAgent(OwnTool):
    """The tool. `server` gives this process's parts as they are now, `start` has it run turns, and `tasks` says that its
    calls may be tasks."""

    server: Callable[[], Server]
    start: Callable[[], Awaitable[object]] | None = None
    tasks: bool = False

    @property
    def entry(self) -> types.Tool:
        agents = self.server().workspace.specialists
        named = "; ".join(f"{agent.name}: {agent.description}" for agent in agents)
        properties = {
            "message": {"type": "string", "description": "What to ask or to have done."},
            "agent": {
                "type": "string",
                "enum": [agent.name for agent in agents],
                "description": f"Who answers; left out, the server decides. {named}",
            },
            "conversation_id": {
                "type": "string",
                "description": "The conversation to go on with, as a result named it.",
            },
            "turn_id": {
                "type": "string",
                "description": "In place of a message: the turn whose answer was lost, as progress and results name it.",
            },
            "stop": {"type": "boolean", "description": "With turn_id: stop that turn."},
        }
        return types.Tool(
            name=ASK_AGENT,
            title="Ask an agent",
            description="Ask an agent of this server, which searches its content and uses its tools, and wait for the "
            "whole answer with its citations.",
            input_schema={"type": "object", "properties": properties},
            # It may do whatever the agents' tools do; what destroys asks its user first.
            annotations=types.ToolAnnotations(destructive_hint=False, open_world_hint=True),
            execution=MAY_BE_TASK if self.tasks else None,
        )

    def may(self, caller: Caller) -> bool:
        return caller.may(CHAT)

    def authorise(self, caller: Caller, arguments: Any) -> None:
        """Raises Forbidden."""
        require(caller, needed_scope(arguments if isinstance(arguments, Mapping) else {}), ASK_AGENT)

    async def call(self, call: Call) -> types.CallToolResult:
        self.authorise(call.caller, call.arguments)
        if read_text(call.arguments, "turn_id"):
            turn = await self._find_turn(call)
        else:
            turn = await self.begin(call.caller, call.arguments, call.key)
        try:
            return await self.follow(turn, call.heard)
        # Not where the connection was lost or this process is to stop: the turn goes on, and its answer can be had.
        except anyio.get_cancelled_exc_class():
            if is_stopped():
                with anyio.CancelScope(shield=True):
                    await self.server().runner.stop_turn(turn.owner_id, turn.id)
            raise

    async def begin(self, caller: Caller, arguments: Mapping[str, Any], key: str | None) -> Turn:
        """The turn of a new message, or the one that was sent with the same key. Raises as `Server.accept`."""
        text = read_text(arguments, "message")
        if not text:
            raise InvalidInput("message: is missing; say what to ask, or send the turn_id of a turn")
        if self.start is not None:
            await self.start()
        message = Message(
            text=text,
            conversation_id=read_text(arguments, "conversation_id"),
            agent=read_text(arguments, "agent"),
            client_key=key,
        )
        return (await self.server().accept(caller, message)).turn

    async def _find_turn(self, call: Call) -> Turn:
        """The turn of the caller's that is named. One that is to stop is stopped."""
        try:
            id = UUID(str(call.arguments["turn_id"]))
        except ValueError:
            raise InvalidInput("turn_id: is no id of a turn; send it as a result or progress named it") from None
        server = self.server()
        async with server.database.transaction(call.caller.id) as session:
            turn = await TurnRepository(session, call.caller).get(id)
        if call.arguments.get("stop") is True and turn.finished_at is None:
            await server.runner.stop_turn(turn.owner_id, turn.id)
        return turn

    async def follow(self, turn: Turn, heard: Listener) -> types.CallToolResult:
        """What the turn answers, of which `heard` is told while it grows. Raises Unavailable where this process ends."""
        await heard.report_progress(0, None, f"turn_id: {turn.id}")
        answer, sent, number = _Answer(), 0, 0
        try:
            async for numbered in self.server().hub.follow(turn.owner_id, turn.id):
                if numbered is None:  # nothing has come for a while
                    continue
                answer.take(numbered.event)
                if isinstance(numbered.event, ToolProgress) and numbered.event.message:
                    await heard.log("info", numbered.event.message)
                number = numbered.seq
                length = len(answer.text)
                if length < sent:  # the answer has begun anew
                    sent = 0
                if length >= max(sent * _GROWTH, sent + _LEAST_GROWTH if sent else 1):
                    sent = length
                    await heard.report_progress(number, None, answer.text)
        except Moved:
            raise Unavailable(
                f"This server is stopping, and the turn goes on elsewhere; call again with turn_id {turn.id}"
            ) from None
        if len(answer.text) > sent:
            await heard.report_progress(number, None, answer.text)
        return answer.render(turn)
