"""This process among the others that run turns."""

from agent_server.db import Database, new_id
from agent_server.heartbeat import Heartbeat
from agent_server.signals import Hint, Signals

BATCHES, ONCE = 2, 3
"""Forms of rows (`heartbeat.FORMAT`): several events are in one, and what an item says is said once."""


class Replica:
    """Says that it lives from `start` to `close`. `signals` are the hints to and from the other replicas."""

    def __init__(self, database: Database) -> None:
        self.id = new_id()
        self.signals = Signals(database, self.id)
        self._heartbeat = Heartbeat(database, self.id)

    @property
    def is_silent(self) -> bool:
        """Whether it is so long since this replica could say that it lives that others may take it for dead."""
        return self._heartbeat.is_silent

    @property
    def is_alone(self) -> bool:
        """Whether no other replica lived a moment ago."""
        return self._heartbeat.is_alone

    @property
    def format(self) -> int:
        """The newest form of rows that all replicas read."""
        return self._heartbeat.format

    def send(self, hint: Hint) -> None:
        """Send a hint to the other replicas soon, where there are any. It never waits."""
        if not self.is_alone:
            self.signals.send(hint)

    async def start(self) -> None:
        """Announce this replica. Raises Unavailable."""
        await self.signals.start()
        await self._heartbeat.start()

    async def close(self) -> None:
        """Take leave of the other replicas."""
        # The hints first: they say that there is work, and who hears it must find this replica's lock free soon.
        await self.signals.close()
        await self._heartbeat.close()
