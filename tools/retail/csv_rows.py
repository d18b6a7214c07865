"""Rows of CSV: how they are read, with every mistake named, and written, so that what is written reads the same.

The first row names the columns; it is row 1, as spreadsheets count. A text that a spreadsheet would take for a formula
stands behind an apostrophe, which is taken off when it is read.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from agent_server import InvalidInput
from agent_server.errors import FieldError, name_fields, quote_value

MOST_ROWS = 2_000
_FORMULA = re.compile(r"'*[=+\-@\t\r]")

R = TypeVar("R", bound=BaseModel)


@dataclass
class Rows(Generic[R]):
    """The rows of a file by their numbers, and what is wrong with it so far."""

    good: dict[int, R] = field(default_factory=dict)
    wrong: list[tuple[int, FieldError]] = field(default_factory=list)

    def complain(self, number: int, column: str, message: str) -> None:
        """Name a mistake. `message` says what was wrong and what would be right."""
        self.wrong.append((number, FieldError(f"row {number}, {column}", message)))

    def check(self) -> None:
        """Raises InvalidInput that names every row with a mistake, and the first mistakes."""
        if not self.wrong:
            return
        self.wrong.sort(key=lambda mistake: mistake[0])
        fields = [mistake for _, mistake in self.wrong]
        numbers = name_numbers(sorted({number for number, _ in self.wrong}))
        raise InvalidInput(f"Nothing was imported; put right {numbers}. {name_fields(fields, len(fields))}", fields)


def name_numbers(numbers: Sequence[int]) -> str:
    """Row numbers as people write them: "rows 2, 4 to 6"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    named = ", ".join(" to ".join(map(str, run)) for run in runs)
    return f"row{'s' if len(numbers) > 1 else ''} {named}"


def read_rows(text: str, model: type[R], right: Mapping[str, str]) -> Rows[R]:
    """Read a file whose columns are the fields of `model`; `right` says of a column what would be right.

    Raises InvalidInput for a file that has no such columns or too many rows.
    """
    rows: Rows[R] = Rows()
    columns, records = _read_records(text, model)
    for number, record in records:
        if len(record) != len(columns):
            rows.complain(number, "all", f"has {len(record)} cells; write {len(columns)}, one for each column")
            continue
        cells = {name: _take_off(cell) for name, cell in zip(columns, record, strict=True) if cell != ""}
        try:
            rows.good[number] = model.model_validate(cells)
        except ValidationError as error:
            for mistake in error.errors():
                name = str(mistake["loc"][0])
                given = f"{quote_value(cells[name])} is not right" if name in cells else "is empty"
                rows.complain(number, name, f"{given}; write {right.get(name, mistake['msg'])}")
    return rows


def _read_records(text: str, model: type[BaseModel]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    text = text.removeprefix("\ufeff")
    delimiter = ";" if text.partition("\n")[0].count(";") > text.partition("\n")[0].count(",") else ","
    try:
        head, *records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    except csv.Error as error:
        raise InvalidInput(
            f"csv: is no CSV ({error}); write cells with a comma, a quote or a line end in quotes"
        ) from None
    except ValueError:
        raise InvalidInput(f"csv: is empty; the first row names columns of {', '.join(model.model_fields)}") from None
    columns = [name.strip().lower() for name in head]
    required = {name for name, about in model.model_fields.items() if about.is_required()}
    unknown, lacking = sorted(set(columns) - set(model.model_fields)), sorted(required - set(columns))
    if unknown or lacking or len(set(columns)) < len(columns):
        raise InvalidInput(
            f"csv: row 1 has the columns {quote_value(', '.join(columns))}; write {', '.join(model.model_fields)}, each once, "
            f"and at least {', '.join(sorted(required))}"
        )
    if len(records) > MOST_ROWS:
        raise InvalidInput(f"csv: has {len(records)} rows; import {MOST_ROWS} at most at once")
    # A line with nothing on it is no row, as at the end of a file.
    return columns, [(number, record) for number, record in enumerate(records, 2) if record]


def write_rows(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV (RFC 4180)."""
    written = io.StringIO(newline="")
    writer = csv.writer(written)
    writer.writerow(columns)
    writer.writerows([_put_on(row[name]) for name in columns] for row in rows)
    return written.getvalue()


def _put_on(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if _FORMULA.match(text) and not isinstance(value, int) else text


def _take_off(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
