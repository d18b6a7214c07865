"""The example servers of the TypeScript SDK, over both transports."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.needs import CONFORMANCE, SUITE
from tests.outside.conftest import Workshop

NODE = SUITE[0]
EXAMPLES = CONFORMANCE / "node_modules/@modelcontextprotocol/sdk/dist/esm/examples/server"
pytestmark = pytest.mark.needs("conformance")


@asynccontextmanager
async def serve_example(name: str, variable: str) -> AsyncIterator[str]:
    """The address of an example that listens on the port in `variable`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        NODE,
        str(EXAMPLES / name),
        env={**os.environ, variable: str(port)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            if b"listening" in line or b"running" in line:
                break
        yield f"http://localhost:{port}/mcp"
    finally:
        process.kill()
        await process.communicate()


async def test_an_example_over_stdio_gives_structured_results(workshop: Workshop) -> None:
    workshop.write(
        weather={
            "command": [NODE, str(EXAMPLES / "mcpServerOutputSchema.js")],
            "tools": {"get_weather": {"effect": "read"}},
        }
    )
    await workshop.accept()
    get_weather = workshop.load()["weather_get_weather"]
    answer = await workshop.call(get_weather, city="Oslo", country="Norway")
    assert answer["from_outside_server"] == "weather"
    assert {"temperature", "conditions", "humidity", "wind"} <= answer["result"].keys()


async def test_an_example_over_stdio_tells_how_far_it_is(workshop: Workshop) -> None:
    workshop.write(
        counting={"command": [NODE, str(EXAMPLES / "progressExample.js")], "tools": {"count": {"effect": "read"}}}
    )
    await workshop.accept()
    heard = Heard()
    answer = await workshop.call(workshop.load()["counting_count"], listener=heard, n=3)
    assert "3" in answer[1]
    assert [done for done, _ in heard.progress] == [1, 2, 3]


class Heard:
    """A listener that keeps the progress it is told."""

    def __init__(self) -> None:
        self.progress: list[tuple[float, float | None]] = []

    async def report_progress(self, done: float, total: float | None, message: str | None) -> None:
        self.progress.append((done, total))

    async def log(self, level: str, message: str) -> None: ...


async def test_an_example_over_http_answers_and_a_name_with_a_hyphen_becomes_one_of_ours(workshop: Workshop) -> None:
    async with serve_example("simpleStreamableHttp.js", "MCP_PORT") as url:
        workshop.write(greeter={"url": url, "tools": {"greet": {"effect": "read"}, "multi-greet": {"effect": "read"}}})
        await workshop.accept()
        tools = workshop.load()
        assert sorted(tools) == ["greeter_greet", "greeter_multi_greet"]
        assert (await workshop.call(tools["greeter_greet"], name="Ann"))[1] == "Hello, Ann!"
        answers = await asyncio.gather(
            *(workshop.call(tools["greeter_greet"], name=f"Ann {number}") for number in range(20))
        )
        assert [answer[1] for answer in answers] == [f"Hello, Ann {number}!" for number in range(20)]
        await workshop.close()


async def test_an_example_of_a_session_that_has_ended_is_connected_to_anew(workshop: Workshop, tmp_path: Path) -> None:
    async with serve_example("simpleStreamableHttp.js", "MCP_PORT") as url:
        workshop.write(greeter={"url": url, "tools": {"greet": {"effect": "once"}}})
        await workshop.accept()
        greet = workshop.load()["greeter_greet"]
        assert (await workshop.call(greet, name="Ann"))[1] == "Hello, Ann!"
    with pytest.raises(Exception, match="away"):
        await workshop.call(greet, name="Ann")
    port = url.split(":")[2].partition("/")[0]
    process = await asyncio.create_subprocess_exec(
        NODE,
        str(EXAMPLES / "simpleStreamableHttp.js"),
        env={**os.environ, "MCP_PORT": port},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    # A new server knows nothing of the session; a call of `once` is not lost over that, since the list comes first.
    assert (await workshop.call(greet, name="Ann"))[1] == "Hello, Ann!"
    await workshop.close()
    process.kill()
    await process.communicate()
