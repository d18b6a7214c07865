"""How a chart looks: the colours of the page in both themes, wide or for a phone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agent_server.charts.chart import Chart
from agent_server.charts.tables import Cell, Column, find_digits
from agent_server.wording import one_line

Theme = Literal["light", "dark"]
_NO_CHARACTERS = re.compile("[\ufffe\uffff]")
_WIDTHS = {False: 600, True: 320}
_HEIGHT = 280
# What the library measures texts with, and what has the same widths elsewhere: a wider font would overlap.
_FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"


@dataclass(frozen=True)
class _Colours:
    ink: str
    soft: str
    line: str
    series: tuple[str, ...]


# Those of web/static/style.css. The series differ in lightness too, for who sees few colours.
_COLOURS: Mapping[Theme, _Colours] = {
    "light": _Colours(
        "#1c2426", "#5b6568", "#e3dfd5", ("#0e6a6c", "#d08a1e", "#5b4b8a", "#c0533b", "#5f9e6e", "#8a8f98")
    ),
    "dark": _Colours(
        "#e4e6e3", "#9ba6a8", "#2b3336", ("#74c9c5", "#e5bd74", "#a99be0", "#f09b8b", "#9fd3a8", "#c3c8cc")
    ),
}


@dataclass(frozen=True)
class Look:
    """One way to draw a chart. A PNG stands alone: it has its title and a ground of its own."""

    form: Literal["svg", "png"] = "svg"
    theme: Theme = "light"
    narrow: bool = False


def lay_out(chart: Chart, look: Look) -> dict[str, Any]:
    """The whole specification: what the chart says, its data and the look."""
    spec = {key: _clean(value) for key, value in chart.spec.items() if key != "title"}
    if look.form == "png":
        spec["title"] = _clean(chart.spec.get("title", chart.title))
    # Only a single picture can be fitted, axes and all; several stand beside each other in their own sizes.
    is_single = "mark" in spec or "layer" in spec
    width = min(spec.get("width", _WIDTHS[look.narrow]), _WIDTHS[look.narrow]) if is_single else None
    is_size = isinstance(spec.get("width"), dict) or not is_single
    return {
        **spec,
        **({} if is_size else {"width": width, "autosize": {"type": "fit", "contains": "padding"}}),
        "data": {"values": _write_rows(chart)},
        "config": _configure(look),
    }


def _clean(value: Any) -> Any:
    """`value` without characters that XML does not have, in whose place a picture would be none."""
    match value:
        case str():
            return _NO_CHARACTERS.sub("\ufffd", one_line(value))
        case list():
            return [_clean(entry) for entry in value]
        case dict():
            return {key: _clean(entry) for key, entry in value.items()}
    return value


def _write_rows(chart: Chart) -> list[dict[str, Cell]]:
    columns = chart.table.columns
    return [
        {column.name: _scale(column, cell) for column, cell in zip(columns, row, strict=True)}
        for row in chart.table.rows
    ]


def _scale(column: Column, cell: Cell) -> Cell:
    if isinstance(cell, str):
        text: str = _clean(cell)
        return text
    # A picture shows euros; that a float rounds the millionth of a cent is seen by nobody.
    if column.kind == "money" and isinstance(cell, int):
        return cell / float(10 ** find_digits(column.currency))
    return cell


def _configure(look: Look) -> dict[str, Any]:
    colours = _COLOURS[look.theme]
    words = {"labelColor": colours.soft, "titleColor": colours.ink, "labelFontSize": 12, "titleFontSize": 12}
    view = _WIDTHS[look.narrow] if look.form == "svg" else _WIDTHS[False]
    legend = {"orient": "bottom", "columns": 2 if look.narrow else 4, "labelLimit": view // 3}
    return {
        "background": "white" if look.form == "png" else "transparent",
        "font": _FONT,
        "padding": 8,
        "view": {"stroke": None, "continuousHeight": _HEIGHT, "discreteHeight": _HEIGHT},
        "axis": {
            **words,
            "titleFontWeight": "normal",
            "titlePadding": 10,
            "gridColor": colours.line,
            "domainColor": colours.line,
            "tickColor": colours.line,
            "labelLimit": view // 4,
        },
        "axisX": {"grid": False, "labelOverlap": True, "labelSeparation": 12},
        "header": words,
        "legend": {**words, "titleFontWeight": "normal", **legend},
        "title": {"color": colours.ink, "subtitleColor": colours.soft, "anchor": "start", "fontSize": 15},
        "mark": {"color": colours.series[0]},
        "text": {"color": colours.ink},
        "rule": {"color": colours.soft},
        "range": {"category": list(colours.series)},
    }
