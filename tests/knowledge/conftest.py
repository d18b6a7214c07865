"""A content folder to write in, and what a search over it finds."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent_server.db import Database
from agent_server.knowledge.embed import Embedder
from agent_server.knowledge.ingest import IngestReport, ingest
from agent_server.knowledge.search import Passage, search


@dataclass
class Content:
    """A folder of pages, and the index over it."""

    database: Database
    folder: Path
    embedder: Embedder

    def write(self, path: str, text: str | bytes) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())

    async def ingest(self) -> IngestReport:
        return await ingest(self.database, self.embedder, self.folder)

    async def search(self, query: str, **options: Any) -> list[Passage]:
        async with self.database.transaction() as session:
            return await search(session, self.embedder, query, **options)


@pytest.fixture
def content(database: Database, tmp_path: Path) -> Content:
    folder = tmp_path / "content"
    folder.mkdir()
    return Content(database, folder, Embedder())


Page = Callable[[str, str], str]


@pytest.fixture
def page() -> Page:
    """A page's text from its title and body."""
    return lambda title, body: f"---\ntitle: {title}\n---\n{body}\n"
