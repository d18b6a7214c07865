"""Processes of ours beside this one: workers, and the server of each reload."""

import asyncio
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from watchfiles import BaseFilter

IMPORTED = ["agent_server.commands.serving", "agent_server.orchestrator.run"]
STOP_SECONDS = 5.0
"""How long the server before a change may take to end."""
LOOK_MILLISECONDS = 500
"""How often single files are looked at."""


def prepare_processes() -> type[BaseProcess]:
    """Have processes begin in milliseconds with all of ours imported, on Linux.

    They fork from a process that has imported and does nothing else. A fork of this one would get copies of its
    threads, locks and connections.
    """
    # macOS can fork too, and its own libraries may crash in the fork.
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn").Process
    forkserver.set_forkserver_preload(IMPORTED)
    # A SIGTERM to the whole group must leave it: with it, this process would take all of the others for ended. It
    # inherits the mask, and ends by itself with this process.
    resource_tracker.ensure_running()  # else it is begun by what follows, and unblocks the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return multiprocessing.get_context("forkserver").Process


_forked_from: list[int] = []
"""The process that this one was forked from, noted as its first act: later it may be gone, and another one the parent."""


def begin_process() -> None:
    """Take signals, in a process that `prepare_processes` has made possible."""
    _forked_from[:] = [os.getppid()]
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def find_makers() -> list[int | None]:
    """Descriptors that become readable when a process is gone that this one does not outlive.

    Those are the one that started it and the one that it was forked from: without the latter it counts as ended, and is
    replaced. None stands for one that is gone already.
    """
    parent = multiprocessing.parent_process()
    makers: list[int | None] = [] if parent is None else [parent.sentinel]
    if sys.platform == "linux":
        for pid in _forked_from:
            try:
                makers.append(os.pidfd_open(pid))
            except ProcessLookupError:
                makers.append(None)
    return makers


def watch_makers(gone: Callable[[], None]) -> None:
    """Have `gone` called on the event loop, once, when a process is gone that this one does not outlive."""
    loop = asyncio.get_running_loop()
    makers = find_makers()
    if None in makers:
        gone()
        return
    sentinels = [maker for maker in makers if maker is not None]
    if sys.platform == "win32":  # whose event loop waits for no handle of a process

        def wait_for_end() -> None:
            wait(sentinels)
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(gone)

        if sentinels:
            threading.Thread(target=wait_for_end, daemon=True).start()
        return

    def tell() -> None:
        # The sentinel of a process that has ended stays readable, and would call this again and again.
        for sentinel in sentinels:
            loop.remove_reader(sentinel)
        gone()

    for sentinel in sentinels:
        loop.add_reader(sentinel, tell)


def wait_for_makers() -> None:
    """Do nothing until a process is gone that this one does not outlive, or this one is told to stop."""
    makers = find_makers()
    if None not in makers:
        with suppress(KeyboardInterrupt):
            wait([maker for maker in makers if maker is not None])


@dataclass(frozen=True)
class Watched:
    """What is looked at for changes: files of some kinds in the `folders` of `root`, and `files` wherever they are."""

    root: Path
    folders: Sequence[str]
    kinds: "BaseFilter"
    files: Sequence[Path]

    def changes(self, told_to_stop: threading.Event) -> Iterator[Sequence[Path]]:
        """What has changed since the last time, again and again."""
        from watchfiles import watch  # noqa: PLC0415  # heavy

        stamps = self._stamps()
        while not told_to_stop.is_set():
            folders = self._folders()
            looks = watch(
                *(folders or [self.root]),
                watch_filter=self.kinds,
                stop_event=told_to_stop,
                rust_timeout=LOOK_MILLISECONDS,
                yield_on_timeout=True,
                recursive=bool(folders),
            )
            for found in looks:
                before, stamps = stamps, self._stamps()
                changed = {Path(name) for _, name in found}
                # They may come into being later, and not one folder of theirs is watched for that: it holds the database.
                changed |= {file for file, stamp in stamps.items() if before[file] != stamp}
                appeared = {*self._folders()} - {*folders}
                if changed | appeared:
                    yield sorted(changed | appeared)
                if appeared:
                    break

    def _folders(self) -> Sequence[Path]:
        return [folder for name in self.folders if (folder := self.root / name).is_dir()]

    def _stamps(self) -> Mapping[Path, tuple[int, int] | None]:
        return {file: _stamp(file) for file in self.files}


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:  # it is not there, or not ours to look at
        return None
    return found.st_mtime_ns, found.st_size


def run_reloading(
    watched: Watched, tell: Callable[[Sequence[Path], bool], bytes], target: Callable[..., object], *arguments: Any
) -> None:
    """Run `target` in a process until this one is told to stop.

    With each change `tell` is told which files have changed and whether the process is ready. It says what the process
    is sent that is to read them itself; where that is nothing, another starts. The last two arguments of `target` are
    whether it is the first one, and a socket: the process writes to it when it is ready, and reads from it what is sent.
    """
    new = prepare_processes()

    def start(*, first: bool) -> tuple[BaseProcess, socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            process = new(target=target, args=(*arguments, first, theirs))
            process.start()
        ours.setblocking(False)
        return process, ours

    told_to_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not by an exception: raised while a process begins it leaves one behind, and in a finalizer it is lost.
        signal.signal(number, lambda *_: told_to_stop.set())
    process, line = start(first=True)
    try:
        for changed in watched.changes(told_to_stop):
            if sent := tell(changed, process.is_alive() and _is_ready(line)):
                line.send(sent)
                continue
            _stop(process)
            line.close()
            process, line = start(first=False)
    finally:
        _stop(process)
        line.close()


def _is_ready(line: socket.socket) -> bool:
    """Whether the process at the other end has written."""
    try:
        return bool(line.recv(1, socket.MSG_PEEK))  # left there for the next time
    except OSError:  # nothing yet, or it is gone
        return False


def _stop(process: BaseProcess) -> None:
    if process.is_alive():
        end_process(process, signal.SIGINT)
        process.join(STOP_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()


def end_process(process: BaseProcess, number: signal.Signals) -> None:
    """Have a process stop in good order."""
    # On Windows there is no such message to a process: it ends at once, and another one goes on with its turns.
    if sys.platform == "win32":
        process.terminate()
    else:
        os.kill(cast(int, process.pid), number)
