"""A chart, as a tool returns it: a Vega-Lite specification and the table that it draws.

Chart.bars(sales, x="month", y="net")
Chart.lines(sales, x="month", y=["net", "gross"])
Chart.stacked(by_shop, x="month", y="net", series="shop")
Chart(title="Sales", spec={"mark": "area", "encoding": {...}}, table=sales)
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from agent_server.charts.specs import check_spec
from agent_server.charts.tables import LONGEST_TEXT, Cell, Column, Table
from agent_server.errors import quote_value


class Chart(BaseModel):
    """A picture of a table. `spec` is Vega-Lite without data: it names columns of `table`, and money is drawn in whole
    units. Raises ValueError for a specification that does more than draw."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["chart"] = "chart"
    title: str = Field(min_length=1, max_length=LONGEST_TEXT)
    # Before the specification, which is checked against its columns.
    table: Table
    spec: dict[str, Any]

    @field_validator("spec", mode="before")
    @classmethod
    def _check_spec(cls, spec: Any, info: ValidationInfo) -> Any:
        table = info.data.get("table")
        if table is None or not isinstance(spec, Mapping):
            return spec
        return check_spec(spec, [column.name for column in table.columns])

    @classmethod
    def bars(cls, table: Table, *, x: str, y: str, title: str | None = None, horizontal: bool = False) -> "Chart":
        """A bar for each row, in their order or that of their dates: `x` names it and `y` is how long it is."""
        names, figures = _category(table, _get(table, x)), _figures(_get(table, y))
        encoding = {"y": names, "x": figures} if horizontal else {"x": names, "y": figures}
        return cls(title=title or table.title, table=table, spec={"mark": "bar", "encoding": encoding})

    @classmethod
    def lines(
        cls, table: Table, *, x: str, y: str | Sequence[str], series: str | None = None, title: str | None = None
    ) -> "Chart":
        """A line over `x`: one for each column in `y`, or for each text in the column `series`."""
        over = _along(table, _get(table, x))
        columns = [_get(table, name) for name in ([y] if isinstance(y, str) else y)]
        mark = {"type": "line", "point": True}
        if len(columns) == 1:
            encoding = {"x": over, "y": _figures(columns[0]), **_series(table, series)}
            return cls(title=title or table.title, table=table, spec={"mark": mark, "encoding": encoding})
        if series is not None:
            raise ValueError("series: give several columns in y or one and a series, not both")
        # Their common axis has no label of one of them; the legend has those of all.
        layers: list[Any] = [
            {
                "mark": mark,
                "encoding": {"y": {**_figures(each), "title": None}, "color": {"datum": each.head, "title": None}},
            }
            for each in columns
        ]
        return cls(title=title or table.title, table=table, spec={"encoding": {"x": over}, "layer": layers})

    @classmethod
    def stacked(cls, table: Table, *, x: str, y: str, series: str, title: str | None = None) -> "Chart":
        """A bar for each `x` with a part for each `series`, which `y` is the length of."""
        encoding = {"x": _category(table, _get(table, x)), "y": _figures(_get(table, y)), **_series(table, series)}
        return cls(title=title or table.title, table=table, spec={"mark": "bar", "encoding": encoding})

    @property
    def alt(self) -> str:
        """What the chart shows, for who does not see it."""
        kind, fields = _read_first(self.spec)
        x, y = (self.table.find_column(fields.get(axis, "")) for axis in ("x", "y"))
        if x is not None and x.is_figure and y is not None and not y.is_figure:
            x, y = y, x
        told = f"{kind} chart “{self.title}”"
        if x is None or y is None or not y.is_figure:
            return f"{told}, {len(self.table.rows)} rows."
        pairs = list(zip(self.table.list_values(x.name), self.table.list_values(y.name), strict=True))
        return f"{told}: {y.head} by {x.head}, {len(pairs)} rows{_word_range(pairs, x, y)}."


def _word_range(pairs: Sequence[tuple[Cell, Cell]], x: Column, y: Column) -> str:
    known = [(name, value) for name, value in pairs if isinstance(value, int | float)]
    if len(known) < 2:
        return ""
    (low_at, low), (high_at, high) = (find(known, key=lambda pair: pair[1]) for find in (min, max))
    return f"; lowest {y.word(low)} ({x.word(low_at)}), highest {y.word(high)} ({x.word(high_at)})"


def _read_first(spec: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The kind of the first mark and the fields of its axes, "" and none where there are none."""
    fields: dict[str, str] = {}
    view: Any = spec
    while isinstance(view, Mapping):
        encoding = view.get("encoding")
        for axis in ("x", "y"):
            channel = encoding.get(axis) if isinstance(encoding, Mapping) else None
            if isinstance(channel, Mapping) and isinstance(channel.get("field"), str):
                fields.setdefault(axis, channel["field"])
        if "mark" in view:
            mark = view["mark"]
            return str(mark["type"] if isinstance(mark, Mapping) else mark).capitalize(), fields
        inner = next((view[key] for key in ("layer", "hconcat", "vconcat", "concat", "spec") if key in view), None)
        view = inner[0] if isinstance(inner, list) and inner else inner
    return "A", fields


def _get(table: Table, name: str) -> Column:
    if (column := table.find_column(name)) is None:
        known = ", ".join(column.name for column in table.columns)
        raise ValueError(f"there is no column {quote_value(name)}; the table has {known}")
    return column


def _category(table: Table, column: Column) -> dict[str, Any]:
    if column.kind == "date":
        return {**_date(table, column), "type": "ordinal"}
    return {"field": column.name, "type": "nominal", "sort": None, "title": column.head}


def _along(table: Table, column: Column) -> dict[str, Any]:
    match column.kind:
        case "text":
            return _category(table, column)
        case "date":
            return {**_date(table, column), "type": "temporal"}
        case _:
            return {"field": column.name, "type": "quantitative", "title": column.head}


def _date(table: Table, column: Column) -> dict[str, Any]:
    are_months = all(len(str(value)) == len("2026-01") for value in table.list_values(column.name) if value)
    unit = "yearmonth" if are_months else "yearmonthdate"
    return {"field": column.name, "timeUnit": unit, "title": column.head}


def _figures(column: Column) -> dict[str, Any]:
    if not column.is_figure:
        raise ValueError(f"{column.name} is a column of {column.kind}; draw one of number, money or percent")
    return {"field": column.name, "type": "quantitative", "title": column.head}


def _series(table: Table, name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    column = _get(table, name)
    return {"color": {"field": column.name, "type": "nominal", "sort": None, "title": column.head}}
