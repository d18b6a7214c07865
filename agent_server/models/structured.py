"""Answers that are data.

The model is told the schema as its provider has it (`response_format`), and in its instructions, because many servers
read no more than those, and some refuse a request that has more. An answer of another shape is sent back to the model once, with what is wrong with it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import structlog
from agents.agent_output import AgentOutputSchemaBase
from agents.exceptions import UserError
from agents.strict_schema import ensure_strict_json_schema
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseOutputMessage, ResponseUsage

import agent_server.models.single  # noqa: F401  # for the SDK, wherever agents are run
from agent_server.errors import ModelFailed
from agent_server.models.answer import Display, message_text, with_text
from agent_server.models.choice import OFFLINE
from agent_server.models.faults import Fault
from agent_server.models.outputs import REFUSED
from agent_server.prompts.output import Output, strip_fence

log = structlog.get_logger()

NEEDS_MODEL = (
    "The answers of this agent are data, which only a language model can give, and none is available; configure one, as "
    "in OPENAI_API_KEY"
)
Ask = Callable[[Sequence[dict[str, Any]], AgentOutputSchemaBase | None], Awaitable[tuple[str, Response]]]
"""Asks a model with more items behind its input and with a schema, if any. Returns the name of the one that answered and
its answer."""


class OutputSchema(AgentOutputSchemaBase):
    """The shape of an agent's answers as the run loop hands it to a model."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._strict = _is_strict(output.schema)
        self.is_refused = False
        """Whether a provider has refused a request because of it: then models have it from their instructions alone."""

    def is_plain_text(self) -> bool:
        return False

    def name(self) -> str:
        return "final_output"

    def json_schema(self) -> dict[str, Any]:
        return dict(self.output.schema)

    def is_strict_json_schema(self) -> bool:
        return self._strict

    # The text itself: `answer_in_shape` has looked at it, and a refusal is an answer, too.
    def validate_json(self, json_str: str) -> Any:
        return json_str


def _is_strict(schema: Mapping[str, Any]) -> bool:
    """Whether a schema is of the kind that OpenAI guarantees: it refuses any other one that is called strict."""
    try:
        return bool(ensure_strict_json_schema(deepcopy(dict(schema))) == schema)
    except (UserError, TypeError, ValueError):
        return False


async def answer_in_shape(ask: Ask, schema: AgentOutputSchemaBase | None, display: Display) -> tuple[str, Response]:
    """The answer of a model, of the shape that `schema` says, if it is one of ours. Raises ModelFailed where it has
    another shape twice."""
    if not isinstance(schema, OutputSchema):
        return await ask([], schema)
    name, response = await _ask_with_schema(ask, schema)
    problem = find_problem(response, schema.output)
    if problem is None:
        return name, await _without_fence(response, display)
    if name == OFFLINE:
        raise ModelFailed(NEEDS_MODEL)
    log.warning("model.wrong_shape", model=name, problem=problem)
    await display.void()
    text = _find_text(response) or ""
    name, second = await ask(
        [
            {"role": "assistant", "content": text},
            {
                "role": "user",
                "content": f"This answer has not the shape that was asked for: {problem}. Give it once more: one JSON object "
                "of the schema, and nothing else.",
            },
        ],
        None if schema.is_refused else schema,
    )
    if name == OFFLINE:
        raise ModelFailed(NEEDS_MODEL)
    again = find_problem(second, schema.output)
    if again is not None:
        await display.void()
        raise ModelFailed(f"The model's answer has not the shape that was asked for, also at the second try: {again}")
    both = second.model_copy(update={"usage": _add(response.usage, second.usage)})
    return name, await _without_fence(both, display)


async def _ask_with_schema(ask: Ask, schema: OutputSchema) -> tuple[str, Response]:
    """The answer to a request that has the schema, or to one without it where a provider refuses it."""
    if not schema.is_refused:
        try:
            return await ask([], schema)
        except ModelFailed as error:
            if not (isinstance(error.__cause__, Fault) and error.__cause__.kind == "no_shape"):
                raise
            log.warning("model.refuses_shape", said=error.__cause__.said)
            schema.is_refused = True
    return await ask([], None)


def find_problem(response: Response, output: Output) -> str | None:
    """What is wrong with the shape of an answer. Calls of tools come before one, and a refusal has none."""
    text = _find_text(response)
    if text is None:
        return None
    try:
        output.read(text)
    except ValueError as error:
        return str(error)
    return None


def is_data(response: Response, schema: AgentOutputSchemaBase | None) -> bool:
    """Whether an answer is data, and neither a call of a tool nor a refusal."""
    return isinstance(schema, OutputSchema) and _find_text(response) is not None and response.metadata != REFUSED


def _find_text(response: Response) -> str | None:
    """The text of an answer that ends a turn."""
    if any(isinstance(output, ResponseFunctionToolCall) for output in response.output):
        return None
    said = [output for output in response.output if isinstance(output, ResponseOutputMessage)]
    if any(part.type == "refusal" for message in said for part in message.content):
        return None
    return "".join(map(message_text, said))


async def _without_fence(response: Response, display: Display) -> Response:
    """The answer as JSON alone."""
    text = _find_text(response)
    if text is None or (plain := strip_fence(text)) == text.strip():
        return response
    await display.void()
    await display.add(plain)
    outputs = [with_text(o, plain) if isinstance(o, ResponseOutputMessage) else o for o in response.output]
    return response.model_copy(update={"output": outputs})


def _add(one: ResponseUsage | None, other: ResponseUsage | None) -> ResponseUsage | None:
    if one is None or other is None:
        return other or one
    counts = {
        name: getattr(one, name) + getattr(other, name) for name in ("input_tokens", "output_tokens", "total_tokens")
    }
    return other.model_copy(update=counts)
