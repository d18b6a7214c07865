"""A content folder of a test's own, and the real embedder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.embedders.wordllama import WordLlama

Write = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return WordLlama()


@pytest.fixture
def content(tmp_path: Path) -> Path:
    folder = tmp_path / "content"
    folder.mkdir()
    return folder


@pytest.fixture
def write(content: Path) -> Write:
    """Write a page: `write("guide/a.md", "# A\\n...")`."""

    def written(path: str, text: str) -> Path:
        file = content / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
        return file

    return written
