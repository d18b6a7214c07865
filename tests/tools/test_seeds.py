"""Reference data: mistakes are named by file and line, and a table becomes what its file says."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import col, select

from agent_server import SeedFile
from agent_server.calls.call import Runtime
from agent_server.db import Database
from agent_server.errors import WorkspaceInvalid
from agent_server.seed import SeedReport, find_seed_mistakes, load_seeds
from agent_server.testing.copies import DatabaseCopies
from tests.conftest import everything
from tests.pools import Pools
from tests.tools.conftest import Tools
from tools.diving.destinations import get_destination
from tools.diving.models import Destination, DiveSite
from tools.diving.sites import get_site

DESTINATION = """\
- slug: {slug}
  name: {slug}
  country: Nowhere
  region: Sea
  summary: Water.
  season_months: [1, 2]
  water_min_c: 10
  water_max_c: 20
  level: open_water
  known_for: [water]
  page: destinations/{slug}.md
"""
SITE = """\
- slug: {slug}
  name: {slug}
  destination: {destination}
  kind: reef
  level: advanced
  max_depth_m: 30
  current: none
  latitude: 1.5
  longitude: 2
  summary: Reef.
  hazards: []
"""


class Files:
    """A workspace's two seed files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seeds: Sequence[SeedFile[Any]] = (
            SeedFile(DiveSite, folder / "sites.yaml", key="slug"),
            SeedFile(Destination, folder / "destinations.yaml", key="slug"),
        )

    def write(self, destinations: str, sites: str = "[]") -> None:
        (self.folder / "destinations.yaml").write_text(destinations)
        (self.folder / "sites.yaml").write_text(sites)

    def problems(self) -> list[str]:
        return [str(problem) for problem in find_seed_mistakes(self.seeds, self.folder)]


@pytest.fixture
async def database(url: str, pools: Pools, copies: DatabaseCopies) -> AsyncIterator[Database]:
    """A database without the reference data."""
    async with pools.open(url, copies) as database:
        yield database


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def rows(runtime: Runtime) -> dict[str, Destination]:
    async with everything(runtime.database) as session:
        found = (await session.execute(select(Destination))).scalars().all()
    return {row.slug: row for row in found}


async def sites(runtime: Runtime) -> dict[str, str]:
    async with everything(runtime.database) as session:
        found = await session.execute(select(col(DiveSite.slug), col(DiveSite.destination)))
        return dict(found.all())


def test_every_mistake_of_every_file_is_named_with_its_line(files: Files) -> None:
    first, second = DESTINATION.format(slug="a"), DESTINATION.format(slug="a")
    second = second.replace("level: open_water", "level: fish").replace("[1, 2]", "[1, winter]")
    third = DESTINATION.format(slug="b").replace("  page:", "  pgae:").replace("  country: Nowhere\n", "")
    fourth = DESTINATION.format(slug="a") + "  name: again\n"
    fifth = DESTINATION.format(slug="a")
    files.write(first + second + third + fourth + fifth + "- just words\n", "slug: a")
    assert files.problems() == [
        "sites.yaml:1: must be a list of rows, each begun with a dash; [] for none",
        "destinations.yaml:17: season_months.1: Input should be a valid integer, unable to parse string as an integer",
        "destinations.yaml:20: level: Input should be 'open_water', 'advanced', 'experienced' or 'technical'",
        "destinations.yaml:32: there is no 'pgae'; there are slug, name, country, region, summary, season_months, "
        "water_min_c, water_max_c, level, known_for, page",
        "destinations.yaml:23: country: Field required",
        "destinations.yaml:23: page: Field required",
        "destinations.yaml:44: 'name' is on line 34 too",
        "destinations.yaml:45: slug 'a' is on line 1 too",
        "destinations.yaml:56: a row is a mapping of fields to values",
    ]


def test_a_row_that_points_to_no_row_of_another_file_is_named(files: Files) -> None:
    files.write(DESTINATION.format(slug="a"), SITE.format(slug="s", destination="b"))
    assert files.problems() == ["sites.yaml:3: destination: destinations.yaml has no 'b'"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"- slug: [a", "destinations.yaml:1: is not YAML: expected ',' or ']', but got '<stream end>'"),
        (b"- slug: *b", "destinations.yaml:1: is not YAML: found undefined alias"),
        (b"\xff\xfe\xff", "destinations.yaml: is not YAML: 'utf-8' codec can't decode byte 0xff"),
        (b"- slug: a\x01", "destinations.yaml: is not YAML: unacceptable character #x0001"),
        (b"", "destinations.yaml:1: must be a list of rows"),
        (b"- !!python/object/apply:os.getcwd []", "destinations.yaml:1: a row is a mapping"),
        (b"- slug: !!python/object/apply:os.getcwd []", "destinations.yaml:1: is not YAML: could not determine a"),
    ],
)
def test_a_file_that_is_not_yaml_is_named(files: Files, content: bytes, problem: str) -> None:
    files.write("")
    (files.folder / "destinations.yaml").write_bytes(content)
    (found,) = files.problems()
    assert found.startswith(problem)


