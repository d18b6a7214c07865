"""All that is known of a turn, in the order in which it happened.

Of a turn whose events or calls are past retention the lists are empty.
"""

import json
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from agent_server.audit import TIMES_OF_TURN
from agent_server.caller import Caller
from agent_server.conversations.models import Item
from agent_server.db import Database
from agent_server.errors import NotFound
from agent_server.log import recent
from agent_server.requests.rebuild import SentRequest as Sent
from agent_server.requests.rebuild import calls_of_items, rebuild_requests
from agent_server.turns.earlier import read_events
from agent_server.turns.events import AgentChosen, Event, PassagesFound, ToolCalled, ToolReturned
from agent_server.turns.models import Status, Turn
from agent_server.turns.repository import TurnRepository


class TurnOfTimeline(BaseModel):
    """The turn itself. `usage` is what its models used, `error` is `code` and `message` of one that failed."""

    id: UUID
    conversation_id: UUID
    message: str
    status: Status
    agent: str | None
    error: dict[str, Any] | None
    usage: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None


class RankedAgent(BaseModel):
    """How much a message is one for an agent, from 0 to 1."""

    name: str
    confidence: float


class Routing(BaseModel):
    """Which agent a message went to. `decided_by` is `meaning`, `sticky`, `model`, `only` or `request`."""

    agent: str
    confidence: float
    decided_by: str
    ranked: Sequence[RankedAgent] = ()


class PassageOfTimeline(BaseModel):
    """A passage that was found. `citation` is its number in the answer, `score` how well it fits, if that is known."""

    citation: int
    document: str
    heading: str
    score: float | None
    text: str


class SentRequest(BaseModel):
    """What a model was sent. `input` are the messages without the instructions; `is_exact` is False where the request
    that was sent had another hash than the one that is shown."""

    instructions: str
    input: Sequence[Any]
    tools: Sequence[Any]
    settings: dict[str, Any]
    is_exact: bool | None = None


class ModelCallOfTimeline(BaseModel):
    """One call of a model. `no` counts from 1. Times and tokens are None where they were not kept."""

    no: int
    agent: str
    model: str
    prompt_sha: str
    started_at: datetime | None
    seconds: float | None
    first_text_seconds: float | None
    input_tokens: int | None
    output_tokens: int | None
    request: SentRequest | None
    output: Sequence[Any]


class ToolCallOfTimeline(BaseModel):
    """One call of a tool. `error` is None or `code: message`."""

    call_id: str
    name: str
    arguments: Any
    output: Any
    error: str | None
    seconds: float | None


class LogLine(BaseModel):
    """A line that the server logged about the turn."""

    at: datetime
    level: str
    event: str
    fields: dict[str, Any]


class Timeline(BaseModel):
    """What happened in a turn."""

    turn: TurnOfTimeline
    routing: Routing | None
    passages: Sequence[PassageOfTimeline]
    model_calls: Sequence[ModelCallOfTimeline]
    tool_calls: Sequence[ToolCallOfTimeline]
    log: Sequence[LogLine]


async def read_timeline(database: Database, caller: Caller, turn_id: UUID, *, rebuild: bool = True) -> Timeline:
    """What happened in a turn of the caller's. Without `rebuild` the model calls are without their requests.

    Raises NotFound.
    """
    async with database.transaction(caller.id) as session:
        turns = TurnRepository(session, caller)
        turn = await turns.get(turn_id)
        items = await turns.items(turn)
        events = await read_events(session, owner_id=caller.id, turn_id=turn_id)
        times = (await session.execute(TIMES_OF_TURN, {"owner_id": caller.id, "id": turn_id})).all()
        try:
            sent = await rebuild_requests(session, caller.id, turn_id)
        except NotFound:
            sent = []
    return Timeline(
        turn=TurnOfTimeline(
            id=turn.id,
            conversation_id=turn.conversation_id,
            message=turn.input["message"],
            status=turn.status,
            agent=turn.agent,
            error=turn.error,
            usage=turn.usage,
            created_at=turn.created_at,
            finished_at=turn.finished_at,
        ),
        routing=_read_routing(turn, events, sent),
        passages=_list_passages(events, sent),
        model_calls=_list_model_calls(items, sent, rebuild=rebuild),
        tool_calls=_list_tool_calls(events, [(row.action, row.latency_ms / 1000) for row in times]),
        log=[_read_line(line) for line in recent.find(str(turn_id))],
    )


