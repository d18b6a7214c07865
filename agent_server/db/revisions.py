"""Which migrations a database has and which it lacks.

Nearly every command and every start finds that it has them all. That can be read off the files; Alembic, which takes
longer to import than such a command may take, is asked about everything else.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from agent_server.db.database import Database

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

_ASSIGNED = re.compile(r"^(revision|down_revision|depends_on)\b[^=\n]*= *(.+)$", re.MULTILINE)
_NAME = re.compile(r"""['"]([\w@-]+)['"]""")
_VALUE = re.compile(r"""\(?(None|(\s*['"][\w@-]+['"]\s*,?)+)\)?\s*(#.*)?""")
_THERE = text("select to_regclass('alembic_version') is not null")
_HEADS = text("select version_num from alembic_version order by 1")


def migrations_folder() -> Path:
    """Where env.py and the engine's branch are: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent.parent
    shipped = package / "migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def list_folders(workspace: Path) -> list[Path]:
    """The folders of both branches; a workspace may have none of its own."""
    own = (workspace / "migrations" / "workspace").resolve()
    return [migrations_folder() / "engine", *([own] if own.is_dir() else [])]


@dataclass(frozen=True)
class Revisions:
    """The revisions that a database is at, and those that it lacks, oldest first."""

    current: Sequence[str]
    pending: Sequence[str]


async def revisions(database: Database, workspace: Path) -> Revisions:
    """Raises InvalidInput where another version or another workspace made the tables."""
    async with database.owner.connect() as connection:
        return await connection.run_sync(_read, workspace)


def _read(connection: Connection, workspace: Path) -> Revisions:
    heads = _heads(connection)
    if heads and has_all(heads, list_folders(workspace)):
        return Revisions(heads, ())
    from agent_server.db.migrate import current, pending  # noqa: PLC0415  # heavy

    return Revisions(current(connection), pending(connection, workspace))


class Pending:
    """What a database lacks of a workspace's migrations, whose files are read once."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._parents = _read_parents(list_folders(workspace))
        self._migrations: ScriptDirectory | None = None

    def find(self, connection: Connection) -> Sequence[str]:
        """The revisions that the database lacks, oldest first. Raises InvalidInput as `revisions`."""
        if _covers(_heads(connection), self._parents):
            return ()
        from agent_server.db.migrate import pending_of, read_migrations  # noqa: PLC0415  # heavy

        self._migrations = self._migrations or read_migrations(self._workspace)
        return pending_of(connection, self._migrations)


def has_all(heads: Collection[str], folders: Sequence[Path]) -> bool:
    """Whether a database at these revisions has every migration in the folders. It is also False where only Alembic can
    tell: for a revision that is not there, and for one that is named by a label or spread over lines."""
    return _covers(heads, _read_parents(folders))


def _heads(connection: Connection) -> Sequence[str]:
    there = connection.execute(_THERE).scalar_one()
    return connection.execute(_HEADS).scalars().all() if there else ()


def _covers(heads: Collection[str], parents: Mapping[str, Collection[str]]) -> bool:
    found: set[str] = set()
    ahead = set(heads)
    while ahead:
        if not ahead <= parents.keys():
            return False
        found |= ahead
        before = {parent for revision in ahead for parent in parents[revision]}
        if not before.isdisjoint(heads):  # one that comes before another is named beside it
            return False
        ahead = before - found
    return bool(parents) and found == parents.keys()


def _read_parents(folders: Sequence[Path]) -> Mapping[str, Collection[str]]:
    """The revisions in the folders with those that come right before each. There is none where only Alembic can read
    them."""
    parents: dict[str, set[str]] = {}
    try:
        for file in (file for folder in folders for file in folder.glob("*.py")):
            named = {name: _read_names(value) for name, value in _ASSIGNED.findall(file.read_text(encoding="utf-8"))}
            (revision,) = named["revision"]
            parents[revision] = {*named["down_revision"], *named["depends_on"]}
    except (KeyError, ValueError, OSError):
        return {}
    return parents


def _read_names(value: str) -> Sequence[str]:
    """The revisions that a line of a migration names. Raises ValueError where it has another form."""
    # Not by `ast.literal_eval`: in Python 3.11 it fails where the collector runs in the middle of it.
    if _VALUE.fullmatch(value) is None:
        raise ValueError(value)
    return _NAME.findall(value.partition("#")[0])
