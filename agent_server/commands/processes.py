"""Processes of ours beside this one: workers, and the server of each reload."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

from watchfiles import BaseFilter, watch

IMPORTED = ["agent_server.app", "agent_server.commands.serving"]
STOP_SECONDS = 5.0
"""How long the server before a change may take to end."""


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
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def find_makers() -> list[int | None]:
    """Descriptors that become readable when a process is gone that this one does not outlive.

    Those are the one that started it and the one that it was forked from: without the latter it counts as ended, and is
    replaced. None stands for one that is gone already.
    """
    parent = multiprocessing.parent_process()
    makers: list[int | None] = [] if parent is None else [parent.sentinel]
    for pid in _forked_from if hasattr(os, "pidfd_open") else ():
        try:
            makers.append(os.pidfd_open(pid))
        except ProcessLookupError:
            makers.append(None)
    return makers


def run_reloading(folders: Sequence[Path], watched: BaseFilter, target: Callable[..., object], *arguments: Any) -> None:
    """Run `target` in a process until this one is told to stop, and anew with each change in the folders."""
    new = prepare_processes()

    def start() -> BaseProcess:
        process = new(target=target, args=arguments)
        process.start()
        return process

    told_to_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not by an exception: raised while a process begins it leaves one behind, and in a finalizer it is lost.
        signal.signal(number, lambda *_: told_to_stop.set())
    process = start()
    try:
        for _ in watch(*folders, watch_filter=watched, stop_event=told_to_stop):
            _stop(process)
            process = start()
    finally:
        _stop(process)


def _stop(process: BaseProcess) -> None:
    if process.is_alive():
        os.kill(cast(int, process.pid), signal.SIGINT)
        process.join(STOP_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
