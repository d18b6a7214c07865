"""What was measured, each figure with what it is held against."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.table import print_table

TITLES = {
    "cpu": "The processor time of a durable turn with one tool",
    "first text": "The time to the first text",
    "ledger": "What one turn with one tool, and five turns before it, asks of Postgres and leaves in it",
    "idle": "A server that nobody asks",
    "crowd": "A crowd",
    "start": "Starting",
    "commands": "Commands, on the workspace of this repository",
    "reload": "Reloading",
    "search": "Looking for a conversation",
    "prune": "Removing what turns of long ago needed",
    "soak": "Memory over many turns",
}


@dataclass(frozen=True)
class Figure:
    """One measured `value`; `base` is the same of what it is held `against`."""

    part: str
    what: str
    value: float
    unit: str
    against: str
    base: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.base if self.base else None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


def print_figures(figures: Sequence[Figure]) -> None:
    """Print a table for each part."""
    for part in dict.fromkeys(figure.part for figure in figures):
        rows = [
            (figure.what, _short(figure.value), figure.unit, _short(figure.base), figure.against, _short(figure.ratio))
            for figure in figures
            if figure.part == part
        ]
        print_table(TITLES[part], ("what", "measured", "unit", "held against", "which is", "ratio"), rows)


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
