"""This process among the others that run turns."""

import asyncio
import time

from agent_server.db import Database, new_id
from agent_server.signals import Signals
from agent_server.turns.repeat import repeat

# Of the replica and not of each turn, which would be a write per turn and second.
BEAT_SECONDS = 1.0
DEAD_AFTER = 5.0
"""Seconds without a heartbeat, on the database's clock, after which a replica is taken for dead."""
STOP_AFTER = DEAD_AFTER - 1.0
"""Seconds without a heartbeat after which a replica stops its own runs: before the others take it for dead."""


class Replica:
    """Says that it lives from `start` to `close`. `signals` are the hints to and from the other replicas."""

    def __init__(self, database: Database) -> None:
        self.id = new_id()
        self.signals = Signals(database, self.id)
        self._beaten = time.monotonic()
        self._beating: asyncio.Task[None] | None = None

    @property
    def is_silent(self) -> bool:
        """Whether it is so long since this replica could say that it lives that others may take it for dead."""
        return time.monotonic() - self._beaten > STOP_AFTER

    async def start(self) -> None:
        """Announce this replica. Raises Unavailable."""
        await self.signals.start()
        # An owner without a row is dead to the others, so the row is there before the first turn is accepted.
        await self._beat()
        self._beating = asyncio.create_task(repeat(BEAT_SECONDS, self._beat, self.signals.lock_changed))

    async def close(self) -> None:
        """Take leave of the other replicas."""
        if self._beating is not None:
            # First: a beat after `signals.close` would put the row back that it removes.
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        await self.signals.close()

    async def _beat(self) -> None:
        # The database stamps the beat later than this, so this replica falls silent before the others count it dead.
        began = time.monotonic()
        await self.signals.beat()
        self._beaten = began
