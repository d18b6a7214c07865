"""python -m tests.chaos: the phases one after the other, a table of what was counted; exit code 1 if anything is wrong.

python -m tests.chaos [--turns 1000] [--kills 50] [--phases kill,frozen,postgres,faults,crowd] [--pooler]
                      [--markdown FILE]

Of a crowd one scene alone is named after its workers and their share of a core: --phases crowd-1x0.5.
"""

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos import phases
from tests.chaos.count import CHECKS, Tally, count, percentile
from tests.chaos.crowd import CROWD, FEW, SCENES, Scene, crowds
from tests.chaos.phases import PHASES, Phase, chaos, faults_of

SHOWN = 20
"""Findings that are shown of each phase."""


NAMES = (*PHASES, "crowd", *(scene.phase for scene in SCENES))
"""`crowd` is all of its scenes; each may also be asked for alone."""


async def run(
    names: Sequence[Phase], turns: int, kills: int, folder: Path, told: phases.Progress, *, pooler: bool
) -> list[Tally]:
    """The phases in turn, on the same replicas."""
    async with chaos(folder, pooler=pooler) as scene:
        return [count(await scene.run(name, turns, faults_of(name, kills), told)) for name in names]


async def run_crowd(
    scenes: Sequence[Scene], turns: int, folder: Path, told: phases.Progress, *, crowd: int, few: int, **settings: str
) -> list[Tally]:
    """The scenes of the phase `crowd` in turn, with so many turns each. `settings` are variables of the servers."""
    tallies = []
    async with crowds(folder) as there:
        for scene in scenes:
            tallies.append(count(await there.run(scene, crowd=crowd, few=few, turns=turns, **settings)))
            told(scene.phase, turns, 0)
    return tallies


def rows(tallies: Sequence[Tally]) -> Iterator[tuple[str, list[str]]]:
    """What there is to say of each phase: the figures, then the checks, which should all be 0."""

    def row(name: str, values: Sequence[object]) -> tuple[str, list[str]]:
        return name, [str(value) for value in values]

    yield row("turns", [len(t.evidence.jobs) for t in tallies])
    yield row(
        "faults: kills, freezes, restarts, answers", [t.evidence.faults or t.evidence.troubles.total() for t in tallies]
    )
    yield row("seconds", [round(t.evidence.seconds) for t in tallies])
    for status in ("done", "failed", "cancelled"):
        yield row(status, [t.statuses[status] for t in tallies])
    yield row("failures by code", [_counted(t.failures) for t in tallies])
    yield row("turns taken over", [t.taken_over for t in tallies])
    yield row("most attempts of a turn", [t.most_attempts for t in tallies])
    yield row("model calls asked for again", [t.asked_again for t in tallies])
    yield row("outcomes unknown", [t.unknown for t in tallies])
    yield row("streams dropped, broken, 503s", [_connections(t) for t in tallies])
    yield row("turns a second: a few clients, a crowd", [_rates(t) for t in tallies])
    yield row("refusals of a crowd by status", [_refusals(t) for t in tallies])
    yield row("first text p50 / p95 / max, seconds", [_first_texts(t) for t in tallies])
    yield row("recoveries", [len(t.recoveries) for t in tallies])
    yield row("recovery p50 / p95 / max, seconds", [_recovery(t.recoveries) for t in tallies])
    for check in CHECKS:
        yield row(check, [t.broken(check) for t in tallies])


def _counted(codes: dict[str, int]) -> str:
    return ", ".join(f"{code} {times}" for code, times in sorted(codes.items())) or "-"


def _connections(tally: Tally) -> str:
    counts = tally.evidence.connections
    return f"{counts['dropped']}, {counts['broken']}, {counts['unavailable']}"


def _rates(tally: Tally) -> str:
    rates = tally.evidence.rates
    return f"{rates.few:.2f}, {rates.crowd:.2f} ({rates.crowd / (rates.few or 1):.2f})" if rates else "-"


def _refusals(tally: Tally) -> str:
    rates = tally.evidence.rates
    return _counted({str(status): times for status, times in rates.refusals.items()}) if rates else "-"


def _first_texts(tally: Tally) -> str:
    return _recovery(tally.evidence.rates.first_texts if tally.evidence.rates else ())


def _recovery(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    return f"{percentile(seconds, 0.5):.2f} / {percentile(seconds, 0.95):.2f} / {seconds[-1]:.2f}"


def markdown(tallies: Sequence[Tally]) -> str:
    heads = [tally.evidence.phase for tally in tallies]
    lines = [f"| | {' | '.join(heads)} |", f"| --- | {' | '.join('---' for _ in heads)} |"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(values)} |" for name, values in rows(tallies))]) + "\n"


@contextmanager
def progress(console: Console, turns: int) -> Iterator[phases.Progress]:
    """Bars on a terminal; elsewhere a line for each tenth of the turns."""
    if not console.is_terminal:
        told: set[tuple[str, int]] = set()

        def say(phase: str, done: int, faults: int) -> None:
            tenth = done * 10 // turns
            if (phase, tenth) not in told:
                told.add((phase, tenth))
                console.print(f"{phase}: {done} of {turns} turns, {faults} faults")

        yield say
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        tasks = {}

        def show(phase: str, done: int, faults: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=turns)
            bars.update(tasks[phase], completed=done, description=f"{phase}, {faults} faults")

        yield show


def report(console: Console, tallies: Sequence[Tally]) -> None:
    table = Table("", *(tally.evidence.phase for tally in tallies))
    for name, values in rows(tallies):
        wrong = name in CHECKS and any(value != "0" for value in values)
        table.add_row(name, *values, style="red" if wrong else None)
    console.print(table)
    for tally in tallies:
        for finding in tally.findings[:SHOWN]:
            console.print(f"{tally.evidence.phase}: {finding.check}: {finding.what}", markup=False, soft_wrap=True)


def choose_scenes(names: Sequence[str]) -> list[Scene]:
    """The scenes of a crowd among the phases that were asked for."""
    return [scene for scene in SCENES if {"crowd", scene.phase} & {*names}]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--turns", type=int, default=1000, help="turns in each phase")
    parser.add_argument("--kills", type=int, default=50, help="kills, freezes, and 2 in 5 as many database restarts")
    parser.add_argument("--phases", default=",".join(NAMES), help="which, in this order, a crowd last")
    parser.add_argument("--pooler", action="store_true", help="through a pgbouncer in transaction mode")
    parser.add_argument("--markdown", type=Path, help="write the table to this file, too")
    options = parser.parse_args()
    asked = options.phases.split(",")
    if unknown := set(asked) - set(NAMES):
        parser.error(f"--phases: there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    names = [phase for name in asked for phase in PHASES if phase == name]
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # the scripted model cuts streams off by raising
    console = Console(stderr=True, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="chaos"))
    with progress(console, options.turns) as told:
        tallies = []
        if names:
            tallies += asyncio.run(run(names, options.turns, options.kills, folder, told, pooler=options.pooler))
        if scenes := choose_scenes(asked):
            # Fewer turns: four scenes, each as fast as one core or half of one.
            there = folder / "crowd"
            there.mkdir()
            tallies += asyncio.run(run_crowd(scenes, options.turns // 2, there, told, crowd=CROWD, few=FEW))
    report(console, tallies)
    if options.markdown:
        options.markdown.write_text(markdown(tallies))
    if any(tally.findings for tally in tallies):
        console.print(f"The logs of the replicas are in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
