"""Charts over MCP: a picture, the figures as text, and the data as structured content."""

import base64
from collections.abc import Mapping
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import mcp_types as types
import pytest

from agent_server import Chart, Column, Table, ToolContext, tool
from agent_server.settings import Settings
from agent_server.tool import Tool
from tests.mcp.conftest import Mode, Notebook


@tool(scope="notes:read", effect="read")
async def chart_notes(context: ToolContext) -> Chart:
    """Draw how many notes there are."""
    columns = [Column(name="day", kind="date"), Column(name="notes", kind="number")]
    table = Table(title="Notes", columns=columns, rows=[["2026-01-01", 1], ["2026-01-02", 3]])
    return Chart.lines(table, x="day", y="notes")


@pytest.fixture
def tools() -> Mapping[str, Tool[..., Any]]:
    return {chart_notes.name: chart_notes}


@pytest.fixture
def settings() -> Settings:
    return Settings(mcp_output_schemas=True)


async def test_a_chart_is_a_picture_its_figures_and_its_data(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        (listed,) = (await client.list_tools()).tools
        result = await client.call_tool("chart_notes", {})
    assert isinstance(result, types.CallToolResult)
    text, image = result.content
    assert isinstance(text, types.TextContent) and "| 1 January 2026 | 1 |" in text.text and "spec" not in text.text
    assert isinstance(image, types.ImageContent) and image.mime_type == "image/png"
    assert base64.b64decode(image.data).startswith(b"\x89PNG")
    assert listed.output_schema is not None and result.structured_content is not None
    jsonschema.validate(result.structured_content, listed.output_schema)
    assert result.structured_content["table"]["rows"] == [["2026-01-01", 1], ["2026-01-02", 3]]
