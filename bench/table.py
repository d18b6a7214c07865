"""Figures as a Markdown table."""

from collections.abc import Sequence


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n{title}\n")
    print(f"| {' | '.join(head)} |\n|{'|'.join('---' for _ in head)}|")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |", flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
