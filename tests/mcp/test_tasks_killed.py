"""Tasks through the end of the process that runs them: killed, or told to stop. Two processes on one database."""

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_server.testing import copy_database
from tests.commands import PATIENCE, Serving, serving
from tests.conftest import ROOT
from tests.mcp.conftest import Mode
from tests.mcp.long_tools import TOOLS, call, read_answer, read_task, request
from tests.mcp.test_stops import until


@dataclass
class Pair:
    """Two processes that serve one workspace, with the key of one user, and the folder that the tools look into."""

    first: Serving
    second: Serving
    folder: Path

    def send(self, to: Serving, mode: Mode, method: str, params: dict[str, Any], **more: Any) -> dict[str, Any]:
        body, headers = request(mode, method, params, **more)
        url = to.http.base_url.join("/mcp")
        auth = {"Authorization": self.first.http.headers["Authorization"]}
        return read_answer(httpx.post(url, json=body, headers={**headers, **auth}, timeout=PATIENCE).text)

    def begin(self, to: Serving, mode: Mode, name: str, **arguments: Any) -> str:
        """A task of a tool that has begun."""
        params = call(mode, name, folder=str(self.folder), **arguments)
        task = read_task(self.send(to, mode, "tools/call", params))
        until((self.folder / "begun").exists)
        return str(task["taskId"])

    def read_result(self, of: Serving, mode: Mode, task: str) -> dict[str, Any]:
        if mode == "legacy":
            return dict(self.send(of, mode, "tasks/result", {"taskId": task})["result"])
        found: dict[str, Any] = {}

        def has_ended() -> bool:
            found.update(self.send(of, mode, "tasks/get", {"taskId": task})["result"])
            return found["status"] not in ("working", "input_required")

        until(has_ended)
        return dict(found["result"])

    def kill(self, process: Serving) -> None:
        process.process.kill()
        process.process.wait(PATIENCE)

    def outside(self) -> list[str]:
        return (self.folder / "outside").read_text().split()

    def open(self) -> None:
        (self.folder / "open").touch()


@pytest.fixture
def pair(postgres: str, tmp_path: Path) -> Iterator[Pair]:
    scaffold = ROOT / "agent_server" / "scaffold"
    workspace = shutil.copytree(scaffold, tmp_path / "w", ignore=shutil.ignore_patterns("__pycache__"))
    (workspace / "tools" / "work.py").write_text(TOOLS)
    folder = tmp_path / "folder"
    folder.mkdir()
    with ExitStack() as stack:
        url = stack.enter_context(copy_database(postgres))
        first, second = (
            stack.enter_context(serving(workspace, url, AGENT_SERVER_DRAIN_SECONDS="0.2")) for _ in range(2)
        )
        yield Pair(first, second, folder)


def text_of(result: dict[str, Any]) -> str:
    return str(result["content"][0]["text"])


def test_a_killed_process_loses_no_task_and_its_call_counts_once(pair: Pair, mode: Mode) -> None:
    task = pair.begin(pair.first, mode, "write_line", line="once")
    (pair.folder / "begun").unlink()
    pair.kill(pair.first)
    until((pair.folder / "begun").exists)  # the other one has taken it up
    pair.open()
    assert text_of(pair.read_result(pair.second, mode, task)) == "once"
    listed = pair.send(pair.second, "legacy", "tasks/list", {})["result"]["tasks"]
    assert [(each["taskId"], each["status"]) for each in listed] == [(task, "completed")]


def test_what_knows_our_keys_is_called_again_with_the_same_one(pair: Pair) -> None:
    task = pair.begin(pair.first, "modern", "ring")
    pair.kill(pair.first)
    until(lambda: len(pair.outside()) == 2)
    pair.open()
    assert text_of(pair.read_result(pair.second, "modern", task)) == "rung"
    assert len(set(pair.outside())) == 1


def test_what_happens_once_is_not_called_again(pair: Pair) -> None:
    task = pair.begin(pair.first, "modern", "mail")
    pair.kill(pair.first)
    result = pair.read_result(pair.second, "modern", task)
    assert result["isError"]
    assert text_of(result).startswith("outcome_unknown: ")
    assert pair.outside() == ["mailed"]


def test_a_process_that_is_told_to_stop_hands_its_tasks_over(pair: Pair, mode: Mode) -> None:
    task = pair.begin(pair.first, mode, "write_line", line="x")
    (pair.folder / "begun").unlink()
    pair.first.process.send_signal(signal.SIGTERM)
    assert pair.first.process.wait(PATIENCE) == 0
    until((pair.folder / "begun").exists)
    pair.open()
    assert text_of(pair.read_result(pair.second, mode, task)) == "x"


def test_a_task_that_is_cancelled_elsewhere_is_stopped(pair: Pair, mode: Mode) -> None:
    task = pair.begin(pair.first, mode, "write_line", line="x")
    assert "result" in pair.send(pair.second, mode, "tasks/cancel", {"taskId": task})
    pair.open()
    if mode == "legacy":
        assert pair.send(pair.second, mode, "tasks/result", {"taskId": task})["error"]["code"] == -32800
    assert pair.send(pair.second, mode, "tasks/get", {"taskId": task})["result"]["status"] == "cancelled"


def test_a_call_that_is_sent_again_with_its_key_acts_once_although_its_process_was_killed(
    pair: Pair, mode: Mode
) -> None:
    params = {"name": "write_now", "arguments": {"folder": str(pair.folder), "line": "x"}}
    body, headers = request(mode, "tools/call", params, meta={"idempotencyKey": "k"})
    auth = {"Authorization": pair.first.http.headers["Authorization"]}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(pair.first.http.base_url.join("/mcp"), json=body, headers={**headers, **auth}, timeout=2)
    pair.kill(pair.first)
    until((pair.folder / "begun").exists)
    pair.open()
    for _ in range(2):
        again = pair.send(pair.second, mode, "tools/call", params, meta={"idempotencyKey": "k"})
        assert text_of(again["result"]) == "x"
    other = {**params, "arguments": {"folder": str(pair.folder), "line": "y"}}
    refused = pair.send(pair.second, mode, "tools/call", other, meta={"idempotencyKey": "k"})
    assert "idempotencyKey: was sent with another call" in json.dumps(refused)
