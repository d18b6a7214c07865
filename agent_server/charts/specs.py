"""What a chart may be drawn by: a part of Vega-Lite that only draws.

A specification comes from a tool, and a tool may have it from a model or from elsewhere. So it is read by a list of what is
allowed. There is nothing in it that loads, computes, links or runs: no address, no expression, no signal, no image. The
data is the chart's table, and what is to be computed the tool computes.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from agent_server.errors import quote_value

LARGEST, MOST_VALUES, DEEPEST, LONGEST_LIST, LONGEST_TEXT = 20_000, 1_000, 12, 100, 300
SIZES = range(20, 2_001)
"""Pixels of a width or a height."""
SCHEMA = "https://vega.github.io/schema/vega-lite/"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VIEWS = _words("layer hconcat vconcat concat spec")
_CHANNELS = _words("""
    x y x2 y2 xOffset yOffset theta theta2 radius radius2 color fill stroke opacity fillOpacity strokeOpacity size shape
    strokeWidth strokeDash angle detail order text tooltip row column facet
""")
_WORDS = _words("""
    title subtitle description width height step mark encoding columns spacing resolve scale axis legend header field type
    aggregate bin maxbins timeUnit sort op stack format value datum condition test equal lt lte gt gte range oneOf valid
    domain domainMin domainMax zero nice reverse scheme clamp base exponent padding paddingInner paddingOuter interpolate
    point filled line tension cornerRadius cornerRadiusEnd innerRadius outerRadius padAngle align baseline dx dy limit
    lineBreak fontSize fontWeight fontStyle orient grid domainColor ticks tickCount tickSize labels labelAngle labelAlign
    labelBaseline labelLimit labelOverlap labelPadding labelFontSize titleAlign titleAnchor titleFontSize titleFontWeight
    titlePadding anchor offset values direction symbolType gradientLength extent box median rule outliers band bandPosition
    independent binned
