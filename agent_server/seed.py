"""Reference data: YAML files beside the tools are the source, tables are what tools query.

A module under tools/ declares `seed = SeedFile(Destination, Path(__file__).parent / "destinations.yaml", key="slug")`
for a `Shared` model. The file is a list of rows, each a mapping with the model's fields as its keys. Loading makes the
table equal to the file: a row keeps its id for as long as its key stays, and a row that is gone from the file is
deleted, unless the table is one that people change (`only_first`). A file whose hash is the stored one is not read again.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import structlog
import yaml
from pydantic import ValidationError
from sqlalchemy import Table, inspect
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, SQLModel, col, select

from agent_server.db import SYSTEM, Shared, Timestamps
from agent_server.errors import Mistake, WorkspaceInvalid

if TYPE_CHECKING:
    from agent_server.db import Database

log = structlog.get_logger()

M = TypeVar("M", bound=Shared)

# The one in C takes a tenth of the time; a build of the library may lack it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_OURS = {*Shared.model_fields, *Timestamps.model_fields}
"""Fields that no file gives."""


class Seed(SQLModel, table=True):
    """The file that a table of reference data was last loaded from: `name` is the table's, `sha` the file's SHA-256."""

    __tablename__ = "seed"

    name: str = Field(primary_key=True)
    sha: str


@dataclass(frozen=True)
class SeedFile(Generic[M]):
    """Rows of `model` in the YAML file `path`; `key` is the field that tells them apart.

    `only_first` is for a table that people change from then on: the rows are written where it is empty.
    """

    model: type[M]
    path: Path
    key: str
    only_first: bool = False

    @property
    def table(self) -> Table:
        return cast(Table, inspect(self.model).local_table)

    @property
    def fields(self) -> Sequence[str]:
        return [name for name in self.model.model_fields if name not in _OURS]


@dataclass(frozen=True)
class SeedReport:
    """How many rows a load wrote."""

    added: int = 0
    changed: int = 0
    removed: int = 0


async def load_seeds(database: "Database", seeds: Sequence[SeedFile[Any]], root: Path | None = None) -> SeedReport:
    """Make the tables equal to their files, in one transaction; replicas that start together take turns.

    Raises WorkspaceInvalid with every mistake in the files, which are named relative to `root`; then nothing is written.
    """
    sources, problems = _sources(seeds, root)
    if not problems:
        async with database.transaction(SYSTEM) as session:
            # Nearly every start ends here: the hashes are compared before any row is parsed.
            if await _is_loaded(session, sources):
                return SeedReport()
    rows, mistakes = _rows(sources)
    if problems or mistakes:
        raise WorkspaceInvalid([*problems, *mistakes])
    async with database.transaction(SYSTEM) as session:
        # Always in the same order: two replicas that take these locks in different orders would block each other.
        for source in sorted(sources, key=lambda s: s.seed.table.name):
            await _note(session, source)
        report = await _write(session, rows)
    log.info("seeds.loaded", added=report.added, changed=report.changed, removed=report.removed)
    return report


def find_seed_mistakes(seeds: Sequence[SeedFile[Any]], root: Path) -> Sequence[Mistake]:
    """Every mistake in the files, each with its line; files relative to `root`."""
    sources, problems = _sources(seeds, root)
    return [*problems, *_rows(sources)[1]]


@dataclass(frozen=True)
class _Source:
    """A seed file as read: one reading gives both the hash and the rows."""

    seed: SeedFile[Any]
    file: str
    content: bytes

    @property
    def sha(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class _Row:
    """A valid row, and the line on which each of its keys stands."""

    value: Any
    lines: Mapping[str, int]


_Rows = dict[SeedFile[Any], dict[Any, _Row]]
"""Per file, its rows by their key."""


def _sources(seeds: Sequence[SeedFile[Any]], root: Path | None = None) -> tuple[list[_Source], list[Mistake]]:
    sources: list[_Source] = []
    problems: list[Mistake] = []
    for seed in seeds:
        inside = root is not None and seed.path.is_relative_to(root)
        file = seed.path.relative_to(root).as_posix() if root is not None and inside else str(seed.path)
        try:
            sources.append(_Source(seed, file, seed.path.read_bytes()))
        except OSError as error:
            problems.append(Mistake(file, None, f"cannot be read: {error.strerror}"))
    return sources, problems


def _rows(sources: Sequence[_Source]) -> tuple[_Rows, list[Mistake]]:
    rows: _Rows = {}
    problems: list[Mistake] = []
    for source in sources:
        rows[source.seed], mistakes = _parse(source)
        problems += mistakes
    # A row that was refused would look missing to the rows that point to it.
    if not problems:
        problems += [problem for source in sources for problem in _dangling(source, rows)]
    return rows, problems


def _parse(source: _Source) -> tuple[dict[Any, _Row], list[Mistake]]:
    rows: dict[Any, _Row] = {}
    problems: list[Mistake] = []
    try:
        loader, document = _read(source.content.decode())
        if not isinstance(document, yaml.SequenceNode):
            return {}, [Mistake(source.file, 1, "must be a list of rows, each begun with a dash; [] for none")]
        for node in document.value:
            row, mistakes = _row(source, loader, node)
            problems += mistakes
            if row is None:
                continue
            key = getattr(row.value, source.seed.key)
            other = rows.setdefault(key, row)
            if other is not row:
                where = other.lines[source.seed.key]
                problems.append(
                    Mistake(
                        source.file, row.lines[source.seed.key], f"{source.seed.key} {key!r} is on line {where} too"
                    )
                )
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problems.append(Mistake(source.file, line, f"is not YAML: {error.problem}"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(Mistake(source.file, None, f"is not YAML: {error}"))
    return rows, problems


def _read(text: str) -> tuple[Any, yaml.Node | None]:
    """The loader of a text with its one document. Raises yaml.YAMLError."""
    try:
        loader = _Loader(text)
        return loader, loader.get_single_node()
    except yaml.YAMLError:  # the loader in Python says more plainly what is wrong
        loader = yaml.SafeLoader(text)
        return loader, loader.get_single_node()


def _row(source: _Source, loader: Any, node: yaml.Node) -> tuple[_Row | None, list[Mistake]]:
    first = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        return None, [Mistake(source.file, first, "a row is a mapping of fields to values")]
    problems: list[Mistake] = []
    lines: dict[str, int] = {}
    for key, _ in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name not in source.seed.fields:
            problems.append(
                Mistake(source.file, line, f"there is no {name!r}; there are {', '.join(source.seed.fields)}")
            )
        if lines.setdefault(name, line) != line:
            problems.append(Mistake(source.file, line, f"{name!r} is on line {lines[name]} too"))
    try:
        value = source.seed.model.model_validate(loader.construct_object(node, deep=True))
    except ValidationError as error:
        for mistake in error.errors(include_url=False):
            where = ".".join(str(part) for part in mistake["loc"])
            line = lines.get(where.partition(".")[0], first)
            problems.append(Mistake(source.file, line, f"{where}: {mistake['msg']}"))
    return (None if problems else _Row(value, lines)), problems


def _dangling(source: _Source, rows: _Rows) -> Iterator[Mistake]:
    """Rows that a foreign key of the model points nowhere from, where the other table has a file as well."""
    others = {seed.table: seed for seed in rows}
    for key in source.seed.table.foreign_keys:
        name, other = key.parent.name, others.get(key.column.table)
        if name in _OURS or other is None:
            continue
        there = {getattr(row.value, key.column.name) for row in rows[other].values()}
        for row in rows[source.seed].values():
            value = getattr(row.value, name)
            if value is not None and value not in there:
                yield Mistake(source.file, row.lines[name], f"{name}: {other.path.name} has no {value!r}")


async def _is_loaded(session: AsyncSession, sources: Sequence[_Source]) -> bool:
    """Whether the tables hold these files."""
    shas = {row.name: row.sha for row in (await session.execute(select(Seed))).scalars()}
    if any(shas.get(source.seed.table.name) != source.sha for source in sources):
        return False
    # A table that was dropped and made anew is empty, whatever its hash says.
    for source in sources:
        if (await session.execute(select(col(source.seed.model.id)).limit(1))).first() is None:
            return False
    return True


async def _note(session: AsyncSession, source: _Source) -> None:
    """Store the file's hash."""
    # The row is also the lock that a second replica waits for, so this comes before anything is written.
    statement = insert(Seed).values(name=source.seed.table.name, sha=source.sha)
    await session.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"sha": source.sha}))


