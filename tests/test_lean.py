"""What a process that serves has imported: what its first turn needs, before that turn, and nothing that no turn needs."""

import asyncio
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_server.app import Agents
from agent_server.testing import Call, Say, copy_database, scripted_openai
from tests.commands import PATIENCE, environment

UNUSED = {
    *("mcp", "mcp_types", "rich", "pygments", "numpy", "tokenizers", "wordllama", "semantic_text_splitter"),
    *("jwt", "cryptography", "litellm", "httpcore2", "h2", "truststore", "nh3", "griffe", "watchfiles", "argon2"),
}
"""What no turn uses of a workspace with one agent and no content, for a caller with an API key."""
TOOL = '''
import sys

from agent_server import ToolContext, tool


@tool(scope="modules:read", effect="read")
async def list_modules(context: ToolContext) -> list[str]:
    """List what is imported."""
    return sorted(sys.modules)
'''
AGENT = """---
name: modules
description: Says what is imported.
tools: [list_modules]
knowledge: []
---
Say what is imported.
"""


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    with copy_database(postgres) as url:
        yield url


async def test_the_first_turn_imports_nothing_and_what_no_turn_uses_is_not_imported(tmp_path: Path, empty: str) -> None:
    for file, text in (("tools/__init__.py", ""), ("tools/modules.py", TOOL), ("prompts/modules.md", AGENT)):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    async with scripted_openai([Call("list_modules", {}), Say("They are listed.")]) as model:
        before, after = await asyncio.to_thread(_list_around_turn, tmp_path, empty, model.url)
    assert after - before == set()
    assert {name.partition(".")[0] for name in after} & UNUSED == set()


def test_what_is_kept_out_comes_when_it_is_first_used() -> None:
    script = (
        "import sys, agent_server.lean; from agents import function_tool\n"
        "def add(a: int) -> int:\n"
        "    '''Add one.\n\n    Args:\n        a: The number.\n    '''\n"
        "before = 'griffe' in sys.modules\n"
        "tool = function_tool(add)\n"
        "print(before, tool.description, tool.params_json_schema['properties']['a']['description'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False Add one. The number.\n"


def _list_around_turn(workspace: Path, url: str, model: str) -> tuple[set[str], set[str]]:
    """What a server has imported before and after its first turn."""
    variables = {"DATABASE_URL": url, "OPENAI_BASE_URL": model, "AGENT_SERVER_MODEL": "scripted"}
    written = workspace / "written"
    with written.open("w") as errors:
        # No fork of the zygote, which has imported most of it.
        process = subprocess.Popen(
            [sys.executable, "-m", "agent_server", "serve", "--workspace", str(workspace), "--port", "0"],
            cwd=workspace,
            env=environment({**variables, "AGENT_SERVER_LOG_LEVEL": "DEBUG"}),
            stderr=errors,
        )
    try:
        give_up = time.monotonic() + PATIENCE
        while "server.prepared" not in (text := written.read_text()):
            assert process.poll() is None and time.monotonic() < give_up, text
            time.sleep(0.1)
        address = next(line for line in text.splitlines() if "  As you  " in line).split()[-1]
        base, key = address.split("/#key=")
        with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE) as http:
            before = _list(http)
            response = http.post("/api/chat", json={"message": "What is imported?", "stream": False})
            assert response.status_code == 200 and "They are listed." in response.text, response.text
            return before, _list(http)
    finally:
        process.kill()
        process.wait()


def _list(http: httpx.Client) -> set[str]:
    response = http.post("/api/tools/list_modules", json={})
    assert response.status_code == 200, response.text
    return set(response.json())


class _Made:
    """Stands for the agents and for the clients of models, which take their time."""

    def __init__(self) -> None:
        self.begun: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.routed, self.answered = asyncio.Event(), asyncio.Event()

    async def get_router(self) -> None:
        self.begun["router"].set()
        await self.routed.wait()

    async def prepare(self, is_late: Callable[[], bool]) -> None:
        self.begun["late" if is_late() else "rehearsal"].set()

    async def run(self, _: Any) -> Any:
        self.begun["turn"].set()
        await self.answered.wait()


@pytest.mark.parametrize("comes", [True, False])
async def test_what_prepares_gives_way_to_a_turn_that_comes_meanwhile(comes: bool) -> None:
    made: Any = _Made()
    agents = Agents(lambda: made, lambda *_: made, lambda *_: made)
    preparing = asyncio.create_task(agents.prepare())
    await made.begun["router"].wait()
    turn = asyncio.create_task(agents.run(None)) if comes else None  # type: ignore[arg-type]  # it is handed on
    if turn is not None:
        await made.begun["turn"].wait()
    made.routed.set()
    if turn is not None:
        await made.begun["late"].wait()
        assert not preparing.done()
        made.answered.set()
        await turn
    await preparing
    assert list(made.begun) == (["router", "turn", "late"] if comes else ["router", "rehearsal"])
