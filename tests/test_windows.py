"""The engine uses nothing that Windows lacks, but where it has another way there.

What Windows lacks is known from typeshed, which mypy ships: names that a module has on Linux only. What a branch says
that is not taken on Windows (`if sys.platform != "win32"`) may use them.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import mypy
import pytest

from tests.conftest import ROOT

TYPESHED = Path(mypy.__file__).parent / "typeshed" / "stdlib"
OF_SELECTORS = {f"{verb}_{what}" for verb in ("add", "remove") for what in ("reader", "writer", "signal_handler")}
"""Methods of an event loop that Windows' own does not have (asyncio's documentation, "Platform Support")."""


def truth(test: ast.expr, platform: str) -> bool | None:
    """What a condition is on a platform. None: that depends on something else."""
    match test:
        case ast.Compare(ast.Attribute(ast.Name("sys"), "platform"), [op], [ast.Constant(str(name))]):
            return (platform == name) if isinstance(op, ast.Eq) else (platform != name)
        case ast.UnaryOp(ast.Not(), operand):
            inner = truth(operand, platform)
            return None if inner is None else not inner
        case ast.BoolOp(op, values):
            found = [truth(value, platform) for value in values]
            decisive = isinstance(op, ast.Or)
            if decisive in found:
                return decisive
            return None if None in found else not decisive
    return None


def live(body: list[ast.stmt], platform: str) -> Iterator[ast.stmt]:
    """The statements of a block that are run on a platform; of those that branch, each branch by itself."""
    for statement in body:
        if isinstance(statement, ast.Assert) and truth(statement.test, platform) is False:
            return
        if not isinstance(statement, ast.If) or (known := truth(statement.test, platform)) is None:
            yield statement
            continue
        taken = statement.body if known else statement.orelse
        yield from live(taken, platform)
        if taken and isinstance(taken[-1], ast.Return | ast.Raise | ast.Continue):
            return


@cache
def names(module: str, platform: str, *, own: bool = False) -> frozenset[str] | None:
    """What a module of Python's has on a platform, or what it defines itself. None: it is none of Python's."""
    stub = next(
        (file for file in (TYPESHED / f"{module.replace('.', '/')}.pyi", TYPESHED / module.replace(".", "/") / "__init__.pyi") if file.is_file()),
        None,
    )  # fmt: skip
    if stub is None:
        return None
    found: set[str] = set()

    def collect(body: list[ast.stmt]) -> None:
        for statement in live(body, platform):
            match statement:
                case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                    found.add(name)
                case ast.AnnAssign(ast.Name(name)):
                    found.add(name)
                case ast.Assign(targets):
                    found.update(target.id for target in targets if isinstance(target, ast.Name))
                case ast.Import(given) | ast.ImportFrom(names=given) if not own:
                    found.update(alias.asname or alias.name for alias in given)
                case ast.If(_, then, otherwise):
                    collect(then)
                    collect(otherwise)

    collect(ast.parse(stub.read_text()).body)
    return frozenset(found)


def is_lacking(module: str, name: str) -> bool:
    """Whether Windows lacks what Linux has in this module."""
    here, there = names(module, "linux"), names(module, "win32")
    return here is not None and there is not None and name in here - there


def is_for_others(module: str) -> bool:
    """Whether a whole module is there on Linux only."""
    found = (names(module, platform, own=True) or () for platform in ("linux", "win32"))
    here, there = ([name for name in each if not name.startswith("_")] for each in found)
    return bool(here) and not there


def uses(source: str) -> Iterator[tuple[int, str]]:
    """What a module uses on Windows that Windows lacks, with its line."""
    tree = ast.parse(source)
    modules: dict[str, str] = {}

    def look(body: list[ast.stmt]) -> Iterator[tuple[int, str]]:
        for statement in live(body, "win32"):
            yield from see(statement)

    def see(node: ast.AST) -> Iterator[tuple[int, str]]:
        match node:
            case ast.Import(given):
                for alias in given:
                    modules[alias.asname or alias.name.partition(".")[0]] = alias.name
                    if is_for_others(alias.name):
                        yield node.lineno, alias.name
            case ast.ImportFrom(str(module), given):
                for alias in given:
                    modules[alias.asname or alias.name] = f"{module}.{alias.name}"
                    if is_for_others(module) or is_lacking(module, alias.name):
                        yield node.lineno, f"{module}.{alias.name}"
            case ast.Attribute(ast.Name(name), attribute) if is_lacking(modules.get(name, ""), attribute):
                yield node.lineno, f"{modules[name]}.{attribute}"
            case ast.Attribute(_, attribute) if attribute in OF_SELECTORS:
                yield node.lineno, f"loop.{attribute}"
            case ast.IfExp(test, then, otherwise) if (known := truth(test, "win32")) is not None:
                yield from see(then if known else otherwise)
                return
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                yield from look(value)
            elif isinstance(value, list):
                for each in value:
                    if isinstance(each, ast.AST):
                        yield from see(each)
            elif isinstance(value, ast.AST):
                yield from see(value)

    return look(tree.body)


def for_others() -> set[str]:
    """Modules of ours that are not for Windows: they say so with an assertion."""
    paths = (ROOT / "agent_server").rglob("*.py")
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in paths
        if any(isinstance(s, ast.Assert) and truth(s.test, "win32") is False for s in ast.parse(path.read_text()).body)
    }


def test_the_engine_uses_nothing_that_windows_lacks() -> None:
    found = []
    others = for_others()
    assert others == {"agent_server.db.postgres"}
    for path in sorted((ROOT / "agent_server").rglob("*.py")):
        name = path.relative_to(ROOT)
        if ".".join(name.with_suffix("").parts) in others:
            continue
        source = path.read_text()
        found += [f"{name}:{line}: {what}" for line, what in uses(source)]
        found += [f"{name}:{s.lineno}: {s.module}" for s in live_imports(source) if s.module in others]
    assert found == []


def live_imports(source: str) -> Iterator[ast.ImportFrom]:
    def walk(body: list[ast.stmt]) -> Iterator[ast.ImportFrom]:
        for statement in live(body, "win32"):
            if isinstance(statement, ast.ImportFrom):
                yield statement
            for _, value in ast.iter_fields(statement):
                if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                    yield from walk(value)

    return walk(ast.parse(source).body)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import signal\nsignal.pause()", ["signal.pause"]),
        ("import os as o\ndef f():\n    o.killpg(1, 9)", ["os.killpg"]),
        ("import os\nos.kill(1, 9)", []),
        ("import pwd", ["pwd"]),
        ("import fcntl", ["fcntl"]),
        ("import resource", ["resource"]),
        ("import termios", ["termios"]),
        ("from os import geteuid", ["os.geteuid"]),
        ("import signal\nx = signal.SIGKILL", ["signal.SIGKILL"]),
        ("import socket\nx = socket.AF_UNIX", ["socket.AF_UNIX"]),
        ("def f(loop):\n    loop.add_signal_handler(2, f)", ["loop.add_signal_handler"]),
        ("def f(loop):\n    with loop:\n        loop.add_reader(2, f)", ["loop.add_reader"]),
        ("import os, sys\nif sys.platform != 'win32':\n    os.getuid()", []),
        ("import os, sys\nif sys.platform == 'win32':\n    os.getuid()", ["os.getuid"]),
        ("import os, sys\ndef f():\n    if sys.platform == 'win32':\n        return 0\n    return os.getuid()", []),
        ("import os, sys\ndef f():\n    if sys.platform != 'win32':\n        return 0\n    return os.getuid()", ["os.getuid"]),
        ("import os, sys\nx = os.getuid() if sys.platform == 'linux' else 0", []),
        ("import os, sys\nif sys.platform == 'linux' and os:\n    os.getuid()", []),
        ("import os, sys\nif sys.platform == 'linux' or os:\n    os.getuid()", ["os.getuid"]),
        ("import os, sys\nassert sys.platform != 'win32'\nos.getuid()", []),
    ],
)  # fmt: skip
def test_a_use_is_found_unless_another_way_is_taken_on_windows(source: str, found: list[str]) -> None:
    assert [what for _, what in uses(source)] == found


def test_the_readme_says_on_what_it_was_run() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert "It was run on Linux. On macOS and Windows it was never run" in readme
