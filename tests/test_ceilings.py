"""No package becomes the place for everything: sizes are bounded, as import contracts bound directions."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

ENGINE = ROOT / "agent_server"
LINES_OF_MODULE = 400
LINES_OF_FUNCTION = 60
SHARE_OF_PACKAGE = 0.12
LINES_OF_PACKAGE = {"orchestrator": 900, "http": 900}
"""These two have been everything's place before."""


def modules(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.py") if "scaffold" not in path.relative_to(ROOT).parts)


def lines(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in modules(folder))


def long_functions(source: str) -> list[str]:
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LINES_OF_FUNCTION
    ]


@pytest.mark.parametrize("package", LINES_OF_PACKAGE)
def test_a_package_that_things_are_put_into_stays_small(package: str) -> None:
    assert 0 < lines(ENGINE / package) <= LINES_OF_PACKAGE[package]


def test_no_package_is_more_than_its_share_of_the_engine() -> None:
    whole = lines(ENGINE)
    shares = {folder.name: lines(folder) / whole for folder in ENGINE.iterdir() if folder.is_dir()}
    assert {name: round(share, 3) for name, share in shares.items() if share > SHARE_OF_PACKAGE} == {}


def test_no_module_and_no_function_is_long() -> None:
    found: list[str] = []
    for folder in ("agent_server", "tools"):
        for path in modules(ROOT / folder):
            source, name = path.read_text(), path.relative_to(ROOT).as_posix()
            found += [name] if len(source.splitlines()) > LINES_OF_MODULE else []
            found += [f"{name}: {function}" for function in long_functions(source)]
    assert found == []


def test_a_function_that_is_too_long_is_found() -> None:
    body = "\n".join(f"    x = {n}" for n in range(LINES_OF_FUNCTION))
    assert long_functions(f"def f():\n{body}\n") == ["f"]
    assert long_functions("def f():\n    return 1\n") == []
