"""The fixtures, which pytest finds by the entry point of this package.

Async fixtures depend on `anyio_backend`: by that alone anyio's plugin runs them, and the tests that use them, with no
setting of the user's.
"""

# Imports are inside the fixtures, because pytest loads this module for every test run in an environment where the
# package is installed.
# ruff: noqa: PLC0415

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mcp import Client

    from agent_server.testing.copies import DatabaseCopies
    from agent_server.testing.evals import RunCase
    from agent_server.testing.recorded import RecordedOpenAI
    from agent_server.testing.scripted import ScriptedOpenAI
    from agent_server.testing.server import AgentServer
    from agent_server.testing.wire import OpenAIModel
    from agent_server.workspace import Workspace


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "pytest.Collector | None":
    """The cases in evals/ are tests, too."""
    if file_path.parent.name != "evals" or file_path.suffix not in (".yaml", ".yml"):
        return None
    from agent_server.testing.evals import CaseFile, is_cases

    return CaseFile.from_parent(parent, path=file_path) if is_cases(file_path) else None


@pytest.fixture(scope="session")
def agent_case_runner(agent_postgres: str, agent_template: str, agent_workspace: "Workspace") -> "Iterator[RunCase]":
    """Runs a case of evals/. All of them share one database."""
    from anyio.from_thread import start_blocking_portal

    from agent_server.testing.databases import copy_database
    from agent_server.testing.evals import call, run_case_server

    with (
        copy_database(agent_postgres, agent_template) as url,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(run_case_server(agent_workspace, url)) as runner,
    ):
        yield call(portal, runner)


@pytest.fixture(scope="session")
def agent_folder(pytestconfig: pytest.Config) -> Path:
    """The folder of the workspace under test: where pytest's configuration file is."""
    return pytestconfig.rootpath


@pytest.fixture(scope="session")
def agent_workspace(agent_folder: Path) -> "Workspace":
    """The workspace under test, loaded."""
    from agent_server.workspace import load_workspace

    return load_workspace(agent_folder)


@pytest.fixture(scope="session")
def agent_postgres() -> Iterator[str]:
    """The address of the Postgres server that tests make their databases on."""
    from agent_server.testing.databases import run_postgres

    with run_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def agent_template(agent_postgres: str, agent_workspace: "Workspace") -> Iterator[str]:
    """The address of a database with the tables, the seeds and the content of the workspace. Tests get copies of it."""
    from agent_server.log import configure_logging
    from agent_server.testing.databases import copy_database
    from agent_server.testing.server import stock

    # Else each start of a server prints its lines into the report of a failed test.
    configure_logging("WARNING", "console")
    with copy_database(agent_postgres) as url:
        # Once for all tests: a copy of a database takes a fraction of migrating and ingesting anew.
        asyncio.run(stock(agent_workspace, url))
        yield url


@pytest.fixture(scope="session")
def _agent_copies(agent_postgres: str, agent_template: str) -> "Iterator[DatabaseCopies]":
    """Copies of the template, of which each test gets one that no other has at that time."""
    from agent_server.testing.copies import DatabaseCopies

    copies = DatabaseCopies(agent_postgres, agent_template)
    yield copies
    copies.close()


@pytest.fixture
def agent_database(_agent_copies: "DatabaseCopies") -> Iterator[str]:
    """The address of a database of this test's own, with the seeds and the content of the workspace."""
    with _agent_copies.borrow() as url:
        yield url


@pytest.fixture
def agent_settings() -> dict[str, Any]:
    """Settings of the server under test, by the names in docs/settings.md without `AGENT_SERVER_`; override it."""
    return {}


@pytest.fixture
def scripted_model() -> "ScriptedOpenAI":
    """The model of `agent_server`, which answers with the steps of its `script`."""
    from agent_server.testing.scripted import ScriptedOpenAI

    return ScriptedOpenAI()


@pytest.fixture
def recorded_model(request: pytest.FixtureRequest) -> "RecordedOpenAI":
    """The model of `agent_server`, which gives again what a provider answered when the test was recorded."""
    from agent_server.testing.recorded import open_recording

    name = re.sub(r"\[asyncio-?", "[", request.node.name)  # the id that anyio gives to each asynchronous test
    name = re.sub(r"[^\w.=-]+", "-", name).strip("-")
    return open_recording(request.path.parent / "recordings" / request.path.stem / f"{name}.json")


@pytest.fixture
def _agent_model(request: pytest.FixtureRequest) -> "OpenAIModel | None":
    """The model whose fixture the test uses."""
    names = [name for name in ("scripted_model", "recorded_model") if name in request.fixturenames]
    if len(names) > 1:
        raise pytest.UsageError("agent_server has one model: use scripted_model or recorded_model")
    model: OpenAIModel | None = request.getfixturevalue(names[0]) if names else None
    return model


@pytest.fixture
def _agent_loop(anyio_backend: Any) -> None:
    name = anyio_backend if isinstance(anyio_backend, str) else anyio_backend[0]
    if name != "asyncio":  # anyio runs each test on trio as well, where that is installed
        pytest.skip("the server runs on asyncio only")


@pytest.fixture
async def agent_server(
    _agent_loop: None,
    agent_workspace: "Workspace",
    agent_database: str,
    agent_settings: dict[str, Any],
    _agent_model: "OpenAIModel | None",
) -> AsyncIterator["AgentServer"]:
    """The server under test, running in this process on a database of this test's own."""
    from agent_server.testing.server import run_agent_server

    async with run_agent_server(agent_workspace, agent_database, model=_agent_model, settings=agent_settings) as server:
        yield server


@pytest.fixture
def mcp_client() -> "Callable[..., AbstractAsyncContextManager[Client]]":
    """Opens an MCP client of the server under test: `async with mcp_client(caller) as client`."""
    from agent_server.testing.mcp import mcp_client

    return mcp_client
