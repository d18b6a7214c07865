"""Who waits for what in this process: a hint that there may be more to read, never the news itself."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID


class Hub:
    """Wakes the followers of a turn. A missed wake costs a reader its poll interval, nothing else."""

    def __init__(self) -> None:
        self._waiting: defaultdict[UUID, set[asyncio.Event]] = defaultdict(set)

    @asynccontextmanager
    async def listening(self, turn_id: UUID) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever the turn's log may have grown; the listener clears it before it reads."""
        event = asyncio.Event()
        self._waiting[turn_id].add(event)
        try:
            yield event
        finally:
            self._waiting[turn_id].discard(event)
            if not self._waiting[turn_id]:
                del self._waiting[turn_id]

    def wake(self, turn_id: UUID) -> None:
        for event in self._waiting.get(turn_id, ()):
            event.set()
