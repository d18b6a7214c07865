"""python -m bench: what the server costs, against the bare SDK on the same work; tables, and JSON where a file is named.

python -m bench [--only cpu,crowd,ledger,idle,start,commands,reload,search,prune,soak] [--quick] [--rounds N] [--turns N]
                [--conversations N] [--soak N] [--json FILE] [--readme]

Both servers are asked the same: a question, for which a scripted model asks for one tool, then answers in 60 pieces. Ours
keeps it in Postgres, in conversations of ten turns; the bare one keeps nothing. Compare ratios: both were measured in turn,
on one core, and how fast it is changes with whatever else the machine does.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from agent_server.log import configure_logging
from bench.cost import CROWD, Tell, measure_cost, measure_crowd, measure_memory, pair
from bench.figures import Figure, print_figures
from bench.found import measure_search
from bench.ledger import measure_ledger
from bench.prune import measure_prune
from bench.stage import ROOT, Stage, stage
from bench.start import measure_commands, measure_reload, measure_start

PARTS = ("cpu", "crowd", "ledger", "start", "commands", "reload", "prune", "search", "soak")
"""In this order: each leaves rows behind, and the later ones the most."""
SAME = {"idle": "ledger", "first text": "cpu"}
"""Parts that another one measures as well."""
WITH_BOTH = ("cpu", "crowd", "ledger", "soak")
_LINE = re.compile(r"^Measured on .*\(`make bench`\)\.$", re.M)


@dataclass(frozen=True)
class Scale:
    """How much is measured: `turns` of a round, `counted` turns whose statements are counted, `crowded` turns of a
    crowd, `searches`, `changes` of a prompt."""

    turns: int = 200
    rounds: int = 3
    counted: int = 40
    idle_seconds: float = 20
    conversations: int = 100_000
    searches: int = 5
    changes: int = 10
    pruned: int = 20_000
    soak: int = 2_000
    crowd: int = CROWD
    crowded: int = 3 * CROWD
    levels: tuple[int, ...] = (1, 16, 64)
    forked: bool = False


QUICK = Scale(
    turns=40,
    rounds=1,
    counted=10,
    idle_seconds=5,
    conversations=5_000,
    searches=3,
    changes=4,
    pruned=2_000,
    soak=400,
    crowded=CROWD,
    levels=(1, 16),
)
SMALLEST = Scale(
    turns=4,
    rounds=1,
    counted=2,
    idle_seconds=0.5,
    conversations=10,
    searches=1,
    changes=1,
    pruned=40,
    soak=8,
    crowd=4,
    crowded=6,
    levels=(1,),
    forked=True,
)


async def measure(parts: Sequence[str], scale: Scale, tell: Tell) -> list[Figure]:
    """The figures of these parts."""
    figures: list[Figure] = []
    async with stage(forked=scale.forked) as there:
        if there.core is None:
            tell("the servers share their cores with the clients: this system keeps no process on one core")
        for name, part in (("start", measure_start), ("commands", measure_commands)):
            if name in parts:
                figures += await part(there, rounds=scale.rounds, tell=_prefix(tell, name))
        if "reload" in parts:
            figures += await measure_reload(there, times=scale.changes, tell=_prefix(tell, "reload"))
        if "prune" in parts:
            figures += await measure_prune(there, turns=scale.pruned, tell=_prefix(tell, "prune"))
        if "search" in parts:
            figures += await measure_search(
                there, conversations=scale.conversations, times=scale.searches, tell=_prefix(tell, "search")
            )
        if any(part in parts for part in WITH_BOTH):
            figures += await _measure_both(there, parts, scale, tell)
    return figures


async def _measure_both(there: Stage, parts: Sequence[str], scale: Scale, tell: Tell) -> list[Figure]:
    figures: list[Figure] = []

    def of(part: str) -> dict[str, Any]:
        return {"tell": _prefix(tell, part)}

    async with pair(there) as servers:
        if "cpu" in parts:
            figures += await measure_cost(
                servers, turns=scale.turns, rounds=scale.rounds, levels=scale.levels, **of("cpu")
            )
        if "ledger" in parts:
            figures += await measure_ledger(
                there, servers, turns=scale.counted, idle_seconds=scale.idle_seconds, **of("ledger")
            )
        if "crowd" in parts:
            figures += await measure_crowd(
                servers, turns=scale.crowded, rounds=scale.rounds, crowd=scale.crowd, **of("crowd")
            )
        if "soak" in parts:
            figures += await measure_memory(servers, turns=scale.soak, **of("soak"))
    return figures


def _prefix(tell: Tell, part: str) -> Tell:
    return lambda what: tell(f"{part}: {what}")


def describe_machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was with other work."""
    model = re.search(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.M)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": model[1] if model else platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 1),
    }


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def write_line(readme: str, machine: dict[str, Any], figures: Sequence[Figure]) -> str:
    """The README with a new line of figures. Raises ValueError where it has none, or a figure is missing."""
    ratios = {figure.what: figure.ratio for figure in figures}
    wanted = [
        ("a turn with 1 client", "CPU of a durable one-tool turn {:.2f} times"),
        ("a turn with 16 clients", "with 16 clients {:.2f} times"),
        ("p50 with 1 client", "first text {:.2f} times"),
        ("up to the first 200", "start {:.2f} times"),
        ("memory after the first turn", "memory {:.2f} times"),
    ]
    if missing := [what for what, _ in wanted if ratios.get(what) is None]:
        raise ValueError(f"Not measured: {'; '.join(missing)}. Measure cpu and start")
    said = ", ".join(words.format(ratios[what]) for what, words in wanted)
    busy = ", which had other work to do" if machine["load_before"] > machine["cores"] / 2 else ""
    line = (
        f"Measured on {machine['date']} on {machine['cores']} cores ({machine['processor']}){busy}, against the bare "
        f"Agents SDK, which keeps nothing: {said} (`make bench`)."
    )
    changed, found = _LINE.subn(lambda _: line, readme)
    if not found:
        raise ValueError("README.md has no line that begins with 'Measured on' and ends with '(`make bench`).'")
    return changed


