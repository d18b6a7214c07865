"""A job: one message and all that must come of it, known beforehand."""

import random
import re
from dataclasses import dataclass, field
from typing import Literal

from tests.sse import Frame

Kind = Literal["stored", "keyed", "once", "read"]
TOOLS: dict[Kind, str] = {"stored": "store", "keyed": "charge", "once": "send", "read": "look"}
KINDS: tuple[Kind, ...] = ("stored", "keyed", "once", "read")

_MESSAGE = re.compile(r"job (\d+) kind=(\w+)")


@dataclass(frozen=True)
class Ask:
    """A tool call that the scripted model makes."""

    id: str
    tool: str
    label: str


@dataclass
class Job:
    """A message, and what its clients were told and shown."""

    number: int
    kind: Kind
    phase: str
    cancel: bool = False
    promised: list[str] = field(default_factory=list)
    streams: list[list[Frame]] = field(default_factory=list)
    """What each reader of the turn's own events was sent, all connections together, in the order of arrival."""
    answers: list[tuple[list[Frame], list[Frame]]] = field(default_factory=list)
    """The frames of the AI SDK stream as a reader got them in pieces, and as they are sent whole afterwards."""
    complaints: list[str] = field(default_factory=list)

    @property
    def message(self) -> str:
        return f"job {self.number} kind={self.kind}"

    @property
    def key(self) -> str:
        return f"{self.phase}-{self.number}"


def parse(message: str) -> tuple[int, Kind]:
    """The number and the kind that a job's message names."""
    found = _MESSAGE.fullmatch(message)
    kind = next((kind for kind in KINDS if found and found[2] == kind), None)
    if found is None or kind is None:
        raise ValueError(f"not a job: {message!r}")
    return int(found[1]), kind


def plan(number: int, kind: Kind) -> tuple[tuple[Ask, ...], ...]:
    """What the model asks for, call by call, before it answers: two tools, then one more."""

    def ask(call: int, i: int, kind: Kind) -> Ask:
        return Ask(f"call_{number}_{call}_{i}", TOOLS[kind], f"{number}.{call}.{i}")

    return (ask(1, 0, kind), ask(1, 1, KINDS[number % len(KINDS)])), (ask(2, 0, kind),)


def answer(number: int) -> str:
    """What the model says in the end."""
    words = random.Random(number).choices(("work", "done", "noted", "sent", "seen", "well", "then", "now"), k=20)
    return f"Job {number}: {' '.join(words)}."
