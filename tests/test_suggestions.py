"""Each question that the first screen suggests has an answer that one would show to a friend, without a model key."""

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_server.prompts import load_prompts
from agent_server.testing import copy_database
from tests.commands import serving
from tests.conftest import ROOT
from tests.server import Start

HOLDS = {
    "Which certification do I need to dive a wreck?": ("Advanced Open Water",),
    "Which wetsuit thickness do I need for 22 degree water?": ("mm",),
    "How long must I wait before flying after diving?": ("12 hours", "18 hours", "24 hours"),
    'Add "service my regulator" to my list': ("service my regulator",),
    "Where should I dive in February?": ("Maldives", "November to April", "27 to 30 °C"),
    "How much money do I need to show for a UK student visa?": ("£1,529", "£1,171"),
    "Show my orders": ("You have no orders here",),
    "How do I write a tool?": ("@tool",),
    "How do I change what the assistant says?": ("prompts/",),
    "Note that the release is on Friday": ("the release is on Friday",),
    "What are my notes?": ("the release is on Friday",),
}
UGLY = re.compile(
    r"[{}]|\b(True|False|None|null|true|false)\b|\b[a-z]+_[a-z_]+\b(?!`)|[0-9a-f]{8}-[0-9a-f]{4}|T\d\d:\d\d"
)
"""JSON, words of Python, names of fields, ids and times for programs."""


def check(question: str, answer: dict[str, Any]) -> None:
    text = answer["text"]
    outside_code = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    assert [found[0] for found in UGLY.finditer(outside_code)] == [], text
    assert all(word in text for word in HOLDS[question]), text
    assert "nothing about this" not in text
    if answer["tools"]:
        assert text == answer["tools"][-1]["text"]
    else:
        assert answer["sources"]
        assert all(f"[{source['n']}]" in text for source in answer["sources"])


async def test_the_suggestions_of_the_reference_workspace(start: Start) -> None:
    async with start() as client:
        suggestions = (await client.get("/api/page"))["suggestions"]
        assert len(suggestions) == 5
        for question in suggestions:
            check(question, await client.ask(question))


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    with copy_database(postgres) as url:
        yield url


async def test_the_suggestions_of_a_new_workspace(tmp_path: Path, empty: str) -> None:
    workspace = shutil.copytree(ROOT / "agent_server" / "scaffold", tmp_path / "mine")
    agents, _ = load_prompts(workspace / "prompts", workspace)
    examples = [example for agent in agents.values() for example in agent.examples]

    def walk() -> None:
        with serving(workspace, empty) as server:
            suggestions = server.get("/api/page")["suggestions"]
            assert set(suggestions) <= set(examples)
            # The others as well, in their order: one of them writes what the next one reads.
            for question in examples:
                check(question, server.ask(question))

    await asyncio.to_thread(walk)
