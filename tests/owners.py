"""A lint of every statement that any test has the product run: one on an owned table names the owner.

The database would keep callers apart without it, and the statement without the database: either wall alone holds.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool
from sqlmodel import SQLModel

from agent_server.db.isolation import row_policy_of

_TABLES = re.compile(r'\b(?:from|join|into|update|using)\s+(?:only\s+)?"?([a-z_]+)"?', re.IGNORECASE)
_SCOPES = re.compile(r"set_config\('agent_server\.scopes', '\{(.*?)\}'")

_nameless: list[str] = []


@cache
def unowned(statement: str, scopes: frozenset[str]) -> tuple[str, ...]:
    """The owned tables that `statement` touches without naming an owner, but for those whose rows of all owners are
    open to a holder of these scopes."""
    found = []
    for name in set(_TABLES.findall(statement)):
        table = SQLModel.metadata.tables.get(name)
        policy = None if table is None else row_policy_of(table)
        if policy is None or policy.shared or re.search(rf"\b{policy.column}\b", statement):
            continue
        opens = {policy.read_scope, f"{(policy.read_scope or '').partition(':')[0]}:*", "*"}
        if policy.read_scope is None or scopes.isdisjoint(opens):
            found.append(name)
    return tuple(sorted(found))


def _scopes_in(preamble: str) -> frozenset[str]:
    found = _SCOPES.search(preamble)
    assert found is not None
    return frozenset(found.group(1).split(","))


def _listen(connection: Any, _: Any) -> None:
    """Read what a new connection sends, whichever way it is sent."""
    acts_for: list[str] = []
    """The preamble of the transaction that runs."""

    def read(query: Any) -> None:
        statement = query.query
        if statement.startswith("BEGIN"):
            acts_for[:] = [statement] if "set_config" in statement else []
        elif statement.startswith(("COMMIT", "ROLLBACK")):
            acts_for.clear()
        # Without a preamble it is a test's own look, or a statement on its own, which acts for nobody.
        elif acts_for and (tables := unowned(statement, _scopes_in(acts_for[0]))):
            _nameless.append(f"{', '.join(tables)}: {statement}")

    connection.driver_connection.add_query_logger(read)


@pytest.fixture(scope="session", autouse=True)
def _listening() -> Iterator[None]:
    event.listen(Pool, "connect", _listen)
    yield
    event.remove(Pool, "connect", _listen)


@pytest.fixture(autouse=True)
def every_statement_names_the_owner(request: pytest.FixtureRequest) -> Iterator[None]:
    _nameless.clear()
    yield
    if request.node.get_closest_marker("names_no_owner") is None:
        assert _nameless == []