@contextmanager
def progress(console: Console) -> Iterator[Tell]:
    """One line that changes on a terminal; elsewhere a line for each step."""
    if not console.is_terminal:
        yield lambda what: console.print(what, highlight=False)
        return
    with console.status("starting") as status:
        yield lambda what: status.update(what)


def _choose(only: str | None, *, soak: bool) -> list[str]:
    if only is None:
        return [part for part in PARTS if part != "soak" or soak]
    named = [name.strip() for name in only.split(",")]
    if unknown := [name for name in named if name not in (*PARTS, *SAME)]:
        sys.exit(f"There is no part {', '.join(unknown)}; there are {', '.join((*PARTS, *SAME))}")
    return [SAME.get(name, name) for name in named]


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--only", metavar="PARTS", help=f"of {', '.join((*PARTS, *SAME))}")
    options.add_argument("--quick", action="store_true", help="fewer turns, one round")
    options.add_argument("--smallest", action="store_true", help="a few turns: whether it works at all")
    for name in ("rounds", "turns", "conversations", "soak"):
        options.add_argument(f"--{name}", type=int)
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    options.add_argument("--readme", action="store_true", help="write the line of figures in README.md anew")
    chosen = options.parse_args(arguments)
    scale = SMALLEST if chosen.smallest else QUICK if chosen.quick else Scale()
    given = {name: getattr(chosen, name) for name in ("rounds", "turns", "conversations", "soak")}
    scale = replace(scale, **{name: value for name, value in given.items() if value is not None})
    parts = _choose(chosen.only, soak=chosen.soak is not None)
    if parts == ["prune"] and chosen.turns is not None:
        scale = replace(scale, pruned=chosen.turns)
    if chosen.readme and not {"cpu", "start"} <= {*parts}:
        options.error("--readme writes figures of the parts cpu and start; name both in --only, or leave it out")
    machine = describe_machine()
    with progress(Console(stderr=True)) as tell:
        figures = asyncio.run(measure(parts, scale, tell))
    print_figures(figures)
    print(f"\n{machine}")
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": machine, "figures": [f.as_json() for f in figures]}, indent=1))
    if chosen.readme:
        readme = ROOT / "README.md"
        readme.write_text(write_line(readme.read_text(), machine, figures))


if __name__ == "__main__":
    configure_logging("ERROR", "console")
    main()
