"""A lint of every statement that any test has the product run: one on an owned table names the owner.

The database would keep callers apart without it, and the statement without the database: either wall alone holds.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event
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


def _listen(connection: Connection, _: Any, statement: str, *__: Any) -> None:
    preamble = getattr(connection.connection.driver_connection, "preamble", "")
    if not preamble:  # a test's own look
        return
    scopes = _SCOPES.search(preamble)
    assert scopes is not None
    if tables := unowned(statement, frozenset(scopes.group(1).split(","))):
        _nameless.append(f"{', '.join(tables)}: {statement}")


@pytest.fixture(scope="session", autouse=True)
def _listening() -> Iterator[None]:
    event.listen(Engine, "before_cursor_execute", _listen)
    yield
    event.remove(Engine, "before_cursor_execute", _listen)


@pytest.fixture(autouse=True)
def every_statement_names_the_owner(request: pytest.FixtureRequest) -> Iterator[None]:
    _nameless.clear()
    yield
    if request.node.get_closest_marker("names_no_owner") is None:
        assert _nameless == []
