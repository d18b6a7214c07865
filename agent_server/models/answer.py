"""One answer of a model.

Retries, the breaker, the fallback and the deadlines are here and nowhere else. A fault before the end of an answer
voids what was shown of it, and the call is made again. A model that cannot answer is followed by the fallback. A model
that declines has answered.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol, cast

import structlog
from agents.items import TResponseStreamEvent
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputRefusal,
    ResponseOutputText,
    ResponseReasoningItem,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseReasoningTextDeltaEvent,
    ResponseRefusalDeltaEvent,
    ResponseTextDeltaEvent,
)
from openai.types.responses.response import IncompleteDetails
from openai.types.responses.response_reasoning_item import Summary

from agent_server.errors import ModelFailed
from agent_server.models.breaker import Breaker, BreakerOpen
from agent_server.models.endings import THOUGHT_IN_TEXT
from agent_server.models.faults import Fault, broken_answer, translate_faults
from agent_server.models.providers import Models
from agent_server.models.thoughts import split_unopened
from agent_server.settings import Settings

log = structlog.get_logger()

ANSWER_LIMIT = 1_000_000
"""Longest answer of one model call, characters: words, reasoning and tool arguments together."""
LONGEST_PAUSE = 30.0
"""Longest wait before a call is made again, seconds. A provider that asks for more is not asked again."""
REFUSAL = "The model declined to answer this."

Begin = Callable[[bool], AsyncIterator[TResponseStreamEvent]]
"""Begins a stream of a model's events, a new one each time. With True the model is given half of the history."""
Open = Callable[[str], Awaitable[Begin]]
"""Opens the model with a name. Raises ModelFailed when its provider cannot be used as configured."""


class Display(Protocol):
    """Where the text of an answer is shown while it comes."""

    async def add(self, delta: str) -> None:
        """Show more text."""

    async def think(self, delta: str) -> None:
        """Show more of what the model thinks."""

    async def void(self) -> None:
        """Take back what was shown."""

    def shorten(self) -> None:
        """Note that the model is given half of the history from now on."""


async def answer(models: Models, name: str, open: Open, display: Display, *, ends: float) -> tuple[str, Response]:
    """The name of the model that answered and its answer.

    The fallback answers where the model `name` cannot. `ends` is when the turn is out of time (`time.monotonic`).
    Raises ModelFailed.
    """
    fallback = models.find_fallback(name)
    try:
        return name, await _retry(models, name, await open(name), display, ends)
    except ModelFailed as error:
        if fallback is None:
            raise
        log.warning("model.fallback", model=name, fallback=fallback, reason=error.message)
    return fallback, await _retry(models, fallback, await open(fallback), display, ends)


async def _retry(models: Models, name: str, begin: Begin, display: Display, ends: float) -> Response:
    """Ask one model until it answers. Raises ModelFailed when asking once more is of no use."""
    breaker, retry, short = models.breaker(name), 0, False
    while True:
        try:
            with breaker.call(_is_failure):
                return await _stream(begin(short), display, models.settings)
        except BreakerOpen:
            raise ModelFailed(
                "The model has failed too often just now and is left alone; try again in a few seconds"
            ) from None
        except Fault as fault:
            # Also when it is not asked again: the words of the fallback must not follow these.
            await display.void()
            log.warning(
                "model.fault", model=name, reason=fault.message, said=fault.said, retry=retry, opened=breaker.open
            )
            if fault.kind == "declined":
                await display.add(REFUSAL)
                return _decline(name)
            if fault.kind == "too_long" and not short:
                display.shorten()
                short = True
                continue
            pause = 0.5 * 2**retry if fault.after is None else fault.after
            # A turn that runs out of time in a pause would end with a worse reason than this fault.
            out_of_time = pause > LONGEST_PAUSE or time.monotonic() + pause >= ends
            if _is_last(fault, retry, breaker, models.settings) or out_of_time:
                raise ModelFailed(_explain(fault, models.settings)) from fault
        await asyncio.sleep(pause)
        retry += 1


def _is_failure(error: Exception) -> bool:
    # A provider that has too much to do for one caller may have time for the next.
    return isinstance(error, Fault) and error.again and error.kind != "busy"


def _is_last(fault: Fault, retry: int, breaker: Breaker, settings: Settings) -> bool:
    return not fault.again or retry == settings.model_retries or breaker.open


def _explain(fault: Fault, settings: Settings) -> str:
    """What a user is told of a fault. Developers are told what the provider said."""
    wait = f"; try again in {math.ceil(fault.after)} seconds" if fault.after and fault.after > LONGEST_PAUSE else ""
    said = f" (it said: {fault.said})" if fault.said and settings.environment == "development" else ""
    return fault.message + wait + said


