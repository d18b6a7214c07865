"""Tables and charts in a tool's result: which there are, and how they read.

People and models read the same Markdown, cut at fewer rows for a model. The result itself is stored as it is: a page that is
loaded again draws the chart from it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from agent_server.charts.chart import Chart
from agent_server.charts.tables import Column, Table
from agent_server.errors import AgentServerError
from agent_server.wording import escape_markdown

Figure = Table | Chart

MOST_FIGURES = 10
"""Tables and charts of one result. Others are told as data."""
ROWS_FOR_PEOPLE, ROWS_FOR_MODELS = 100, 40
_MARKS = ('"type": "table"', '"type": "chart"')
_TYPES: Mapping[str, type[Figure]] = {"table": Table, "chart": Chart}


def split_figures(value: Any) -> tuple[Any, list[Figure]]:
    """What else there is in a JSON-ready result, and its tables and charts: itself, its entries, or its fields.

    The rest is None where there is nothing else.
    """
    figures = _read_all(value)
    if figures or not isinstance(value, Mapping):
        return (None if figures else value), figures
    rest: dict[str, Any] = {}
    for key, field in value.items():
        found = _read_all(field) if len(figures) < MOST_FIGURES else []
        if found:
            figures += found
        else:
            rest[key] = field
    return (rest or None if figures else value), figures


def _read_all(value: Any) -> list[Figure]:
    """The figure that a value is, or those that a list is made of; none where it is anything else."""
    entries = value if isinstance(value, list) else [value]
    if len(entries) > MOST_FIGURES or not all(map(_looks_like_one, entries)):
        return []
    try:
        return [_TYPES[each["type"]].model_validate(each) for each in entries]
    # Somebody else's data that looks like one, or one that an older version has stored.
    except (ValidationError, AgentServerError, RecursionError):
        return []


def _looks_like_one(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("type") in ("table", "chart")


def list_charts(value: Any) -> list[Chart]:
    """The charts of a result, in their order."""
    return [figure for figure in split_figures(value)[1] if isinstance(figure, Chart)]


def tell_figures(figures: Sequence[Figure], most: int = ROWS_FOR_PEOPLE) -> str:
    """Tables and charts in Markdown. Figures that stand above already are not told again."""
    told: list[Table] = []
    pieces = []
    for figure in figures:
        table = figure if isinstance(figure, Table) else figure.table
        about = f"**{escape_markdown(figure.title)}**" if figure.title else ""
        if isinstance(figure, Chart):
            about = escape_markdown(figure.alt)
        known = any(each.columns == table.columns and each.rows == table.rows for each in told)
        pieces += [about, *([] if known else _tell_rows(table, most))]
        told.append(table)
    return "\n\n".join(filter(None, pieces))


def _tell_rows(table: Table, most: int) -> list[str]:
    if not table.rows:
        return ["There are no rows."]
    columns = table.columns
    lines = [
        _row(column.head for column in columns),
        _row(("---:" if column.is_figure else ":---" for column in columns), escape=False),
        *(_row(map(Column.word, columns, row)) for row in table.rows[:most]),
    ]
    more = len(table.rows) - most
    return ["\n".join(lines), *([f"And {more:,} more {'row' if more == 1 else 'rows'}."] if more > 0 else [])]


def _row(cells: Any, escape: bool = True) -> str:
    return f"| {' | '.join(escape_markdown(cell) if escape else cell for cell in cells)} |"


def tell_value(value: Any) -> str | None:
    """A JSON-ready result with figures as a model reads it; None where it has none."""
    rest, figures = split_figures(value)
    if not figures:
        return None
    said = json.dumps(rest, ensure_ascii=False) if rest is not None else ""
    return "\n\n".join(filter(None, [said, tell_figures(figures, ROWS_FOR_MODELS)]))


def tell_model(output: str) -> str:
    """A tool's output, as it is stored, as the model of a turn reads it: figures as tables, all else as it is."""
    # Nearly every output ends here.
    if not any(mark in output for mark in _MARKS):
        return output
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        return output
    if (told := tell_value(value)) is None:
        return output
    return f"{told}\n\nThe user is shown the chart itself." if list_charts(value) else told
