"""python -m tests.chaos: the phases one after the other, a table of what was counted; exit code 1 if anything is wrong.

python -m tests.chaos [--turns 1000] [--kills 50] [--phases kill,frozen,postgres,faults] [--pooler] [--markdown FILE]
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
from tests.chaos.phases import PHASES, Phase, chaos, faults_of

SHOWN = 20
"""Findings that are shown of each phase."""


async def run(
    names: Sequence[Phase], turns: int, kills: int, folder: Path, told: phases.Progress, *, pooler: bool
) -> list[Tally]:
    """The phases in turn, on the same replicas."""
    async with chaos(folder, pooler=pooler) as scene:
        return [count(await scene.run(name, turns, faults_of(name, kills), told)) for name in names]


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
    yield row("recoveries", [len(t.recoveries) for t in tallies])
    yield row("recovery p50 / p95 / max, seconds", [_recovery(t.recoveries) for t in tallies])
    for check in CHECKS:
        yield row(check, [t.broken(check) for t in tallies])


def _counted(codes: dict[str, int]) -> str:
    return ", ".join(f"{code} {times}" for code, times in sorted(codes.items())) or "-"


def _connections(tally: Tally) -> str:
    counts = tally.evidence.connections
    return f"{counts['dropped']}, {counts['broken']}, {counts['unavailable']}"


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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--turns", type=int, default=1000, help="turns in each phase")
    parser.add_argument("--kills", type=int, default=50, help="kills, freezes, and 2 in 5 as many database restarts")
    parser.add_argument("--phases", default=",".join(PHASES), help="which, in this order")
    parser.add_argument("--pooler", action="store_true", help="through a pgbouncer in transaction mode")
    parser.add_argument("--markdown", type=Path, help="write the table to this file, too")
    options = parser.parse_args()
    asked = options.phases.split(",")
    names = [phase for name in asked for phase in PHASES if phase == name]
    if len(names) != len(asked):
        parser.error(f"--phases: there are {', '.join(PHASES)}")
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # the scripted model cuts streams off by raising
    console = Console(stderr=True, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="chaos"))
    with progress(console, options.turns) as told:
        tallies = asyncio.run(run(names, options.turns, options.kills, folder, told, pooler=options.pooler))
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