def _decline(name: str) -> Response:
    """The answer of a model whose provider refused the request for what is in it."""
    message = ResponseOutputMessage(
        id="declined",
        content=[ResponseOutputRefusal(refusal=REFUSAL, type="refusal")],
        role="assistant",
        status="completed",
        type="message",
    )
    return Response(
        id="declined",
        created_at=time.time(),
        model=name,
        object="response",
        output=[message],
        parallel_tool_calls=False,
        tool_choice="auto",
        tools=[],
        incomplete_details=IncompleteDetails(reason="content_filter"),
    )


async def _stream(events: AsyncIterator[TResponseStreamEvent], display: Display, settings: Settings) -> Response:
    """Show the text of an answer while it comes. Returns the whole answer. Raises Fault."""
    deadline = time.monotonic() + settings.model_call_timeout
    first_word = time.monotonic() + settings.model_first_token_timeout
    spoke, length = False, 0
    # Closes the connection to the provider at once, and not when the garbage collector comes to it.
    async with aclosing(cast(AsyncGenerator[TResponseStreamEvent], events)) as stream:
        while True:
            # What says nothing, such as a first chunk with a role alone, does not end the wait for the first word.
            patience = settings.model_token_timeout if spoke else settings.model_first_token_timeout
            event = await _next(stream, patience, time.monotonic() + patience if spoke else first_word, deadline)
            spoke = spoke or _says_something(event)
            length += len(getattr(event, "delta", ""))
            if length > ANSWER_LIMIT:
                raise Fault(f"The model's answer is longer than {ANSWER_LIMIT:,} characters", again=False)
            if isinstance(event, ResponseTextDeltaEvent | ResponseRefusalDeltaEvent):
                await display.add(event.delta)
            elif isinstance(event, ResponseReasoningSummaryTextDeltaEvent | ResponseReasoningTextDeltaEvent):
                await display.think(event.delta)
            elif isinstance(event, ResponseCompletedEvent):
                return await _finish(event.response, display)
            elif event.type in ("response.failed", "response.incomplete", "error"):
                raise Fault("The model did not finish its answer", again=True)


async def _finish(response: Response, display: Display) -> Response:
    """The whole answer. What it thought in its text without a beginning is parted from it. Raises Fault."""
    if _is_empty(response):
        raise Fault("The model answered with nothing", again=True)
    message = next((output for output in response.output if isinstance(output, ResponseOutputMessage)), None)
    parted = split_unopened(message_text(message)) if message is not None else None
    if message is None or parted is None:
        return response
    thought, said = parted
    if not said.strip() and not any(isinstance(output, ResponseFunctionToolCall) for output in response.output):
        raise Fault("The model answered with nothing", again=True)
    await display.void()
    await display.think(thought)
    if said:
        await display.add(said)
    spoken = [with_text(message, said)] if said else []
    rest = [output for output in response.output if output is not message]
    return response.model_copy(update={"output": [make_thought(thought), *spoken, *rest], "metadata": THOUGHT_IN_TEXT})


def with_text(message: ResponseOutputMessage, text: str) -> ResponseOutputMessage:
    """The message with this text alone."""
    part = ResponseOutputText(annotations=[], text=text, type="output_text")
    return message.model_copy(update={"content": [part]})


def make_thought(text: str) -> ResponseReasoningItem:
    """What a model thought, as the SDK keeps it."""
    return ResponseReasoningItem(id="thought", summary=[Summary(text=text, type="summary_text")], type="reasoning")


def thought_text(item: ResponseReasoningItem) -> str:
    """What a model thought."""
    return "\n".join(part.text for part in item.summary) or "\n".join(part.text for part in item.content or ())


async def _next(
    stream: AsyncIterator[TResponseStreamEvent], patience: float, silent: float, deadline: float
) -> TResponseStreamEvent:
    """The next event of a model's stream.

    After `silent` the model has said nothing for `patience` seconds, and after `deadline` it took too long
    (`time.monotonic`). Raises Fault.
    """
    try:
        async with asyncio.timeout(max(min(silent, deadline) - time.monotonic(), 0.001)):
            # Inside the timeout: a TimeoutError is an OSError, and ours would be taken for a broken connection.
            with translate_faults():
                return await anext(stream)
    except StopAsyncIteration:
        raise broken_answer() from None
    except TimeoutError:
        what = f"said nothing for {patience:g} seconds" if silent < deadline else "took too long to answer"
        raise Fault(f"The model {what}", again=True) from None


def _says_something(event: TResponseStreamEvent) -> bool:
    """Whether the event has a word of the answer, a thought, or a call in it."""
    item = getattr(event, "item", None)
    return bool(getattr(event, "delta", "")) or isinstance(item, ResponseFunctionToolCall)


def message_text(message: ResponseOutputMessage) -> str:
    """The text of a message or of a refusal."""
    return "".join(part.text if part.type == "output_text" else part.refusal for part in message.content)


def _is_empty(response: Response) -> bool:
    return not any(
        isinstance(output, ResponseFunctionToolCall)
        or (isinstance(output, ResponseOutputMessage) and message_text(output).strip())
        for output in response.output
    )
