"""Two walls keep callers apart, the filters of the repositories and the policies of the database; either holds alone.

A wall is taken down in a copy of the sources, and the matrix runs there, in a process of its own.
"""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import SERVER, TEMPLATE
from tests.sources import copy_sources
from tests.zygote import run_pytest

PROBE = "finds_nothing or lead_nobody_else"
WITHOUT_STAFF = "(finds_nothing or lead_nobody_else) and not another_user"
"""The other user of the matrix holds every scope: the database shows it the orders of all, as to staff."""
_FILTER = re.compile(r"(?:\n\s*)?col\([\w.]+\.owner_id\) == self\.owner,?\s?")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    copy_sources(tmp_path)
    conftest = tmp_path / "tests/conftest.py"  # the lint of statements is a wall of its own
    conftest.write_text(conftest.read_text().replace('"tests.server", "tests.owners"', '"tests.server"'))
    return tmp_path


def take_down_filters(copy: Path) -> int:
    """Strip the owner's filter from every repository; returns how many there were."""
    stripped = 0
    for path in [*copy.glob("agent_server/**/repository.py"), *copy.glob("tools/**/repository.py")]:
        source, found = _FILTER.subn("", path.read_text())
        path.write_text(source.replace(".where()", ""))
        stripped += found
    return stripped


def take_down_policies(copy: Path) -> int:
    """Let every policy say yes; returns how many places that took."""
    path = copy / "agent_server/db/isolation.py"
    source, found = re.subn(r"own = _OWN\.format\(column=policy\.column\)", 'own = "true"', path.read_text())
    path.write_text(source)
    return found


def probe(copy: Path, which: str = PROBE, **variables: str) -> tuple[int, int]:
    """How many tests of the matrix ran in the copy, and how many failed."""
    report = copy / "report.xml"
    arguments = ("-o", "addopts=", "tests/test_matrix.py", "-k", which, f"--junitxml={report}")
    done = run_pytest(copy, *arguments, **variables)
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None, done.stdout
    cases = suite.findall("testcase")
    assert not suite.findall("testcase/error") or suite.findall("testcase/failure"), done.stdout
    return len(cases), len(suite.findall("testcase/failure"))


def test_without_the_filters_of_the_repositories_nothing_leaks(copy: Path, postgres: str, template: str) -> None:
    assert take_down_filters(copy) >= 5
    assert probe(copy, WITHOUT_STAFF, **{SERVER: postgres, TEMPLATE: template}) == (3, 0)


def test_without_the_policies_of_the_database_nothing_leaks(copy: Path, postgres: str) -> None:
    assert take_down_policies(copy) == 1
    assert probe(copy, **{SERVER: postgres}) == (4, 0)


def test_without_either_the_matrix_finds_the_leak(copy: Path, postgres: str) -> None:
    take_down_filters(copy)
    take_down_policies(copy)
    ran, failed = probe(copy, **{SERVER: postgres})
    assert (ran, failed > 0) == (4, True)
