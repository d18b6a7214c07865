"""How many streams clients hold open."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from agent_server.caller import Caller
from agent_server.errors import TooMany

MOST_STREAMS = 10_000
"""Open streams of a process."""
MOST_OF_CALLER = 50
"""Open streams of a caller in a process."""


class Streams:
    """The open streams of this process, counted."""

    def __init__(self) -> None:
        self._of_caller: Counter[UUID] = Counter()

    @contextmanager
    def open(self, caller: Caller) -> Iterator[None]:
        """Count a stream. Raises TooMany."""
        if self._of_caller.total() >= MOST_STREAMS:
            raise TooMany(f"This server holds {MOST_STREAMS} streams open; try again later")
        if self._of_caller[caller.id] >= MOST_OF_CALLER:
            raise TooMany(f"A caller holds {MOST_OF_CALLER} streams open at most; close one")
        self._of_caller[caller.id] += 1
        try:
            yield
        finally:
            self._of_caller[caller.id] -= 1
            if not self._of_caller[caller.id]:
                del self._of_caller[caller.id]
