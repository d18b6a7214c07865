"""A chart as it is served: read by the model as figures, kept with the conversation, drawn for its owner alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent_server import Chart, Column, Table
from agent_server.charts.drawing import CannotDraw, Drawings, run_job
from agent_server.charts.looks import Look
from agent_server.testing import Call, Say, Step, scripted_openai
from tests.server import Start

TOOL = '''
from pydantic import BaseModel

from agent_server import Chart, Column, Table, ToolContext, tool


class Report(BaseModel):
    """Sales."""

    orders: int
    table: Table
    chart: Chart


@tool(scope="sales:read", effect="read", phrases=("show sales",))
async def report_sales(context: ToolContext) -> Report:
    """Report the sales of each month."""
    net = Column(name="net", label="Net sales", kind="money", currency="EUR")
    table = Table(
        title="Sales <script>", columns=[Column(name="month", kind="date"), net], rows=[["2026-01", 123450], ["2026-02", 5]]
    )
    return Report(orders=7, table=table, chart=Chart.bars(table, x="month", y="net"))
'''
AGENT = """---
name: sales
description: Reports sales.
tools: [report_sales]
knowledge: []
---
Report sales.
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for file, text in (("tools/__init__.py", ""), ("tools/sales.py", TOOL), ("prompts/sales.md", AGENT)):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    return tmp_path


async def test_a_chart_is_read_as_figures_kept_as_data_and_drawn_for_its_owner(start_other: Start, root: Path) -> None:
    steps: list[Step] = [Call("report_sales", {}), Say("Here."), Say("Again.")]
    async with scripted_openai(steps) as model, start_other(root, openai_base_url=model.url, model="m") as client:
        answer = await client.ask("Show sales")
        told = next(each["content"] for each in model.requests[-1]["messages"] if each["role"] == "tool")
        assert told.startswith('{"orders": 7}\n\n**Sales \\<script>**\n\n| Month | Net sales (EUR) |')
        assert "| January 2026 | 1,234.50 |" in told and '"type"' not in told
        # A later turn reads the same, and so does a takeover, which has it from the same item.
        await client.ask("And now?", id=answer["conversation_id"])
        assert told in [each["content"] for each in model.requests[-1]["messages"]]

        path = f"/api/conversations/{answer['conversation_id']}/messages"
        message = next(each for each in (await client.get(path, render="html"))["items"] if each["tools"])
        (use,) = message["tools"]
        assert use["output"]["chart"]["spec"]["mark"] == "bar" and use["output"]["table"]["rows"][1] == ["2026-02", 5]
        assert '<td class="right">1,234.50</td>' in use["html"] and "<script" not in use["html"]

        charts = f"/api/turns/{message['id']}/charts/{use['call_id']}"
        (picture,) = await client.get(charts, theme="dark", narrow=True)
        assert picture["alt"].startswith("Bar chart “Sales <script>”: Net sales (EUR) by Month, 2 rows; lowest 0.05")
        assert picture["svg"].startswith("<svg") and "<script" not in picture["svg"] and picture["note"] is None
        assert (await client.get(charts, theme="dark", narrow=True)) == [picture]
        other = {"Authorization": f"Bearer {await client.new_key()}"}
        for address, headers in ((charts, other), (f"{charts}x", client.auth)):
            assert (await client.http.get(address, headers=headers)).status_code == 404
        assert (await client.http.get(charts)).status_code == 401

        data = await client.http.post("/api/tools/report_sales", json={}, headers=client.auth)
        assert data.json() == use["output"]


COLUMNS = [Column(name="shop"), Column(name="net", kind="number")]
SHOPS = [[f"Shop {n}", n] for n in range(1_000)]


async def test_the_picture_of_a_chart_is_the_same_each_time() -> None:
    odd = ["a\x0b\ufffe <b> ]]> &amp; <!ENTITY x> javascript:alert(1)", 4]
    chart = Chart.bars(Table(title="Sales\x01", columns=COLUMNS, rows=[*SHOPS[:3], odd]), x="shop", y="net")
    looks = (Look(), Look(), Look(theme="dark", narrow=True))
    light, again, dark = [await Drawings().draw(chart, look) for look in looks]
    assert light == again != dark


@pytest.mark.parametrize(
    ("more", "limits"),
    [
        ({"mark": "bar", "encoding": {"column": {"field": "shop"}, "row": {"field": "net"}}}, {"seconds": 2}),
        ({"mark": "point", "width": 2_000, "height": 2_000}, {"memory": 60 * 2**20}),
        ({"mark": "point", "width": 10_000, "height": 10_000}, {}),
        ({"data": {"url": "http://127.0.0.1:9/secret.csv"}, "mark": "bar"}, {}),
        ({"mark": {"type": "no mark"}}, {}),
    ],
    ids=["time", "memory", "size", "address", "nonsense"],
)
async def test_what_a_specification_does_to_the_library_ends_with_its_own_process(
    more: dict[str, Any], limits: dict[str, Any]
) -> None:
    rows = [{"shop": shop, "net": net} for shop, net in SHOPS]
    with pytest.raises(CannotDraw, match="could not be drawn"):
        await run_job(_job({"data": {"values": rows}, **more}, **limits))


async def test_the_library_reads_no_file(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("shop\ncanary\n")
    drawn = {}
    for name, data in (
        ("file", {"url": f"file://{tmp_path}/secret.csv"}),
        ("values", {"values": [{"shop": "canary"}]}),
    ):
        encoding = {"x": {"field": "shop", "type": "nominal"}}
        drawn[name] = await run_job(_job({"data": data, "mark": "bar", "encoding": encoding}))
    assert b"canary" in drawn["values"] and b"canary" not in drawn["file"]


def _job(spec: dict[str, Any], **limits: Any) -> bytes:
    return json.dumps({"spec": spec, "form": "svg", "pixels": 10**6, "memory": 2**30, "seconds": 10, **limits}).encode()
