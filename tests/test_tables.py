"""A table belongs to the package that declares its rows, and no other package's SQL names it.

Import contracts keep packages apart where they import each other; a statement could go around them all.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from textwrap import dedent

import pytest
from sqlmodel import SQLModel

from agent_server.workspace import load_workspace
from tests.conftest import ROOT

ALLOWED = {
    ("agent_server/identity/own_data.py", "conversation"): "the lock that a message is stored under: identity is far "
    "below conversations, and moving a guest's rows must hold it in its own transaction",
    ("agent_server/identity/own_data.py", "turn"): "a guest who is being answered is not moved; to ask is part of the "
    "same transaction",
    (
        "agent_server/conversations/items.py",
        "{}",
    ): "the turn to write to: whoever writes a turn names it, in its own SQL",
    ("agent_server/audit.py", "{}"): "as the items: the turn that an act is of",
    ("agent_server/testing/copies.py", "{}"): "whatever a test has written to, a table of any package, is put back",
    ("agent_server/turns/accept.py", "conversation"): "a turn takes its number from its conversation in the "
    "transaction that stores it",
    (
        "agent_server/turns/replacing.py",
        "conversation",
    ): "as accept: which turns are replaced is on the row that it locks",
    ("agent_server/turns/steering.py", "conversation"): "as accept: a message that becomes a turn is given a number",
    ("agent_server/turns/writer.py", "conversation"): "a turn's end and its conversation's time are one statement, "
    "one round trip",
}
"""Which module names which table of another package, and why it may."""

_TABLE = re.compile(
    r'\b(?:from|join|update|into|using)\s+(?:only\s+)?"?(\{\}|[a-z_]+)"?|\.tables\[[\'"]([a-z_]+)', re.IGNORECASE
)
_STATEMENT = re.compile(r"\s*\(?\s*(select|insert|update|delete|with|from|lock|truncate|merge)\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def owners() -> Mapping[str, str]:
    """The package that each table belongs to: a folder or a module of `agent_server`, or a folder of `tools`."""
    import_module("agent_server.asgi")
    load_workspace(ROOT)
    mappers = SQLModel._sa_registry.mappers
    return {
        mapper.local_table.name: _package(mapper.class_.__module__)  # type: ignore[attr-defined]
        for mapper in mappers
        if mapper.class_.__module__.partition(".")[0] in ("agent_server", "tools")
    }


def _package(module: str) -> str:
    return ".".join(module.split(".")[:2])


def find_tables(source: str) -> Iterator[str]:
    """The words in the place of a table's name in the SQL of a module; `{}` where a value stands there."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(value=ast.Attribute(attr="tables"), slice=ast.Constant(value=str() as name)):
                yield name
            case ast.Constant(value=str() as sql) if id(node) not in docstrings | parts and _STATEMENT.match(sql):
                yield from _names(sql)
            case ast.JoinedStr(values=values):
                sql = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in values)
                if _STATEMENT.match(sql):
                    yield from _names(sql)


def _names(sql: str) -> Iterator[str]:
    return (name.lower() for name in _TABLE.findall(sql) for name in name if name)


def find_strangers(module: str, source: str, owners: Mapping[str, str]) -> set[tuple[str, str]]:
    """The tables that a module names in SQL and that are not of its package. A name that is only known when the
    statement is made may be any table's."""
    package = _package(module.removesuffix(".py").replace("/", "."))
    return {(module, name) for name in find_tables(source) if owners.get(name, package) != package or name == "{}"}


def test_a_tables_name_stands_in_the_sql_of_its_own_package_alone(owners: Mapping[str, str]) -> None:
    found: set[tuple[str, str]] = set()
    for folder in ("agent_server", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= find_strangers(path.relative_to(ROOT).as_posix(), path.read_text(), owners)
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    ("planted", "name"),
    [
        ('x = text("select id from turn where id = :id")', "turn"),
        ('x = text("""\n  select 1\n  from account a\n  join turn t on true""")', "turn"),
        ('x = f"delete from turn where id = {id}"', "turn"),
        ('x = f"delete from {table}"', "{}"),
        ('x = insert(SQLModel.metadata.tables["turn"])', "turn"),
        ('x = text("with a as (update turn set status = 1) insert into account select 1")', "turn"),
    ],
)
def test_a_name_of_another_packages_table_is_found(owners: Mapping[str, str], planted: str, name: str) -> None:
    assert find_strangers("agent_server/identity/planted.py", planted, owners) == {
        ("agent_server/identity/planted.py", name)
    }
    assert find_strangers("agent_server/turns/planted.py", planted.replace("account", "turn"), owners) == (
        {("agent_server/turns/planted.py", name)} if name == "{}" else set()
    )


def test_words_that_are_no_statement_are_left_alone(owners: Mapping[str, str]) -> None:
    source = dedent('''
        """Select what comes from turn to turn."""
        message = "The answer from turn 3"
        x = text("select 1 from account")
    ''')
    assert find_strangers("agent_server/identity/planted.py", source, owners) == set()
