"""Migrations: from nothing to the models and back, on real Postgres."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import inspect, text

from agent_server.db import Database
from agent_server.db.migrate import current, downgrade, drift, pending, upgrade
from agent_server.errors import InvalidInput
from agent_server.knowledge.ingest import ingest
from agent_server.testing import copy_database
from agent_server.workspace import load_workspace
from tests.conftest import ROOT


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    with copy_database(postgres) as url:
        yield url


async def test_migrations_bring_an_empty_database_to_the_models_and_back_to_nothing(empty: str) -> None:
    database = Database(empty)
    load_workspace(ROOT)
    await upgrade(database, ROOT)
    async with database.owner.connect() as connection:
        assert await connection.run_sync(pending, ROOT) == []
        assert await connection.run_sync(drift) == []
    for branch in ("workspace@base", "engine@base"):
        await downgrade(database, ROOT, branch)
    async with database.owner.connect() as connection:
        assert await connection.run_sync(lambda c: inspect(c).get_table_names()) == ["alembic_version"]
        functions = "select count(*) from pg_proc where pronamespace = 'public'::regnamespace and proname = 'lexvec'"
        assert (await connection.execute(text(functions))).scalar_one() == 0
    await upgrade(database, ROOT)
    async with database.owner.connect() as connection:
        assert await connection.run_sync(drift) == []
    await database.close()


@pytest.mark.parametrize(("size", "kept"), [(256, 1), (26, 0)])
async def test_going_back_to_vectors_of_one_size_keeps_an_index_of_that_size_and_empties_another(
    database: Database, tmp_path: Path, size: int, kept: int
) -> None:
    class Constant:
        name, dimensions = "constant", size

        async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.full((len(texts), size), size**-0.5, dtype=np.float32)

    (tmp_path / "a.md").write_text("# Apples\n\nApples are red.")
    load_workspace(ROOT)
    await ingest(database, Constant(), tmp_path)
    await downgrade(database, ROOT, "engine@engine_0003")
    async with database.owner.connect() as connection:
        for table in ("document", "chunk", "corpus"):
            assert (await connection.execute(text(f"select count(*) from {table}"))).scalar_one() == kept
        guarded = "select relforcerowsecurity from pg_class where relname = 'chunk'"
        assert (await connection.execute(text(guarded))).scalar_one()
    await upgrade(database, ROOT)
    async with database.owner.connect() as connection:
        assert await connection.run_sync(drift) == []
    assert (await ingest(database, Constant(), tmp_path)).added == 1 - kept


async def test_two_replicas_that_start_together_migrate_once(empty: str) -> None:
    first, second = Database(empty), Database(empty)
    await asyncio.gather(upgrade(first, ROOT), upgrade(second, ROOT))
    async with first.owner.connect() as connection:
        assert await connection.run_sync(current) == ["engine_0028", "workspace_0005"]
    await first.close()
    await second.close()


async def test_a_change_of_the_database_behind_the_models_is_drift(database: Database) -> None:
    load_workspace(ROOT)
    async with database.owner.begin() as connection:
        await connection.execute(text("alter table conversation drop column title"))
        await connection.execute(text("alter table task alter column status type text"))
        found = " ".join(await connection.run_sync(drift))
    assert "title" in found
    assert "status" in found


async def test_a_revision_that_is_not_there_is_refused_by_name(database: Database) -> None:
    with pytest.raises(InvalidInput, match="nowhere"):
        await downgrade(database, ROOT, "engine@nowhere")
