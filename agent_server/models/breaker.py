"""A circuit breaker leaves a model alone whose calls keep failing.

After a while it is tried again with one call. Each process keeps its own breakers, one per model: what a breaker knows
is worth seconds, and sharing it would cost more than it saves.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WINDOW = 20
"""How many of the last calls are counted."""
LEAST_CALLS = 6
"""The breaker stays closed while it has counted fewer calls."""
FAILING = 0.5
"""The share of failed calls from which on a model is left alone."""
OPEN_SECONDS = 10.0

Clock = Callable[[], float]


class BreakerOpen(Exception):
    """The call was not made because the model is left alone."""


class Breaker:
    """What the last calls of one model came to."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._failed: deque[bool] = deque(maxlen=WINDOW)
        self._opened: float | None = None
        self._probing = False

    @property
    def open(self) -> bool:
        """Whether a call would be refused now."""
        return self._opened is not None and (self._probing or self._clock() - self._opened < OPEN_SECONDS)

    @contextmanager
    def call(self, is_failure: Callable[[Exception], bool]) -> Iterator[None]:
        """Around one call. Raises BreakerOpen before it.

        An exception for which `is_failure` is False came from a provider that answers: it counts as a success. A call
        that was cancelled counts as nothing.
        """
        if self.open:
            raise BreakerOpen
        probe = self._probing = self._opened is not None
        try:
            yield
        except Exception as error:  # raised again: it is only counted here
            self._record(is_failure(error), probe)
            raise
        else:
            self._record(False, probe)
        finally:
            # A try that was cancelled must leave room for the next one.
            if probe:
                self._probing = False

    def _record(self, failed: bool, probe: bool) -> None:
        if probe:
            # Calls from before the pause say nothing about the model as it is now.
            self._failed.clear()
            self._opened = self._clock() if failed else None
        elif self._opened is None:  # what ends later was begun before the breaker opened, and says nothing new
            self._failed.append(failed)
            if len(self._failed) >= LEAST_CALLS and sum(self._failed) >= FAILING * len(self._failed):
                self._opened = self._clock()