def test_a_file_that_is_not_there_is_named(files: Files) -> None:
    files.write("[]")
    (files.folder / "sites.yaml").unlink()
    assert files.problems() == ["sites.yaml: cannot be read: No such file or directory"]


async def test_a_file_with_a_mistake_writes_nothing_of_any_file(files: Files, runtime: Runtime) -> None:
    files.write(DESTINATION.format(slug="a"), SITE.format(slug="s", destination="b"))
    with pytest.raises(WorkspaceInvalid, match=r"^sites\.yaml:3") as refused:
        await load_seeds(runtime.database, files.seeds, files.folder)
    assert refused.value.message.splitlines() == files.problems()
    assert await rows(runtime) == {}


async def test_a_second_load_of_the_same_files_writes_nothing(files: Files, runtime: Runtime) -> None:
    files.write(DESTINATION.format(slug="a"), SITE.format(slug="s", destination="a"))
    assert await load_seeds(runtime.database, files.seeds) == SeedReport(added=2)
    versions = text("select xmin::text from destination union all select xmin::text from seed order by 1")
    async with everything(runtime.database) as session:
        before = (await session.execute(versions)).scalars().all()
    assert await load_seeds(runtime.database, files.seeds) == SeedReport()
    async with everything(runtime.database) as session:
        assert (await session.execute(versions)).scalars().all() == before


async def test_an_edited_file_changes_adds_and_removes_rows_and_keeps_the_ids_of_the_others(
    files: Files, runtime: Runtime
) -> None:
    files.write(
        "".join(DESTINATION.format(slug=slug) for slug in "abc"),
        SITE.format(slug="s", destination="a") + SITE.format(slug="t", destination="b"),
    )
    await load_seeds(runtime.database, files.seeds)
    before = await rows(runtime)
    files.write(
        DESTINATION.format(slug="d") + DESTINATION.format(slug="c").replace("Water.", "Warm water.")
        + DESTINATION.format(slug="b"),
        SITE.format(slug="t", destination="d"),
    )  # fmt: skip
    assert await load_seeds(runtime.database, files.seeds) == SeedReport(added=1, changed=2, removed=2)
    after = await rows(runtime)
    assert {slug: (row.id, row.summary) for slug, row in after.items()} == {
        "b": (before["b"].id, "Water."),
        "c": (before["c"].id, "Warm water."),
        "d": (after["d"].id, "Water."),
    }
    assert await sites(runtime) == {"t": "d"}


async def test_an_edit_of_layout_alone_changes_no_row(files: Files, runtime: Runtime) -> None:
    files.write(DESTINATION.format(slug="a"))
    await load_seeds(runtime.database, files.seeds)
    files.write("# A comment.\n" + DESTINATION.format(slug="a"))
    assert await load_seeds(runtime.database, files.seeds) == SeedReport()


async def test_a_table_that_was_made_anew_is_filled_again(files: Files, runtime: Runtime) -> None:
    files.write(DESTINATION.format(slug="a"), SITE.format(slug="s", destination="a"))
    await load_seeds(runtime.database, files.seeds)
    async with everything(runtime.database) as session:
        await session.execute(text("truncate destination, dive_site"))
    assert await load_seeds(runtime.database, files.seeds) == SeedReport(added=2)


async def test_replicas_that_start_together_load_once(files: Files, runtime: Runtime) -> None:
    files.write(DESTINATION.format(slug="a") + DESTINATION.format(slug="b"))
    reports = await asyncio.gather(*(load_seeds(runtime.database, files.seeds) for _ in range(4)))
    assert sum(report.added for report in reports) == 2
    assert set(await rows(runtime)) == {"a", "b"}


async def test_a_whole_name_means_that_one_also_where_it_is_part_of_others(theirs: Tools, files: Files) -> None:
    slugs = ("north-malta", "malta", "malta-gozo")
    files.write(
        "".join(DESTINATION.format(slug=slug) for slug in slugs),
        "".join(SITE.format(slug=slug, destination="malta") for slug in slugs),
    )
    await load_seeds(theirs.runtime.database, files.seeds)
    assert (await theirs(get_destination, slug="Malta"))["slug"] == "malta"
    assert (await theirs(get_site, slug="Malta"))["slug"] == "malta"
