"""One answer of a model.

Retries, the breaker, the fallback and the deadlines are here and nowhere else. A fault before the end of an answer
voids what was shown of it, and the call is made again. A model that cannot answer is followed by the fallback.
"""

import asyncio
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
    ResponseRefusalDeltaEvent,
    ResponseTextDeltaEvent,
)

from agent_server.errors import ModelFailed
from agent_server.models.breaker import Breaker, BreakerOpen
from agent_server.models.faults import Fault, broken_answer, translate_faults
from agent_server.models.providers import Models
from agent_server.settings import Settings

log = structlog.get_logger()

ANSWER_LIMIT = 1_000_000
"""Longest answer of one model call, characters: words, reasoning and tool arguments together."""
LONGEST_PAUSE = 10.0
"""Longest wait before a call is made again, seconds, whatever the provider asks for."""

Begin = Callable[[], AsyncIterator[TResponseStreamEvent]]
"""Begins a stream of a model's events, a new one each time."""
Open = Callable[[str], Awaitable[Begin]]
"""Opens the model with a name. Raises ModelFailed when its provider cannot be used as configured."""


class Display(Protocol):
    """Where the text of an answer is shown while it comes."""

    async def add(self, delta: str) -> None:
        """Show more text."""

    async def void(self) -> None:
        """Take back what was shown."""


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
    breaker, retry = models.breaker(name), 0
    while True:
        try:
            with breaker.call(lambda error: isinstance(error, Fault) and error.again):
                return await _stream(begin(), display, models.settings)
        except BreakerOpen:
            raise ModelFailed(
                "The model has failed too often just now and is left alone; try again in a few seconds"
            ) from None
        except Fault as fault:
            # Also when it is not asked again: the words of the fallback must not follow these.
            await display.void()
            log.warning("model.fault", model=name, reason=fault.message, retry=retry, opened=breaker.open)
            pause = min(fault.after if fault.after is not None else 0.5 * 2**retry, LONGEST_PAUSE)
            # A turn that runs out of time in a pause would end with a worse reason than this fault.
            if _is_last(fault, retry, breaker, models.settings) or time.monotonic() + pause >= ends:
                raise ModelFailed(fault.message) from fault
        await asyncio.sleep(pause)
        retry += 1


def _is_last(fault: Fault, retry: int, breaker: Breaker, settings: Settings) -> bool:
    return not fault.again or retry == settings.model_retries or breaker.open


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
            elif isinstance(event, ResponseCompletedEvent):
                if _is_empty(event.response):
                    raise Fault("The model answered with nothing", again=True)
                return event.response
            elif event.type in ("response.failed", "response.incomplete", "error"):
                raise Fault("The model did not finish its answer", again=True)


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
