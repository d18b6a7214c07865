"""When a model is left alone, and when it is asked again."""

import asyncio
import contextlib
from dataclasses import dataclass

import pytest

from agent_server.models.breaker import LEAST_CALLS, OPEN_SECONDS, WINDOW, Breaker, BreakerOpen


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


class Down(Exception):
    """The provider does not answer."""


class Refused(Exception):
    """The provider answers, with a refusal."""


def call(breaker: Breaker, error: Exception | None = None) -> None:
    with contextlib.suppress(Down, Refused), breaker.call(lambda e: isinstance(e, Down)):
        if error is not None:
            raise error


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(LEAST_CALLS):
        call(breaker, Down())
    return breaker


def test_a_model_that_keeps_failing_is_left_alone(opened: Breaker) -> None:
    with pytest.raises(BreakerOpen):
        call(opened)


def test_few_failures_say_nothing(clock: Clock) -> None:
    breaker = Breaker(clock)
    for _ in range(LEAST_CALLS - 1):
        call(breaker, Down())
    assert not breaker.open


def test_a_model_that_mostly_answers_is_asked_on(clock: Clock) -> None:
    breaker = Breaker(clock)
    for _ in range(3 * WINDOW):
        call(breaker)
        call(breaker)
        call(breaker, Down())
    assert not breaker.open


def test_what_was_long_ago_does_not_count(clock: Clock) -> None:
    breaker = Breaker(clock)
    for _ in range(5 * WINDOW):
        call(breaker)
    for _ in range(WINDOW // 2):
        assert not breaker.open
        call(breaker, Down())
    assert breaker.open


def test_a_provider_that_refuses_is_there(clock: Clock) -> None:
    breaker = Breaker(clock)
    for _ in range(WINDOW):
        call(breaker, Refused())
    assert not breaker.open


def test_after_a_while_one_call_at_a_time_tries_again(opened: Breaker, clock: Clock) -> None:
    clock.now += OPEN_SECONDS - 0.1
    assert opened.open
    clock.now += 0.1
    with opened.call(lambda _: True), pytest.raises(BreakerOpen):
        call(opened)
    call(opened)
    call(opened, Down())
    assert not opened.open


def test_a_try_that_fails_leaves_it_alone_for_as_long_again(opened: Breaker, clock: Clock) -> None:
    clock.now += OPEN_SECONDS
    call(opened, Down())
    clock.now += OPEN_SECONDS - 0.1
    assert opened.open
    clock.now += 0.1
    call(opened)
    assert not opened.open


def test_a_try_that_was_cancelled_leaves_room_for_the_next(opened: Breaker, clock: Clock) -> None:
    clock.now += OPEN_SECONDS
    with pytest.raises(asyncio.CancelledError), opened.call(lambda _: True):
        raise asyncio.CancelledError
    call(opened)
    assert not opened.open


def test_calls_that_were_under_way_when_it_opened_neither_close_nor_prolong_it(clock: Clock) -> None:
    breaker = Breaker(clock)
    with contextlib.ExitStack() as under_way:
        under_way.enter_context(breaker.call(lambda _: True))
        for _ in range(LEAST_CALLS):
            call(breaker, Down())
    assert breaker.open
    clock.now += OPEN_SECONDS
    assert not breaker.open