""")
_ALLOWED = _VIEWS | _CHANNELS | _WORDS
_MARKS = _words("arc area bar boxplot circle errorband errorbar line point rect rule square text tick trail")
_WORDS_OF_PEOPLE = frozenset(
    {"title", "subtitle", "description", "text", "datum", "equal", "oneOf", "domain", "values"}
)
_SMALL = frozenset({"maxbins", "tickCount", "columns", "nice"})
_OF_DATA = frozenset({"value", "datum", "domain", "domainMin", "domainMax", "values", "equal", "oneOf", "range"}) | {
    *("lt", "lte", "gt", "gte")
}
_REASONS = {
    **dict.fromkeys(("data", "datasets", "url", "lookup"), "its data is the table of the chart"),
    **dict.fromkeys(
        ("expr", "signal", "calculate", "labelExpr", "transform", "filter", "params", "selection"),
        "it computes nothing: compute in the tool, and give a table of what comes out",
    ),
    **dict.fromkeys(("href", "image", "usermeta", "cursor", "projection"), "it links to nothing and loads nothing"),
    "config": "colours and fonts are those of the page",
}
_ADDRESS = re.compile(r"url\s{0,9}\(|://|^\W*(javascript|vbscript|data|file|blob):", re.IGNORECASE)


def check_spec(spec: Mapping[str, Any], columns: Collection[str]) -> dict[str, Any]:
    """The specification, without its `$schema`. Raises ValueError with a sentence for what a chart may not have."""
    schema = spec.get("$schema", SCHEMA)
    if not isinstance(schema, str) or not schema.startswith(SCHEMA):
        raise ValueError(f"$schema: a chart is one of Vega-Lite, whose schema begins with {SCHEMA}")
    spec = {key: value for key, value in spec.items() if key != "$schema"}
    _Reader(columns).read(spec, "spec", 0)
    if len(json.dumps(spec)) > LARGEST:
        raise ValueError(f"the specification may have {LARGEST:,} characters; draw less, or in fewer words")
    if not _draws(spec):
        raise ValueError("the specification draws nothing; give it a mark and an encoding")
    return spec


def _draws(spec: Mapping[str, Any]) -> bool:
    return "mark" in spec or any(spec.get(view) for view in _VIEWS)


class _Reader:
    """Reads a specification for a table with these columns, and counts its values."""

    def __init__(self, columns: Collection[str]) -> None:
        self._columns = columns
        self._left = MOST_VALUES

    def read(self, value: Any, key: str, depth: int, *, within: str = "") -> None:
        """Raise ValueError for what is not allowed in the value of `key`, which stands in that of `within`."""
        self._left -= 1
        if depth > DEEPEST or self._left < 0:
            raise ValueError(f"the specification may have {MOST_VALUES:,} values in {DEEPEST} levels; draw less")
        match value:
            case None | bool():
                return
            case int() | float():
                _check_number(value, key)
            case str():
                self._check_text(value, key)
            case list():
                if len(value) > LONGEST_LIST:
                    raise ValueError(f"{key}: a list may have {LONGEST_LIST} entries, and this has {len(value)}")
                for entry in value:
                    self.read(entry, key, depth + 1, within=within)
            case dict():
                _check_keys(value, key)
                for name, entry in value.items():
                    self.read(entry, name, depth + 1, within=key)
            case _:
                raise ValueError(f"{key}: a specification is JSON, and has no {type(value).__name__}")
        if key == "mark" or (key == "type" and within == "mark"):
            _check_mark(value)
        if key in ("width", "height", "tickCount", "test", "timeUnit", "field", "format"):
            self._check_form(value, key)

    def _check_form(self, value: Any, key: str) -> None:
        if key in ("width", "height") and not isinstance(value, dict) and not _is_size(value):
            raise ValueError(f"{key}: give {SIZES.start} to {SIZES[-1]} pixels, or leave it out and the page decides")
        if key == "tickCount" and not isinstance(value, int | float):
            raise ValueError("tickCount: give a number")
        if key == "test" and not isinstance(value, dict):
            raise ValueError("test: a condition is an object, as {'field': 'change', 'lt': 0}, and no expression")
        # A step of a millisecond over years would be more steps than fit into memory.
        if key == "timeUnit" and not isinstance(value, str):
            raise ValueError("timeUnit: give a word, as yearmonth")
        if key == "field" and value not in self._columns:
            known = ", ".join(self._columns)
            raise ValueError(f"field: {quote_value(str(value)[:50])} is no column of the table, which has {known}")
        if key == "format" and (
            not isinstance(value, str)
            or len(value) > 20
            or any(int(n) > 20 for n in re.findall(r"\d+", value, re.ASCII))
        ):
            raise ValueError("format: give a format of d3 of at most 20 characters, as ',.2f' or '%b %Y'")

    def _check_text(self, text: str, key: str) -> None:
        if len(text) > LONGEST_TEXT:
            raise ValueError(f"{key}: a text may have {LONGEST_TEXT} characters, and this has {len(text)}")
        if key not in _WORDS_OF_PEOPLE and _ADDRESS.search(text):
            raise ValueError(f"{key}: {quote_value(text[:50])} is an address, and a chart has none: it loads nothing")


def _check_keys(value: Mapping[Any, Any], key: str) -> None:
    for name in value:
        if not isinstance(name, str) or name not in _ALLOWED:
            reason = (
                _REASONS.get(name, "docs/tools.md says what it draws with")
                if isinstance(name, str)
                else "keys are texts"
            )
            raise ValueError(f"{key}: a chart may have no {quote_value(str(name)[:50])}; {reason}")
    if key == "bin" and value.keys() - {"maxbins"}:
        raise ValueError("bin: give true or {'maxbins': 20}")


def _check_mark(value: Any) -> None:
    word = value.get("type") if isinstance(value, dict) else value
    if not isinstance(word, str) or word not in _MARKS:
        raise ValueError(
            f"mark: {quote_value(str(word)[:50])} is none that a chart draws; give one of {', '.join(sorted(_MARKS))}"
        )


def _check_number(value: int | float, key: str) -> None:
    if abs(value) > 1e15 or not math.isfinite(value):
        raise ValueError(f"{key}: a number may be 1e15 at most")
    most = 200 if key in _SMALL else 10_000
    if abs(value) > most and key not in _OF_DATA:
        raise ValueError(f"{key}: the number may be {most:,} at most")


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and SIZES.start <= value <= SIZES[-1]
