"""Tasks over standard input: they outlive the process, which here is the connection."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from agent_server.testing import copy_database
from tests import zygote
from tests.commands import PATIENCE, environment
from tests.conftest import ROOT
from tests.mcp.conftest import Mode
from tests.mcp.long_tools import TOOLS, call, read_task, request
from tests.mcp.test_stops import until

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}


class Speaker:
    """A client that speaks with a process of `agent-server mcp`."""

    def __init__(self, process: zygote.Process, to: IO[str], of: IO[str]) -> None:
        self.process, self._to, self._of = process, to, of

    def send(self, mode: Mode, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request."""
        body, _ = request(mode, method, params)
        self.say(body)
        for line in self._of:
            if "id" in (message := json.loads(line)):
                return dict(message)
        raise AssertionError("the process ended")

    def say(self, message: dict[str, Any]) -> None:
        self._to.write(json.dumps(message) + "\n")
        self._to.flush()

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


@contextmanager
def speaking(root: Path, url: str, mode: Mode) -> Iterator[Speaker]:
    given, to = os.pipe()
    of, into = os.pipe()
    process = zygote.start(
        "agent_server", "mcp", cwd=root, environment=environment({"DATABASE_URL": url}), files=(given, into, 2)
    )
    os.close(given)
    os.close(into)
    with open(to, "w") as writing, open(of) as reading:
        speaker = Speaker(process, writing, reading)
        if mode == "legacy":
            speaker.send(mode, "initialize", HELLO)
            speaker.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        yield speaker
        speaker.kill()


def test_a_task_whose_process_is_killed_is_taken_up_by_the_next_one_that_is_asked_for_it(
    postgres: str, tmp_path: Path
) -> None:
    scaffold = ROOT / "agent_server" / "scaffold"
    root = shutil.copytree(scaffold, tmp_path / "w", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "tools" / "work.py").write_text(TOOLS)
    with copy_database(postgres) as url:
        with speaking(root, url, "modern") as first:
            params = call("modern", "write_line", folder=str(tmp_path), line="x")
            task = read_task(first.send("modern", "tools/call", params))["taskId"]
            until((tmp_path / "begun").exists)
        (tmp_path / "begun").unlink()
        with speaking(root, url, "legacy") as second:
            found = second.send("legacy", "tasks/get", {"taskId": task})["result"]
            assert (found["taskId"], found["status"]) == (task, "working")
            until((tmp_path / "begun").exists)
            (tmp_path / "open").touch()
            result = second.send("legacy", "tasks/result", {"taskId": task})["result"]
            assert result["content"] == [{"type": "text", "text": "x"}]