def _read_routing(turn: Turn, events: Sequence[Event], sent: Sequence[Sent]) -> Routing | None:
    chosen = next((event for event in events if isinstance(event, AgentChosen)), None)
    ranked = [RankedAgent(name=name, confidence=value) for request in sent for name, value in request.ranked]
    if chosen is None:
        return None
    return Routing(agent=chosen.name, confidence=chosen.confidence, decided_by=chosen.decided_by, ranked=ranked)


def _list_passages(events: Sequence[Event], sent: Sequence[Sent]) -> list[PassageOfTimeline]:
    """The passages by their numbers. The log has their scores, for as long as it is kept."""
    found: dict[int, PassageOfTimeline] = {}
    for request in sent:
        for told in request.told.passages or ():
            found[told.n] = PassageOfTimeline(
                citation=told.n, document="", heading=told.heading, score=None, text=told.text
            )
    for event in events:
        for p in event.passages if isinstance(event, PassagesFound) else ():
            found[p["n"]] = PassageOfTimeline(
                citation=p["n"], document=p["document"], heading=p["heading"], score=p["score"], text=p["text"]
            )
    return [found[n] for n in sorted(found)]


def _list_model_calls(items: Sequence[Item], sent: Sequence[Sent], *, rebuild: bool) -> list[ModelCallOfTimeline]:
    made = [item for item in items if item.model is not None or item.body.get("type") in ("function_call", "reasoning")]
    bodies = [(item.k, {**item.body, "content": item.text} if item.text is not None else item.body) for item in made]
    calls = calls_of_items([(k, _with_role(body)) for k, body in bodies], sent)
    return [
        ModelCallOfTimeline(
            no=request.no,
            agent=request.agent,
            model=request.provider,
            prompt_sha=request.prompt_sha,
            started_at=datetime.fromtimestamp(request.sent_at, UTC) if request.sent_at is not None else None,
            seconds=request.seconds,
            first_text_seconds=request.first_text_seconds,
            input_tokens=request.input_tokens,
            output_tokens=request.output_tokens,
            request=show_request(request) if rebuild else None,
            output=[body for k, body in bodies if calls.get(k) == request.no],
        )
        for request in sent
    ]


def _with_role(body: Mapping[str, Any]) -> dict[str, Any]:
    return dict(body) if "type" in body else {"role": "assistant", **body}


def show_request(request: Sent) -> SentRequest:
    """A request in its parts."""
    body = json.loads(request.body)
    messages, tools = body.pop("messages"), body.pop("tools", [])
    return SentRequest(
        instructions=request.instructions,
        input=messages[1:] if request.instructions else messages,
        tools=tools,
        settings=body,
        is_exact=request.is_exact,
    )


def _list_tool_calls(events: Sequence[Event], times: Sequence[tuple[str, float]]) -> list[ToolCallOfTimeline]:
    of_tool: dict[str, deque[float]] = defaultdict(deque)
    for name, seconds in times:
        of_tool[name].append(seconds)
    found: dict[str, ToolCallOfTimeline] = {}
    for event in events:
        match event:
            case ToolCalled(call_id=id, name=name, input=arguments):
                found[id] = ToolCallOfTimeline(
                    call_id=id, name=name, arguments=arguments, output=None, error=None, seconds=None
                )
            case ToolReturned(call_id=id, name=name, output=output, error=error) if id in found:
                took = of_tool[name].popleft() if of_tool[name] else None
                found[id] = found[id].model_copy(update={"output": output, "error": error, "seconds": took})
    return list(found.values())


def _read_line(line: Mapping[str, Any]) -> LogLine:
    rest = {key: value for key, value in line.items() if key not in ("event", "level", "timestamp", "turn_id")}
    return LogLine(at=line["timestamp"], level=line["level"], event=line["event"], fields=rest)
