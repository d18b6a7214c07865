"""What a server says of itself to MCP clients."""

import pytest
from mcp_types import Icon

from tests.mcp.test_reference import connect
from tests.server import Start

ICON = "https://example.com/icon.png"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_instructions_and_icon_are_those_of_the_settings(start: Start, mode: str) -> None:
    async with start(mcp_instructions="Ask about diving.", mcp_icon=ICON) as client, connect(client, mode) as mcp:
        assert mcp.instructions == "Ask about diving."
        assert mcp.server_info is not None
        assert mcp.server_info.icons == [Icon(src=ICON)]


async def test_without_instructions_clients_are_told_of_the_specialists(start: Start) -> None:
    async with start() as client, connect(client, "legacy") as mcp:
        assert mcp.instructions is not None
        assert "- safety: " in mcp.instructions
        assert mcp.server_info is not None
        assert mcp.server_info.icons is None
