"""A chart only draws: a specification that loads, computes, links or is too large is refused with a sentence."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent_server import Chart, Column, Table

TABLE = Table(
    title="Sales",
    columns=[Column(name="month", kind="date"), Column(name="net", kind="number"), Column(name="shop")],
    rows=[["2026-01", 1, "North"], ["2026-02", 2, "South"]],
)
BAR: dict[str, Any] = {
    "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
    "title": {"text": "Sales, see https://shop.example", "anchor": "start"},
    "layer": [
        {
            "mark": {"type": "bar", "cornerRadiusEnd": 4},
            "encoding": {
                "x": {"field": "month", "type": "temporal", "timeUnit": "yearmonth", "axis": {"format": "%b %Y"}},
                "y": {"field": "net", "type": "quantitative", "aggregate": "sum"},
                "color": {"condition": {"test": {"field": "net", "lt": 0}, "value": "#a8321f"}, "value": "#0e6a6c"},
            },
        }
    ],
}
HOSTILE: list[tuple[str, Any]] = [
    ("data", {"url": "https://evil.example/x.csv"}),
    ("data", {"values": [{"net": 1}]}),
    ("datasets", {"a": []}),
    ("url", {"field": "shop"}),
    ("href", {"field": "shop"}),
    ("href", "javascript:alert(1)"),
    ("usermeta", {"embedOptions": {"loader": {"target": "_top"}}}),
    ("params", [{"name": "p", "expr": "1+1"}]),
    ("signals", [{"name": "s"}]),
    ("signal", "width"),
    ("expr", "datum.net"),
    ("labelExpr", "datum.label"),
    ("transform", [{"calculate": "datum.net", "as": "x"}]),
    ("transform", [{"lookup": "net", "from": {"data": {"url": "x"}}}]),
    ("projection", {"type": "mercator"}),
    ("config", {"font": "x"}),
    ("test", "datum.net > 0"),
    ("mark", "image"),
    ("mark", {"type": "image", "aspect": False}),
    ("mark", {"type": "geoshape"}),
    ("fill", "url(https://evil.example/x.svg#a)"),
    ("color", {"value": "url(#gradient)"}),
    ("shape", " JavaScript:alert(1)"),
    ("type", "https://evil.example"),
    ("width", 1e9),
    ("width", "container"),
    ("height", {"step": 1e9}),
    ("tickCount", 1e9),
    ("tickCount", {"interval": "millisecond", "step": 1}),
    ("bin", {"step": 1e-9}),
    ("bin", {"maxbins": 1e9}),
    ("timeUnit", {"unit": "milliseconds", "step": 1}),
    ("format", "100000000d"),
    ("size", float("inf")),
    ("values", list(range(101))),
    ("description", "x" * 301),
    ("field", "secret"),
    ("field", "month['constructor']"),
    ("__proto__", {"a": 1}),
    ("value", b"bytes"),
]


def _deep(levels: int) -> Any:
    nested: Any = "bar"
    for _ in range(levels):
        nested = {"layer": [nested]}
    return nested


def test_a_specification_that_only_draws_is_taken_without_its_schema() -> None:
    chart = Chart(title="Sales", table=TABLE, spec=BAR)
    assert chart.spec == {key: value for key, value in BAR.items() if key != "$schema"}
    assert Chart.model_validate_json(chart.model_dump_json()) == chart
    assert chart.alt == "Bar chart “Sales”: Net by Month, 2 rows; lowest 1 (January 2026), highest 2 (February 2026)."


def _places(spec: Any) -> list[dict[str, Any]]:
    """All objects in a specification."""
    entries = spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ()
    return [spec] * isinstance(spec, dict) + [place for entry in entries for place in _places(entry)]


@given(st.sampled_from(HOSTILE), st.integers(min_value=0, max_value=len(_places(BAR)) - 1))
def test_what_does_more_than_draw_is_refused_wherever_it_stands(hostile: tuple[str, Any], at: int) -> None:
    spec = copy.deepcopy(BAR)
    key, value = hostile
    _places(spec)[at][key] = value
    with pytest.raises(ValidationError) as refused:
        Chart(title="Sales", table=TABLE, spec=spec)
    assert "Value error, " in str(refused.value) and not str(refused.value).split("[type=")[0].rstrip().endswith(".")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: (
        st.lists(inside)
        | st.dictionaries(st.sampled_from([*BAR, "data", "mark", "encoding", "url"]) | st.text(), inside)
    ),
)


@given(st.dictionaries(st.sampled_from(["mark", "layer", "encoding", "title", "width"]) | st.text(), JSON))
def test_any_json_is_a_chart_or_is_refused_with_a_sentence(spec: dict[str, Any]) -> None:
    try:
        taken = Chart(title="Sales", table=TABLE, spec=spec)
    except ValidationError:
        return
    keys = {key for place in _places(taken.spec) for key in place}
    assert not keys & {"data", "url", "href", "expr", "signal", "transform", "usermeta"}
    assert taken.alt


@pytest.mark.parametrize(
    "spec",
    [_deep(13), _deep(5_000), {"layer": [{"mark": "bar"}] * 101}, {"hconcat": [{"layer": [{"mark": "bar"}] * 100}] * 20}, {}, {"$schema": "https://vega.github.io/schema/vega/v6.json", "mark": "bar"}],
    ids=["deep", "very deep", "long", "large", "empty", "Vega"],
)  # fmt: skip
def test_a_specification_that_is_too_large_or_draws_nothing_is_refused(spec: Any) -> None:
    with pytest.raises(ValidationError, match="Value error, "):
        Chart(title="Sales", table=TABLE, spec=spec)


def test_charts_are_made_without_knowing_vega_lite() -> None:
    bars = Chart.bars(TABLE, x="shop", y="net", horizontal=True)
    assert bars.alt == "Bar chart “Sales”: Net by Shop, 2 rows; lowest 1 (North), highest 2 (South)."
    assert Chart.stacked(TABLE, x="month", y="net", series="shop").spec["encoding"]["color"]["field"] == "shop"
    assert len(Chart.lines(TABLE, x="month", y=["net", "net"]).spec["layer"]) == 2
    with pytest.raises(ValueError, match="there is no column 'gross'; the table has month, net, shop"):
        Chart.bars(TABLE, x="shop", y="gross")
    with pytest.raises(ValueError, match="shop is a column of text; draw one of number, money or percent"):
        Chart.lines(TABLE, x="month", y="shop")
