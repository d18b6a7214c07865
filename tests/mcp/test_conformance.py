"""The conformance suite of MCP against a workspace that declares what its scenarios ask for, on three replicas behind a
balancer that knows no sessions."""

import asyncio
import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.mcp.conformance.proxy import balance
from tests.needs import SUITE
from tests.server import Start

pytestmark = pytest.mark.needs("conformance")

HERE = Path(__file__).parent / "conformance"
REPLICAS = 3
SCENARIOS = {"2025-11-25": 30, "2026-07-28": 37}
"""How many a revision requires."""
_RESULT = re.compile(r"^(✓|✗) ([a-z0-9-]+): ", re.MULTILINE)
_NOT_SCORED = re.compile(r"^  [✓✗] ([a-z0-9-]+) \(", re.MULTILINE)


@pytest.mark.parametrize("revision", SCENARIOS)
async def test_all_that_a_revision_requires_passes(start_other: Start, revision: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(start_other(HERE / "workspace")) for _ in range(REPLICAS)]
        bases = [str(client.http.base_url).rstrip("/") for client in clients]
        base = await stack.enter_async_context(balance(bases, clients[0].key))
        results = await _run_suite(f"{base}/mcp", revision, tmp_path)
    assert len(results) == SCENARIOS[revision]
    assert {name for name, passed in results.items() if not passed} == set()


async def _run_suite(url: str, revision: str, folder: Path) -> dict[str, bool]:
    """Whether each of the scenarios has passed that a revision requires."""
    node, suite = SUITE
    process = await asyncio.create_subprocess_exec(
        *(node, suite, "server", "--url", url, "--requirements", revision, "--output-dir", str(folder)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
    )
    said = (await process.communicate())[0].decode()
    summary, is_there, others = said.partition("=== SUMMARY ===")[2].partition("Not scored for")
    assert is_there, said
    not_scored = set(_NOT_SCORED.findall(others))
    return {name: mark == "✓" for mark, name in _RESULT.findall(summary) if name not in not_scored}
