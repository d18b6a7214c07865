"""What a test needs is there, or the test is listed as not run; where nothing may be left out it fails."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.needs import NEEDS, commands, find_program

TESTS = """
import pytest

@pytest.mark.needs("git")
def test_with_git(): raise AssertionError

@pytest.mark.needs("chromium")
@pytest.mark.parametrize("n", [1, 2])
def test_with_chromium(n): raise AssertionError

def test_with_nothing(): pass

@pytest.mark.skip("for a reason")
def test_that_was_left_out(): pass

@pytest.mark.xfail
def test_that_is_known_to_fail(): raise AssertionError
"""


def run(folder: Path, **variables: str) -> tuple[int, str]:
    """Run these tests where there is no program at all."""
    (folder / "test_some.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    needs\n")
    kept = {name: value for name, value in os.environ.items() if name not in ("CHROMIUM", "STRICT")}
    nowhere = {"PATH": str(folder), "PLAYWRIGHT_BROWSERS_PATH": str(folder), "PYTHONPATH": str(ROOT)}
    nowhere["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [sys.executable, "-m", "pytest", "-p", "xdist", "-n", "1", "-p", "tests.needs", str(folder)]
    done = subprocess.run(
        command, cwd=folder, env=kept | nowhere | variables, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def test_what_is_missing_is_listed_and_all_else_is_run(tmp_path: Path) -> None:
    code, out = run(tmp_path)
    assert code == 0, out
    _, _, listed = out.partition(" not run ")
    lines = [line.strip() for line in listed.splitlines()]
    assert {"2 tests: needs Chromium", "1 test : needs git", "1 test : for a reason"} <= set(lines)
    assert lines[lines.index("To run them as well:") + 1].endswith("-m playwright install --with-deps chromium")
    assert "1 passed, 4 skipped, 1 xfailed" in lines[-1]


def test_where_nothing_may_be_left_out_it_is_a_failure(tmp_path: Path) -> None:
    code, out = run(tmp_path, STRICT="1")
    assert code == 1, out
    assert "With STRICT=1 every test is to run; this one needs Chromium. " in out
    assert "1 passed, 1 xfailed, 4 errors" in out


def test_one_command_installs_all_that_has_a_package() -> None:
    needs = [NEEDS[name] for name in ("pgbouncer", "nginx", "mount", "sockets")]
    if find_program("apt-get"):
        said = "sudo apt-get install -y --no-install-recommends pgbouncer nginx"
    elif find_program("brew"):
        said = "brew install pgbouncer nginx"
    else:
        said = ""
    expected = [said] if said else []
    assert commands(needs) == [*expected, "make test  # as root; in a container, with SYS_ADMIN"]
