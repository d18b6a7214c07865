"""The embedded server opens nothing to other users: no folder, no socket, also where root starts it."""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from agent_server.db.postgres import ELSEWHERE
from tests import zygote
from tests.conftest import ROOT, fetch

AS_ROOT = os.geteuid() == 0
NOBODY = 65534
START = "tests.db.start_embedded"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="users and modes are asked of Linux")


class Process:
    """A process that has joined the server of a folder, until it ends."""

    def __init__(self, folder: Path) -> None:
        theirs, self._stdin = os.pipe()
        out, into = os.pipe()
        environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OPENAI_API_KEY": "CANARY"}
        self.run = zygote.start(START, str(folder), cwd=ROOT, environment=environment, files=(theirs, into, 2))
        os.close(theirs)
        os.close(into)
        with open(out) as lines:
            self.url = lines.readline().strip()
        self.socket = Path(parse_qs(urlsplit(self.url).query)["host"][0]) / ".s.PGSQL.5432"
        self.data = self._find_data()
        self.postgres = int((self.data / "postmaster.pid").read_text().split()[0])

    def _find_data(self) -> Path:
        opened = self.socket.parent
        if (opened / "PG_VERSION").exists():
            return opened
        return Path(
            subprocess.run(["pgrep", "-af", "--", f"-k {opened}$"], capture_output=True, text=True)
            .stdout.split("-D ")[1]
            .split(" -h")[0]
        )

    def end(self, how: int = 0) -> None:
        if how:
            self.run.send_signal(how)
        os.close(self._stdin)
        self.run.wait()

    def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        return asyncio.run(fetch(self.url, statement))


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder with the modes of a home of root's, and a workspace in it."""
    home = Path(tempfile.mkdtemp(prefix="home-"))
    (home / "projects").mkdir(mode=0o750)
    (home / "projects" / "shop").mkdir(mode=0o700)
    yield home
    shutil.rmtree(home)
    for noted in ELSEWHERE.glob("*/folder") if AS_ROOT else ():
        if noted.read_text().startswith(str(home)):
            shutil.rmtree(noted.parent)


def _modes(home: Path, workspace: Path) -> dict[Path, int]:
    return {
        path: stat.S_IMODE(path.stat().st_mode)
        for path in (workspace, *workspace.parents)
        if home in (path, *path.parents)
    }


def _can_connect(socket: Path, user: int) -> bool:
    """Whether that user may: who connects has to get to the socket and to write to it."""
    return subprocess.run(["test", "-w", socket], cwd="/", user=user, group=user, extra_groups=[]).returncode == 0


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


LONG = "a-folder-with-a-name-of-forty-characters/" * 3


@pytest.mark.parametrize("inside", ["", "a folder; of 'quotes'", LONG], ids=["plain", "signs", "long"])
@pytest.mark.parametrize("mode", [0o700, 0o755], ids=["closed", "open"])
def test_no_folder_is_opened_and_nobody_else_gets_to_the_socket(home: Path, inside: str, mode: int) -> None:
    workspace = home / "projects" / "shop" / inside
    workspace.mkdir(parents=True, exist_ok=True)
    for path in _modes(home, workspace):
        path.chmod(mode)
    before = _modes(home, workspace)
    server = Process(workspace / ".data")
    try:
        assert _modes(home, workspace) == before
        assert server.fetch("select current_user::text") == [("postgres",)]
        assert len(os.fsencode(server.socket)) <= 107
        for folder in (server.socket.parent, server.data):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((workspace / ".data").stat().st_mode) == 0o700
        if AS_ROOT:
            assert not _can_connect(server.socket, NOBODY)
            owner = Path(f"/proc/{server.postgres}").stat().st_uid
            assert owner not in (0, NOBODY)
            assert b"CANARY" not in Path(f"/proc/{server.postgres}/environ").read_bytes()
            assert owner == server.data.stat().st_uid == server.socket.parent.stat().st_uid
    finally:
        server.end()
    assert not _is_alive(server.postgres)
    assert server.data == server.socket.parent or not server.socket.parent.exists()


def test_the_server_is_joined_and_stops_with_the_last_process_also_after_one_was_killed(home: Path) -> None:
    folder = home / "projects" / "shop" / ".data"
    first, second = Process(folder), Process(folder)
    assert first.postgres == second.postgres
    first.fetch("create table kept (x int)")
    first.end(signal.SIGKILL)
    assert _is_alive(second.postgres)
    third = Process(folder)
    assert third.postgres == second.postgres
    second.end()
    assert _is_alive(third.postgres)
    third.end()
    assert not _is_alive(third.postgres)
    again = Process(folder)
    assert again.fetch("select count(*) from kept") == [(0,)]
    again.end()


def test_a_server_that_was_killed_itself_starts_again_with_its_data(home: Path) -> None:
    folder = home / "projects" / "shop" / ".data"
    first = Process(folder)
    first.fetch("create table kept (x int)")
    os.kill(first.postgres, signal.SIGKILL)
    first.end(signal.SIGKILL)
    again = Process(folder)
    assert again.fetch("select count(*) from kept") == [(0,)]
    again.end()


@pytest.mark.skipif(not AS_ROOT, reason="a folder that the server's user does not get to is one that root alone opens")
def test_data_of_a_version_that_opened_the_folders_goes_on_being_used_when_they_are_closed_again(home: Path) -> None:
    folder = home / "projects" / "shop" / ".data"
    for path in _modes(home, folder.parent):
        path.chmod(0o755)
    before = Process(folder)
    assert before.data == folder / "postgres"
    before.fetch("create table kept (x int)")
    before.end()
    home.chmod(0o700)
    after = Process(folder)
    assert after.fetch("select count(*) from kept") == [(0,)]
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert after.data.is_relative_to(ELSEWHERE)
    after.end()
    again = Process(folder)
    assert (again.data, again.fetch("select count(*) from kept")) == (after.data, [(0,)])
    again.end()
    shutil.rmtree(folder)
    anew = Process(folder)
    with pytest.raises(asyncpg.UndefinedTableError):
        anew.fetch("select count(*) from kept")
    anew.end()


def test_a_socket_folder_that_somebody_else_has_made_is_not_used(home: Path) -> None:
    workspace = home / "projects" / "shop" / LONG
    workspace.mkdir(parents=True)
    for path in _modes(home, workspace):
        path.chmod(0o755)
    server = Process(workspace / ".data")
    place = server.socket.parent
    server.end()
    for spoil in ("mode", "link"):
        if spoil == "mode":
            place.mkdir()
            place.chmod(0o777)
        else:
            shutil.rmtree(place)
            place.symlink_to(home)
        refused = zygote.run(START, str(workspace / ".data"), cwd=ROOT)
        assert refused.returncode == 1
        assert "is open to others, or theirs; remove it" in refused.stderr
    place.unlink()


@pytest.mark.skipif(not AS_ROOT, reason="whoever is not root gives nothing away")
@pytest.mark.parametrize("aim", ["folder", "file", "nothing"])
def test_root_gives_away_nothing_that_a_link_in_its_place_leads_to(home: Path, aim: str) -> None:
    folder, target = home / "projects" / "shop" / ".data", home / "roots own"
    folder.mkdir()
    if aim == "folder":
        target.mkdir()
        (target / "kept").write_text("mine")
    elif aim == "file":
        target.write_text("mine")
    (folder / "postgres").symlink_to(target)
    before = target.stat() if target.exists() else None
    refused = zygote.run(START, str(folder), cwd=ROOT)
    assert refused.returncode == 1
    assert "is a link to elsewhere" in refused.stderr
    after = target.stat() if target.exists() else None
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
