"""Real Postgres for every test: one embedded server per test process, a database of its own per test."""

import asyncio
import gc
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import certifi
import pytest
from argon2 import PasswordHasher
from hypothesis import HealthCheck, settings
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.app import create_server
from agent_server.caller import Caller
from agent_server.db import Database, new_id
from agent_server.db.migrate import upgrade
from agent_server.identity import passwords
from agent_server.log import configure_logging
from agent_server.settings import load_settings
from agent_server.testing import copy_database
from agent_server.testing.copies import DatabaseCopies
from agent_server.testing.databases import ADDRESS
from agent_server.testing.server import fill
from agent_server.workspace import Workspace, load_workspace

if TYPE_CHECKING:  # pytest has to be the first to import it
    from tests.pools import Pools

pytest_plugins = [
    "agent_server.testing.plugin",
    "tests.pools",
    "tests.server",
    "tests.owners",
    "tests.sent",
    "tests.needs",
]

ROOT = Path(__file__).parent.parent
SERVER = ADDRESS
TEMPLATE = "TESTS_TEMPLATE"
"""Variables: the server and the template of the tests that run these tests on a copy of the sources."""


# Threads of these libraries wait for work with the processor busy, which the workers of a test run have better use for.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# As a server has it. To import all tests would take a sixth longer, looking for garbage that is not there.
gc.set_threshold(10_000, 20, 50)

# How long anything takes is nothing that a test says, on machines that are shared. A run tries the same examples as the
# one before, so that what failed is the change and not the luck; `--hypothesis-profile random` looks for new ones.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("random", UNTIMED)
settings.register_profile("fixed", UNTIMED, derandomize=True, database=None)
settings.load_profile("fixed")

SLOW = ("/chaos/", "/test_crash_points.py", "/test_disk_full.py", "/test_mutations.py", "/test_pooler.py")
"""What `make quick` leaves out."""

LONG = (
    *("/test_tutorial.py", "/chaos/", "/test_mutations.py", "/test_crash_points.py", "/test_stalls.py"),
    *("/test_openapi.py", "/test_conditions.py", "/test_disk_full.py", "/test_pooler.py", "/web/test_page.py"),
)
"""Files with tests that take long, or that share what takes long to make."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(name in item.nodeid for name in SLOW):
            item.add_marker(pytest.mark.slow)
    # Workers take from the end of what others have left: a long test that is begun last would be waited for alone, and
    # what a file's tests share would be made in each worker that takes some of them.
    items.sort(key=lambda item: next((n for n, name in enumerate(LONG) if name in item.nodeid), len(LONG)))


def pytest_collection_finish() -> None:
    gc.freeze()  # the tests live as long as the process; else each look for garbage would go through all of them


@pytest.fixture(scope="session", autouse=True)
def logging() -> None:
    configure_logging("WARNING", "console")


@pytest.fixture(scope="session", autouse=True)
def _certificates() -> Iterator[None]:
    """The authorities of the machine are read once, not for each client of HTTP, of which there are thousands."""
    make = ssl.create_default_context
    known = {certifi.where(), os.environ.get("SSL_CERT_FILE")} - {None}
    made: dict[str, ssl.SSLContext] = {}

    def create(*arguments: Any, **options: Any) -> ssl.SSLContext:
        file = options.get("cafile")
        if arguments or options.keys() != {"cafile"} or file is None or file not in known:
            return make(*arguments, **options)
        if file not in made:
            made[file] = make(cafile=file)
        return made[file]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", create)
        yield


@pytest.fixture(scope="session", autouse=True)
def _data_of_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Root's embedded servers of temporary workspaces, which nobody else opens, have their data elsewhere."""
    from agent_server.db.postgres import ELSEWHERE

    yield
    for noted in ELSEWHERE.glob("*/folder"):
        if noted.read_text().startswith(str(tmp_path_factory.getbasetemp())):
            shutil.rmtree(noted.parent)


@pytest.fixture(scope="module", autouse=True)
def password_cost() -> Iterator[None]:
    """Passwords cost next to nothing here. What they cost users has its tests in `identity/test_passwords.py`."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        # a few hundred logins would take more of the processor than a thousand other tests
        patch.setattr(passwords, "_hasher", lambda: cheap)
        passwords._dummy.cache_clear()
        yield
    passwords._dummy.cache_clear()


@pytest.fixture(scope="session")
def postgres(agent_postgres: str) -> str:
    """The URL of the server that every test has its databases on."""
    return agent_postgres


def database_url(server: str, name: str) -> str:
    return server.replace("/postgres?", f"/{name}?")


async def execute(server: str, *statements: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


@asynccontextmanager
async def everything(database: Database) -> AsyncIterator[AsyncSession]:
    """A transaction of the user who owns the tables, to whom the rows of all callers are there."""
    async with AsyncSession(database.owner, expire_on_commit=False) as session, session.begin():
        yield session


@pytest.fixture(scope="session")
def template(postgres: str) -> Iterator[str]:
    """The URL of a migrated, empty database that tests are copied from."""

    load_workspace(ROOT)  # the rights to its tables follow from its models
    if given := os.environ.get(TEMPLATE):
        yield given
        return

    async def make(url: str) -> None:
        database = Database(url)
        await upgrade(database, ROOT)
        await database.close()
        # Else the jobs that are due after a long rest would be done at each of a thousand starts of a server.
        await execute(
            url,
            "insert into job (kind, due_at) select unnest($${prune_events,expire_guests,expire_logins,expire_confirmations,expire_rates,prune_tasks}$$::text[]), now() + interval '1 hour'",
        )

    with copy_database(postgres) as url:
        asyncio.run(make(url))
        yield url


@pytest.fixture(scope="session")
def agent_template(postgres: str, template: str, agent_workspace: Workspace) -> Iterator[str]:
    """The same, with the seeds and the content of the reference workspace.

    Not as users get it, who have declared tables made as well: tests of ours declare tables that are not the workspace's.
    """

    async def make(url: str) -> None:
        database = Database(url)
        settings = load_settings(environment="test", model="offline", workspace=ROOT)
        await fill(create_server(settings, agent_workspace, database))
        await database.close()

    with copy_database(postgres, template) as url:
        asyncio.run(make(url))
        yield url


@pytest.fixture(scope="session")
def copies(postgres: str, template: str) -> Iterator[DatabaseCopies]:
    copies = DatabaseCopies(postgres, template)
    yield copies
    copies.close()


@pytest.fixture
def url(copies: DatabaseCopies, check_requests: Callable[[str], None]) -> Iterator[str]:
    """The URL of a migrated, empty database."""
    with copies.borrow() as url:
        yield url
        check_requests(url)


@pytest.fixture
def agent_database(agent_database: str, check_requests: Callable[[str], None]) -> Iterator[str]:
    """What workspaces get it as, and what was sent in it is made again in the end."""
    yield agent_database
    check_requests(agent_database)


@pytest.fixture
def stocked_url(agent_database: str) -> str:
    """The URL of a database with the reference workspace's seeds and content."""
    return agent_database


@pytest.fixture
async def database(url: str, pools: "Pools", copies: DatabaseCopies) -> AsyncIterator[Database]:
    async with pools.open(url, copies) as database:
        yield database


@pytest.fixture
def me() -> Caller:
    return Caller(id=new_id(), kind="user", scopes=frozenset({"*"}))


@pytest.fixture
def other() -> Caller:
    return Caller(id=new_id(), kind="user", scopes=frozenset({"*"}))
