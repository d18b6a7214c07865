"""Which turns a process takes on, so that it never has more at hand than it can answer.

    arrives    a slot where one is free and nobody stands in line for one, else a place to wait; nothing is stored yet
    runs       keeps its slot until it ends
    waits      keeps its place until somebody runs it: in line for a slot, or behind others of its conversation or owner

A turn that finds neither slot nor place is refused before any work is done for it.
"""

import math
import time
from collections import deque
from collections.abc import Mapping, Set
from dataclasses import dataclass
from uuid import UUID

from agent_server.db import new_id
from agent_server.errors import TooMany, Unavailable

SHORTEST_WAIT, LONGEST_WAIT = 1, 60
"""Seconds that whoever is refused is told to stay away."""
_REMEMBERED = 32
"""Turns whose ends tell how soon the next one ends."""
_UNKNOWN_PACE = 0.25
"""Seconds from one end to the next where too few turns have ended to tell."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place that a turn has from before it is stored. With `has_slot` it may run at once."""

    turn_id: UUID
    owner_id: UUID
    has_slot: bool


class Places:
    """The places of one process. At most `slots` turns run, and `waiting` more wait (None: any number)."""

    def __init__(self, *, slots: int, waiting: int | None = None) -> None:
        self._most_slots, self._most_waiting = slots, waiting
        self._slots: dict[UUID, UUID] = {}
        """The owners of the turns that run or arrive to run."""
        self._arriving: dict[UUID, UUID] = {}
        self._waiting: dict[UUID, UUID] = {}
        self._in_line: set[UUID] = set()
        self._behind_own: dict[UUID, UUID] = {}
        self._ends: deque[float] = deque(maxlen=_REMEMBERED)
        self._promised = 0.0

    @property
    def free_slots(self) -> int:
        return max(0, self._most_slots - len(self._slots))

    @property
    def with_slot(self) -> Set[UUID]:
        """The turns that have a slot. It is kept up to date."""
        return self._slots.keys()

    @property
    def waiting(self) -> Mapping[UUID, UUID]:
        """The turns that were stored here and wait, with their owners."""
        return dict(self._waiting)

    @property
    def in_line(self) -> Set[UUID]:
        """Those that wait for nothing but a slot, as far as is known."""
        return self._in_line & self._waiting.keys()

    def check_room(self) -> None:
        """Raises Unavailable where no turn is taken on."""
        if self._most_waiting is not None and self._taken >= self._most_slots + self._most_waiting:
            busy = Unavailable("The server is busy: it answers as many messages as it can; try again in a moment")
            busy.retry_after = self._next_return()
            raise busy

    def arrive(self, owner_id: UUID, *, most: int | None, may_run: bool, at_once: int | None = None) -> Place:
        """Take a place for a turn that is about to be stored. At most `at_once` of the owner's run.

        Raises TooMany where `most` of the owner's have a place (None: any number), and Unavailable as `check_room`.
        """
        of_owner = sum(list(turns.values()).count(owner_id) for turns in (self._slots, self._arriving, self._waiting))
        if most is not None and of_owner >= most:
            busy = TooMany(
                f"The server is busy with {of_owner} other messages of yours, the most that it takes is {most}; wait for an answer"
            )
            busy.retry_after = _whole_seconds(of_owner * self._pace)
            raise busy
        self.check_room()
        # Whoever comes now runs after those that stand in line, also where a slot has just become free; and after those
        # of the same owner that wait for one another, who are in nobody else's way.
        behind_own = owner_id in self._behind_own.values() or not self._may_run(owner_id, at_once)
        has_slot = may_run and not behind_own and self.free_slots > 0 and not self._in_line
        place = Place(turn_id=new_id(), owner_id=owner_id, has_slot=has_slot)
        if place.has_slot:
            self._slots[place.turn_id] = owner_id
        else:
            self._arriving[place.turn_id] = owner_id
            if behind_own:
                self._behind_own[place.turn_id] = owner_id
            elif may_run:
                self._in_line.add(place.turn_id)
        return place

    def wait(self, place: Place, *, behind_own: bool = False) -> None:
        """Have a turn that is stored by now wait. `behind_own` says that its owner has as many running as may."""
        # What had a slot and waits all the same waits for something else.
        self._slots.pop(place.turn_id, None)
        self._arriving.pop(place.turn_id, None)
        self._waiting[place.turn_id] = place.owner_id
        if behind_own:
            self._behind_own[place.turn_id] = place.owner_id

    def may_begin(self, place: Place, at_once: int | None) -> bool:
        """Whether a turn that waits has a slot to begin in, and fewer than `at_once` of its owner's run here."""
        return self.free_slots > 0 and self._may_run(place.owner_id, at_once)

    def run(self, turn_id: UUID, owner_id: UUID) -> None:
        """Give a turn a slot."""
        self.leave(turn_id)
        self._slots[turn_id] = owner_id

    def end(self, turn_id: UUID) -> None:
        """Free the slot of a turn that has been run."""
        self._ends.append(time.monotonic())
        self.leave(turn_id)

    def leave(self, turn_id: UUID) -> None:
        """Free whatever place a turn has."""
        for turns in (self._slots, self._arriving, self._waiting, self._behind_own):
            turns.pop(turn_id, None)
        self._in_line.discard(turn_id)

    def stop_waiting(self, turns: Set[UUID]) -> None:
        """Free the places of turns that waited. One that has a slot by now keeps it."""
        for turn_id in turns & self._waiting.keys():
            self.leave(turn_id)

    def clear_line(self, turns: Set[UUID]) -> None:
        """Note that these wait for something else than a slot."""
        self._in_line -= turns

    def _may_run(self, owner_id: UUID, at_once: int | None) -> bool:
        return at_once is None or list(self._slots.values()).count(owner_id) < at_once

    @property
    def _taken(self) -> int:
        return len(self._slots) + len(self._arriving) + len(self._waiting)

    @property
    def _pace(self) -> float:
        """Seconds from one end to the next."""
        if len(self._ends) < 2:
            return _UNKNOWN_PACE
        return (time.monotonic() - self._ends[0]) / len(self._ends)

    def _next_return(self) -> int:
        """Seconds after which there should be room for who is refused now, and for no other who was before."""
        # All at once they would be refused again, all but a few, and each refusal costs.
        now = time.monotonic()
        self._promised = min(max(now, self._promised) + self._pace, now + LONGEST_WAIT)
        return _whole_seconds(self._promised - now)


def _whole_seconds(seconds: float) -> int:
    return min(max(math.ceil(seconds), SHORTEST_WAIT), LONGEST_WAIT)