async def _write(session: AsyncSession, rows: _Rows) -> SeedReport:
    """Make the tables equal to the rows."""
    # Foreign keys: parents are written before the rows that point to them, and deleted after them.
    added = changed = 0
    gone: list[Any] = []
    order = {table: position for position, table in enumerate(SQLModel.metadata.sorted_tables)}
    for seed in sorted(rows, key=lambda s: order[s.table]):
        statement = select(seed.model).where(col(seed.model.owner_id) == SYSTEM)
        if seed.only_first and (await session.execute(statement.limit(1))).first() is not None:
            continue
        stored = {getattr(row, seed.key): row for row in (await session.execute(statement)).scalars()}
        for key, row in rows[seed].items():
            if key not in stored:
                session.add(row.value)
                added += 1
            elif _update(stored[key], row.value, seed.fields):
                changed += 1
        gone += [row for key, row in stored.items() if key not in rows[seed]]
        await session.flush()
    for row in reversed(gone):
        await session.delete(row)
        # One by one: in a single flush SQLAlchemy chooses the order by itself.
        await session.flush()
    return SeedReport(added, changed, len(gone))


def _update(stored: Any, given: Any, fields: Sequence[str]) -> bool:
    """Set what is otherwise in `given`; whether anything was."""
    different = [name for name in fields if getattr(stored, name) != getattr(given, name)]
    for name in different:
        setattr(stored, name, getattr(given, name))
    return bool(different)
