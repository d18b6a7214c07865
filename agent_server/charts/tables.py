"""A table of figures, as a tool returns it.

    Table(
        title="Sales by month",
        columns=[Column(name="month", kind="date"), Column(name="net", label="Net sales", kind="money", currency="EUR")],
        rows=[["2026-01", 123_450], ["2026-02", 98_700]],
    )

Money is in minor units, cents for the euro, so that no figure is ever rounded on its way.
"""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from agent_server.errors import ResultTooLarge, quote_value
from agent_server.wording import MONTHS, one_line, shorten, word_date, word_label

Kind = Literal["text", "number", "money", "percent", "date"]
Cell = str | int | float | None

MOST_COLUMNS, MOST_ROWS, MOST_CELLS = 20, 1_000, 5_000
LONGEST_TEXT = 300
"""Characters of a title, a label or a cell."""
_DATE = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])(-[0-9]{2})?")
# ISO 4217. All others have two digits after the point.
_NO_DIGITS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"
_THREE_DIGITS = "BHD IQD JOD KWD LYD OMR TND"


class Column(BaseModel):
    """A column of a table. `currency` is the code of ISO 4217 for money, and `unit` stands behind numbers, as kg does.
    12.5 in a column of per cents is 12.5 %."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # A dot or a bracket in it would be a path to Vega-Lite.
    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
    label: str = Field(default="", max_length=LONGEST_TEXT)
    kind: Kind = "text"
    currency: str | None = Field(default=None, pattern=r"^[A-Z]{3}$")
    unit: str | None = Field(default=None, max_length=20)

    @model_validator(mode="after")
    def _check_kind(self) -> "Column":
        if (self.kind == "money") != (self.currency is not None):
            raise ValueError(
                "a column of money has a currency, as in kind='money', currency='EUR', and no other has one"
            )
        if self.unit is not None and self.kind != "number":
            raise ValueError("only a column of numbers has a unit")
        return self

    @property
    def head(self) -> str:
        """What stands above the column: its label, with the currency or the unit of all its figures."""
        unit = self.currency or self.unit
        label = self.label or word_label(self.name)
        return f"{label} ({unit})" if unit else label

    @property
    def is_figure(self) -> bool:
        return self.kind in ("number", "money", "percent")

    def word(self, value: Cell) -> str:
        """A cell as people read it, "" for none."""
        match value:
            case None:
                return ""
            case int() | float() if self.kind == "money":
                digits = find_digits(self.currency)
                return f"{Decimal(value).scaleb(-digits):,.{digits}f}"
            case int() | float():
                return f"{_word_number(value)} %" if self.kind == "percent" else _word_number(value)
            case str() if self.kind == "date" and len(value) == len("2026-01"):
                return f"{MONTHS[int(value[5:]) - 1]} {value[:4]}"
            case _:
                return shorten(one_line(word_date(value) if self.kind == "date" else value))


def find_digits(currency: str | None) -> int:
    """How many digits of an amount in minor units stand behind the point."""
    return 0 if currency in _NO_DIGITS.split() else 3 if currency in _THREE_DIGITS.split() else 2


def _word_number(value: int | float) -> str:
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else f"{value:.4e}"
    if value and not 0.0001 <= abs(value) < 1e15:
        return f"{value:.4g}"
    return f"{value:,.4f}".rstrip("0").rstrip(".")


class Table(BaseModel):
    """Figures in rows and columns. A row is a list in the order of the columns; a mapping by their names becomes one.

    Raises ValueError for a cell that is not of its column's kind, and ResultTooLarge for more than a table may have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["table"] = "table"
    title: str = Field(max_length=LONGEST_TEXT)
    columns: list[Column] = Field(min_length=1, max_length=MOST_COLUMNS)
    rows: list[list[Cell]]

    @field_validator("columns")
    @classmethod
    def _check_names(cls, columns: list[Column]) -> list[Column]:
        names = [column.name for column in columns]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"there are several columns {quote_value(sorted(twice)[0])}; give each a name of its own")
        return columns

    @field_validator("rows", mode="before")
    @classmethod
    def _read_rows(cls, rows: Any, info: ValidationInfo) -> Any:
        columns: Sequence[Column] = info.data.get("columns", ())
        if not columns or isinstance(rows, str | Mapping) or not isinstance(rows, Sequence):
            return rows
        most = min(MOST_ROWS, MOST_CELLS // len(columns))
        if len(rows) > most:
            raise ResultTooLarge(
                f"A table of {len(columns)} columns may have {most} rows, and this has {len(rows)}; ask for less at once"
            )
        return [_read_row(number, row, columns) for number, row in enumerate(rows, 1)]

    def find_column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)

    def list_values(self, name: str) -> list[Cell]:
        """The cells of a column."""
        at = next(n for n, column in enumerate(self.columns) if column.name == name)
        return [row[at] for row in self.rows]


def _read_row(number: int, row: Any, columns: Sequence[Column]) -> list[Cell]:
    if isinstance(row, Mapping):
        names = {column.name for column in columns}
        if unknown := sorted(str(key) for key in row if key not in names):
            raise ValueError(f"row {number}: there is no column {quote_value(unknown[0])}")
        row = [row.get(column.name) for column in columns]
    if not isinstance(row, list | tuple) or len(row) != len(columns):
        raise ValueError(
            f"row {number}: give a list with a cell for each of the {len(columns)} columns, in their order"
        )
    return [_read_cell(number, value, column) for value, column in zip(row, columns, strict=True)]


_EXPECTED: dict[Kind, str] = {
    "text": f"a text of at most {LONGEST_TEXT} characters",
    "number": "a number",
    "money": "a whole number of minor units, as 1250 for 12.50",
    "percent": "a number, as 12.5 for 12.5 %",
    "date": "a date, or as 2026-03-31 or 2026-03 is written",
}


def _read_cell(number: int, value: Any, column: Column) -> Cell:
    read: Cell = value
    if isinstance(value, Decimal) and value.is_finite():
        read = int(value) if value == value.to_integral_value() else float(value)
    elif isinstance(value, date):
        read = value.isoformat()[: len("2026-01-31")]
    if read is None or _is_of_kind(read, column.kind):
        return read
    raise ValueError(f"row {number}, {column.name}: {quote_value(str(value)[:50])} is not {_EXPECTED[column.kind]}")


def _is_of_kind(value: Any, kind: Kind) -> bool:
    match kind:
        case "text":
            return isinstance(value, str) and len(value) <= LONGEST_TEXT
        case "date":
            return isinstance(value, str) and _is_date(value)
        case "money":
            return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18
        case _:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return is_number and abs(value) < 10**300 and math.isfinite(value)


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text if len(text) > len("2026-01") else f"{text}-01")
    except ValueError:
        return False
    return True
