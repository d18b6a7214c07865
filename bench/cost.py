"""What a turn costs the server's processor, how soon its first text comes, and what becomes of both in a crowd."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median

from bench.clients import Load, ask
from bench.figures import Figure
from bench.stage import Process, Stage
from bench.table import percentile

BARE = "the bare SDK, which keeps nothing"
LEVELS = (1, 16, 64)
FEW, CROWD = 16, 256

Tell = Callable[[str], None]


@dataclass
class Pair:
    """Our server and the bare one, both running."""

    ours: Process
    bare: Process


@asynccontextmanager
async def pair(stage: Stage) -> AsyncIterator[Pair]:
    """Both servers, each after a first turn."""
    async with stage.ours() as ours, stage.bare() as bare:
        for server in (ours, bare):
            await ask(server.address, server.keys, clients=2, turns=4)
        yield Pair(ours, bare)


@dataclass
class _Rounds:
    """What the rounds of one level showed of one server."""

    cpu: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    refused: int = 0

    def add(self, load: Load, cpu: float) -> None:
        self.errors += load.errors
        self.refused += load.refused
        if load.turns:
            self.cpu.append(cpu * 1000 / load.turns)
            self.first.append(percentile(load.first_texts, 0.5) * 1000)
            self.rate.append(load.turns / load.seconds)


async def _one(server: Process, clients: int, turns: int) -> tuple[Load, float]:
    before = server.cpu()
    load = await ask(server.address, server.keys, clients=clients, turns=turns)
    return load, server.cpu() - before


async def measure_cost(
    servers: Pair, *, turns: int, rounds: int, tell: Tell, levels: tuple[int, ...] = LEVELS
) -> list[Figure]:
    """Processor time and first text at each level; rounds of both servers alternate, medians are reported."""
    figures, firsts = [], []
    for clients in levels:
        ours, bare = _Rounds(), _Rounds()
        for number in range(rounds):
            tell(f"{clients} clients, round {number + 1} of {rounds}")
            many = max(turns, 2 * clients)
            bare.add(*await _one(servers.bare, clients, many))
            ours.add(*await _one(servers.ours, clients, many))
        _tell_errors(ours.errors + bare.errors, tell)
        who = f"with {clients} client{'s' if clients > 1 else ''}"
        figures += [
            _figure("cpu", f"a turn {who}", "CPU ms", ours.cpu, bare.cpu),
            Figure("cpu", f"errors {who}", len(ours.errors), "turns", "the same of the bare SDK", len(bare.errors)),
        ]
        if clients <= FEW:
            firsts.append(_figure("first text", f"p50 {who}", "ms", ours.first, bare.first))
    return [*figures, *firsts]


def _tell_errors(errors: list[str], tell: Tell) -> None:
    for error, times in Counter(errors).most_common(3):
        tell(f"{times} turns failed: {error}")


def _figure(part: str, what: str, unit: str, ours: list[float], bare: list[float]) -> Figure:
    return Figure(part, what, median(ours or [0.0]), unit, BARE, median(bare or [0.0]))


async def measure_crowd(servers: Pair, *, turns: int, rounds: int, tell: Tell, crowd: int = CROWD) -> list[Figure]:
    """The rate of a crowd, relative to that of a few with a third of its turns, on the same server.

    Whoever is refused comes again when it was told to.
    """
    few, many = _Rounds(), _Rounds()
    for number in range(rounds):
        tell(f"{FEW} and {crowd} clients, round {number + 1} of {rounds}")
        few.add(*await _one(servers.ours, FEW, turns // 3))
        many.add(*await _one(servers.ours, crowd, turns))
    _tell_errors(few.errors + many.errors, tell)
    less = f"the same with {FEW} clients"
    return [
        Figure(
            "crowd",
            f"turns a second with {crowd} clients",
            median(many.rate or [0.0]),
            "turns/s",
            less,
            median(few.rate or [0.0]),
        ),
        Figure(
            "crowd",
            f"CPU of a turn with {crowd} clients",
            median(many.cpu or [0.0]),
            "CPU ms",
            less,
            median(few.cpu or [0.0]),
        ),
        Figure("crowd", f"errors with {crowd} clients", len(many.errors), "turns", less, len(few.errors)),
        Figure(
            "crowd", f"answers of {crowd} clients that said to come again", many.refused, "answers", less, few.refused
        ),
    ]


async def measure_memory(servers: Pair, *, turns: int, tell: Tell) -> list[Figure]:
    """How memory grows: over the later three quarters of so many turns, after what the first ones leave behind."""
    many = max(turns // 4, 1)
    seen = []
    for number in range(4):
        tell(f"{number * many:,} of {4 * many:,} turns")
        load = await ask(servers.ours.address, servers.ours.keys, clients=FEW, turns=many)
        if load.errors:
            raise RuntimeError(f"Turns failed: {load.errors[:3]}")
        seen.append(servers.ours.memory())
    grown = (seen[-1] - seen[0]) / (3 * many) * 1000
    return [
        Figure("soak", f"memory after {4 * many:,} turns", seen[-1], "MiB", f"the same after {many:,}", seen[0]),
        Figure("soak", "growth of memory over 1,000 turns", grown, "MiB", "nothing"),
    ]
