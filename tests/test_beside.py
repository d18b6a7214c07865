"""The checks of `make test` run beside the tests: both are waited for, and it fails where one of them fails."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

BESIDE = str(ROOT / ".ci" / "beside")
pytestmark = pytest.mark.needs("sockets")  # Windows has no bash where one is looked for, and no pipes with a name


@pytest.mark.parametrize(
    ("checks", "tests", "failed"),
    [(0, 0, []), (3, 0, ["The checks failed."]), (0, 5, ["The tests failed: see above."])],
)
def test_it_fails_where_the_checks_or_the_tests_fail(checks: int, tests: int, failed: list[str]) -> None:
    done = subprocess.run([BESIDE, f"exit {checks}", f"exit {tests}"], capture_output=True, text=True)
    assert done.returncode == bool(failed)
    assert [line for line in done.stdout.splitlines() if line] == failed


def test_what_the_checks_say_comes_when_the_tests_have_ended(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "said")
    checks = f"echo a mistake; echo another >&2; echo >{tmp_path}/said"
    done = subprocess.run([BESIDE, checks, f"cat {tmp_path}/said; echo passed"], capture_output=True, text=True)
    assert done.stdout.split("\n") == ["", "passed", "", "a mistake", "another", ""]


def test_who_stops_it_stops_the_checks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "begun")
    os.mkfifo(tmp_path / "held")
    checks = f"exec 3<>{tmp_path}/held; echo >{tmp_path}/begun; exec sleep 600"
    process = subprocess.Popen([BESIDE, checks, f"cat {tmp_path}/begun; kill -INT $PPID"], start_new_session=True)
    assert process.wait(60) == 128 + signal.SIGINT
    # Nobody has it open any more.
    with pytest.raises(OSError, match="No such device or address"):
        os.open(tmp_path / "held", os.O_WRONLY | os.O_NONBLOCK)
