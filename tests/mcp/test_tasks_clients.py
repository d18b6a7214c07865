"""Tasks as the SDKs' own clients have them, over two replicas behind a balancer of which one is killed in the middle."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import httpx2
import mcp_types as types
import pytest
from mcp import Client
from mcp.client import ClientExtension
from mcp.client.extension import ClaimContext, ResultClaim
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from tests.commands import PATIENCE
from tests.mcp.conformance.proxy import balance
from tests.mcp.long_tools import EXTENSION
from tests.mcp.test_tasks_killed import Pair, pair
from tests.needs import CONFORMANCE, SUITE

__all__ = ["pair"]  # a fixture


class Created(types.Result):
    """A task in place of a result."""

    result_type: Literal["task"] = "task"
    task_id: str


class State(types.Result):
    """What `tasks/get` answers."""

    status: str
    result: dict[str, Any] | None = None


class TaskId(types.RequestParams):
    """What names a task."""

    task_id: str


class GetTask(types.Request[TaskId, Literal["tasks/get"]]):
    """A look at a task."""

    method: Literal["tasks/get"] = "tasks/get"
    params: TaskId


class Tasks(ClientExtension):
    """Polls a task until it has ended."""

    identifier = EXTENSION

    def __init__(self) -> None:
        self.created = asyncio.Event()

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Created, resolve=self._resolve)]

    async def _resolve(self, created: Created, context: ClaimContext) -> types.CallToolResult:
        self.created.set()
        request = GetTask(params=TaskId(task_id=created.task_id))
        while True:
            # A look that reaches a process as it dies is made again.
            with suppress(MCPError):
                state = await context.session.send_request(request, State)
                if state.result is not None:
                    return types.CallToolResult.model_validate(state.result)
            await asyncio.sleep(0.2)


def balanced(pair: Pair) -> Any:
    bases = [str(each.http.base_url).rstrip("/") for each in (pair.first, pair.second)]
    key = pair.first.http.headers["Authorization"].removeprefix("Bearer ")
    return balance(bases, key, asks=True)


async def until_begun(pair: Pair) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if (pair.folder / "begun").exists():
                return
            await asyncio.sleep(0.05)


async def kill_first_and_open(pair: Pair) -> None:
    """Kill the one process, and let the tool end once the other one runs it."""
    await until_begun(pair)
    (pair.folder / "begun").unlink()
    await asyncio.to_thread(pair.kill, pair.first)
    pair.open()


async def test_the_python_client_of_2026_has_the_result_after_a_kill(pair: Pair) -> None:
    tasks = Tasks()
    async with (
        balanced(pair) as address,
        httpx2.AsyncClient(timeout=PATIENCE) as http,
        Client(streamable_http_client(f"{address}/mcp", http_client=http), extensions=[tasks]) as client,
    ):
        arguments = {"folder": str(pair.folder), "line": "python"}
        calling = asyncio.create_task(client.call_tool("write_line", arguments))
        async with asyncio.timeout(PATIENCE):
            await tasks.created.wait()
        await kill_first_and_open(pair)
        result = await calling
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].text == "python"


@pytest.mark.needs("conformance")
async def test_the_typescript_client_has_the_result_after_a_kill_and_is_asked(pair: Pair) -> None:
    async with balanced(pair) as address:
        process = await asyncio.create_subprocess_exec(
            *(SUITE[0], str(CONFORMANCE / "tasks.mjs"), f"{address}/mcp", str(pair.folder)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        saying = asyncio.create_task(process.communicate())
        await kill_first_and_open(pair)
        async with asyncio.timeout(PATIENCE):
            said, complained = await saying
    messages = [json.loads(line) for line in said.decode().splitlines()]
    told = {name: value for message in messages for name, value in message.items()}
    assert [message["result"] for message in messages if "result" in message] == ["typescript", "size 41"], complained
    assert told["asked"] == "Which size?"
    assert told["listed"] == ["completed", "completed"]
