"""All that is known of a turn, in the order in which it happened.

Of a turn whose events or calls are past retention the lists are empty.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from agent_server.turns.models import Status


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
