"""A lint of every statement that any test has the product run.

One on an owned table names the owner: the database would keep callers apart without it, and the statement without the
database, so that either wall alone holds. And it is such as a Postgres takes that is spread over servers by owner, and
sends to one of them: it is about one owner, unless there is a reason (`SEVERAL`).
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool
from sqlmodel import SQLModel

from agent_server.db.isolation import row_policy_of

_TABLES = re.compile(r'\b(?:from|join|into|update|using)\s+(?:only\s+)?"?([a-z_]+)"?', re.IGNORECASE)
_SCOPES = re.compile(r"set_config\('agent_server\.scopes', '\{(.*?)\}'")
_OWNERS = re.compile(r"set_config\('agent_server\.owners', '\{(.*?)\}'")
_UPDATE = re.compile(r"\bdo update\s+set\b(.*?)(?=\b(?:returning|insert)\b|$)", re.IGNORECASE | re.DOTALL)
_CALL = re.compile(r"\b([a-z_]+)\s*\(", re.IGNORECASE)
_NO_FUNCTIONS = frozenset({"greatest", "least", "coalesce", "nullif", "cast", "and", "or", "not", "in", "set", "where"})

_ONE = re.compile(r"\b(owner_)?id = (cast\()?\$\d|^\s*insert into [^()]*\([^()]*\)\s*values", re.IGNORECASE)
"""In a statement whose rows are one owner's."""

SEVERAL: Mapping[str, str] = {
    "set owner = null, attempts = greatest": "a process that ends lets go of all its turns at once",
    "status = 'queued'": "one look a second at all turns that wait in a process",
    "w(owner_id, id)": "one look a second at all turns that a process's clients follow; turns that are pruned together",
    "owner_id IN (": "a caller's rows are erased, or those of guests whose time is over together",
    "any($1) order by id for update": "the same: all rows are locked in one order",
    "account.id IN (": "the same",
    "account.name = $": "an account is looked up by its name",
    "guest.id IN (": "guests whose time is over are removed together",
    "DELETE FROM login": "logins whose time is over are removed together",
    "DELETE FROM confirmation": "questions whose time is over are removed together",
}
"""What statements about rows of several owners have in them, and why they are about several."""

_nameless: list[str] = []
_unfit: list[str] = []


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


@cache
def unfit(statement: str, owners: int) -> str | None:
    """What a Postgres that is spread over servers by owner would not take of a statement, or not send to one of them,
    in a transaction for so many owners."""
    touched = [name for name in _TABLES.findall(statement) if _is_owned(name)]
    if any(name.lower() not in _NO_FUNCTIONS for part in _UPDATE.findall(statement) for name in _CALL.findall(part)):
        return "calls a function in `do update`; name what was to be inserted, as `excluded.x`"
    if touched and re.search(r"(?is)\bunnest\b.*\bleft join\b", statement):
        return "has a left join of `unnest` with a table; join them, and see what is not there"
    about_one = _ONE.search(statement)
    if touched and owners > 1 and not about_one and not any(part in statement for part in SEVERAL):
        return "is about several owners; say why in `SEVERAL`, or send one for each"
    return None


def _is_owned(name: str) -> bool:
    table = SQLModel.metadata.tables.get(name)
    policy = None if table is None else row_policy_of(table)
    return policy is not None and not policy.shared


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
            acts_for[:] = [statement] if _SCOPES.search(statement) else []
        elif statement.startswith(("COMMIT", "ROLLBACK")):
            acts_for.clear()
        # Without a preamble it is a test's own look, or a statement on its own, which acts for nobody.
        elif acts_for:
            _lint(statement, acts_for[0])

    connection.driver_connection.add_query_logger(read)


def _read_prepared(connection: Any, _: Any, statement: str, *__: Any) -> None:
    """Read what SQLAlchemy sends, which the driver's log of queries has nothing of."""
    if preamble := getattr(connection.connection.driver_connection, "preamble", ""):
        _lint(statement, preamble)


def _lint(statement: str, preamble: str) -> None:
    if tables := unowned(statement, _scopes_in(preamble)):
        _nameless.append(f"{', '.join(tables)}: {statement}")
    if wrong := unfit(statement, len(_OWNERS.findall(preamble)[0].split(","))):
        _unfit.append(f"{wrong}: {statement}")


@pytest.fixture(scope="session", autouse=True)
def _listening() -> Iterator[None]:
    event.listen(Pool, "connect", _listen)
    event.listen(Engine, "before_cursor_execute", _read_prepared)
    yield
    event.remove(Pool, "connect", _listen)
    event.remove(Engine, "before_cursor_execute", _read_prepared)


@pytest.fixture(autouse=True)
def every_statement_names_the_owner(request: pytest.FixtureRequest) -> Iterator[None]:
    _nameless.clear()
    _unfit.clear()
    yield
    assert _unfit == []
    if request.node.get_closest_marker("names_no_owner") is None:
        assert _nameless == []
