"""What the pages say is what the sources say: messages, models, prices, and which pages there are."""

import ast
import asyncio
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_server.testing import AgentServer
from bench.tokens import MODELS, Cost, price_per_thousand
from tests.conftest import ROOT
from tests.docs.blocks import DOCS, Shell, read_blocks, write_programs

PAGES = sorted(path.relative_to(DOCS).as_posix() for path in [*DOCS.glob("*.md"), DOCS / "decisions" / "README.md"])
MESSAGES = [block.text.strip() for block in read_blocks("troubleshooting.md") if block.language == "text"]
LEAST = 15
"""Letters of a message that stand in a line of the source as they are."""


def sources(message: str) -> Iterator[ast.AST]:
    """What the files of the engine hold that have a piece of the message in them."""
    pieces = {message[start : start + LEAST] for start in range(len(message) - LEAST + 1)}
    for path in (ROOT / "agent_server").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if any(piece in text for piece in pieces):
            yield from ast.walk(ast.parse(text))


def is_printed_by(node: ast.AST, message: str) -> bool:
    """Whether this text of the source is the message; what is filled in may be anything."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    words = [part.value if isinstance(part, ast.Constant) else None for part in parts]
    if sum(len(word) for word in words if isinstance(word, str)) < LEAST:
        return False
    pattern = "".join(re.escape(word) if isinstance(word, str) else ".+" for word in words)
    return re.fullmatch(pattern, message) is not None


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message[:40])
def test_a_message_that_is_explained_is_one_that_is_printed(message: str) -> None:
    said = re.sub(r"^(invalid_input|unavailable): ", "", message)
    assert any(is_printed_by(node, said) for node in sources(said)), message


def test_ten_messages_are_explained_each_with_cause_and_remedy() -> None:
    text = (DOCS / "troubleshooting.md").read_text()
    sections = text.split("\n## ")[1:]
    assert len(sections) == len(MESSAGES) == 10
    assert all("**Cause.**" in section and "**Remedy.**" in section for section in sections)


def litellm_file(name: str) -> Path:
    package = find_spec("litellm")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / name


def model_table() -> dict[str, Any]:
    """What the installed litellm knows of models, without importing it."""
    table: dict[str, Any] = json.loads(litellm_file("model_prices_and_context_window_backup.json").read_text())
    return table


def test_every_model_that_a_page_names_exists() -> None:
    named = set()
    for page in (ROOT / "README.md", *DOCS.glob("*.md")):
        providers = r"(?:openai|gemini|groq|anthropic|mistral|ollama)/[\w./:-]*\w"
        named |= set(re.findall(rf"(?<![\w/.:-]){providers}", page.read_text()))
    table = model_table()
    assert len(named) >= len(MODELS)
    assert {name for name in named if name not in table and name.partition("/")[2] not in table} == set()


def rows(page: str, first: str) -> Iterator[list[str]]:
    """The rows of the table whose head begins with a cell."""
    _, _, after = (DOCS / page).read_text().partition(f"| {first} |")
    for line in after.splitlines()[2:]:
        if not line.startswith("|"):
            return
        yield [cell.strip().replace(",", "") for cell in line.strip("|").split("|")]


def test_the_prices_of_turns_are_their_tokens_at_the_prices_of_the_providers() -> None:
    costs = [Cost(*map(int, row[1:4])) for row in rows("choose-a-model.md", "Turn")]
    prices = {row[0].strip("`"): [float(cell) for cell in row[1:]] for row in rows("choose-a-model.md", "Model")}
    table = model_table()
    assert prices == {model: [round(price_per_thousand(model, cost, table), 2) for cost in costs] for model in MODELS}


class _Loader(yaml.SafeLoader):
    """Reads `mkdocs.yml`, whose slugs are a function of Python's."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def test_every_page_is_in_the_site_and_in_the_index() -> None:
    def leaves(nav: Any) -> Iterator[str]:
        for entry in nav:
            if isinstance(entry, str):
                yield entry
            else:
                for inner in entry.values():
                    yield from leaves(inner)

    site = yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)  # a safe one
    assert sorted(page for page in leaves(site["nav"]) if not page.startswith("repository/")) == PAGES
    linked = set(re.findall(r"\]\(([\w./-]+\.md)", (DOCS / "index.md").read_text()))
    assert {page for page in PAGES if "/" not in page} - linked == {"index.md"}


async def test_leads_are_read_as_their_page_says(agent_server: AgentServer, tmp_path: Path, stocked_url: str) -> None:
    await agent_server.as_caller("leads:write").call("capture_lead", email="ann@example.com", interest="Palau")
    shell = Shell(tmp_path, [write_programs(tmp_path / "programs")])
    shell.run(f"export DATABASE_URL='{stocked_url}'\nexport AGENT_SERVER_WORKSPACE='{ROOT}'")
    blocks = [block for block in read_blocks("leads.md") if block.reason is None]
    printed = [await asyncio.to_thread(shell.run, block.text) for block in blocks]
    assert [lead["email"] for lead in json.loads(printed[0])["items"]] == ["ann@example.com"]
    assert "ann@example.com" in (tmp_path / "leads.csv").read_text()
    assert printed[2].startswith("ask_")
    assert "sam" in printed[3]
