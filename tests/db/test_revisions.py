"""What a database lacks is the same whether the files tell it or Alembic does."""

from pathlib import Path
from tempfile import TemporaryDirectory

from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_server.db import Database
from agent_server.db.migrate import current, pending
from agent_server.db.revisions import has_all, list_folders, migrations_folder, revisions
from tests.conftest import ROOT


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[str, str], set[str]]:
    """Files of migrations, each with what comes before it written in some way, and where a database is."""
    names = [f"r{number}" for number in range(draw(st.integers(1, 6)))]
    files = {}
    for number, name in enumerate(names):
        before = st.sampled_from(names[:number]) if number else st.nothing()
        several = st.lists(before, min_size=2, max_size=2, unique=True).map(tuple) if number > 1 else st.nothing()
        down = draw(st.none() | before | several)
        needed = draw(st.none() | before | st.just("r0@head" if number else None))
        hint = draw(st.sampled_from(["", ": str | None"]))
        files[name] = f"revision = {name!r}\ndown_revision{hint} = {down!r}\ndepends_on = {needed!r}\n"
    return files, draw(st.sets(st.sampled_from([*names, "another"]), max_size=3))


@settings(max_examples=150)
@given(histories())
@example(
    (
        {
            "r0": "revision = 'r0'\ndown_revision = None\ndepends_on = None\n",
            "r1": "revision = 'r1'\ndown_revision = None\ndepends_on = 'r0'\n",
        },
        {"r0", "r1"},
    )
)
def test_files_that_say_nothing_is_pending_agree_with_alembic(history: tuple[dict[str, str], set[str]]) -> None:
    files, heads = history
    with TemporaryDirectory() as name:
        folder = Path(name)
        for revision, text in files.items():
            (folder / f"{revision}.py").write_text(text)
        if not has_all(heads, [folder]):
            return
        script = ScriptDirectory(str(migrations_folder()), version_locations=[str(folder)])
        try:
            applied = {each.revision for each in script.iterate_revisions(tuple(heads), "base")}
        except (CommandError, RevisionError) as error:
            raise AssertionError(f"{heads} of {files}") from error
        assert applied == files.keys()


async def test_what_a_database_has_and_lacks_is_what_alembic_says(database: Database) -> None:
    found = await revisions(database, ROOT)
    async with database.owner.connect() as connection:
        assert found.current == await connection.run_sync(current)
        assert found.pending == () and await connection.run_sync(pending, ROOT) == []
    # Nobody would notice the longer way but by its time.
    assert has_all(found.current, list_folders(ROOT))
    assert not has_all(found.current[1:], list_folders(ROOT)) and not has_all([], list_folders(ROOT))
