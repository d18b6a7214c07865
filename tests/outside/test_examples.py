"""Servers of the TypeScript SDK, over both transports: its examples of before 2026, and one of 2026."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.needs import CONFORMANCE, SUITE, TYPESCRIPT
from tests.outside.conftest import Workshop

NODE = SUITE[0]
EXAMPLES = CONFORMANCE / "node_modules/@modelcontextprotocol/sdk/dist/esm/examples/server"
SHOP = str(TYPESCRIPT / "shop.mjs")


@asynccontextmanager
async def serve_example(script: str) -> AsyncIterator[str]:
    """The address of a server that listens on the port of its argument and of MCP_PORT."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        NODE,
        script,
        str(port),
        env={**os.environ, "MCP_PORT": str(port)},
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


@pytest.mark.needs("conformance")
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


@pytest.mark.needs("conformance")
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


@pytest.mark.needs("conformance")
async def test_an_example_over_http_answers_and_a_name_with_a_hyphen_becomes_one_of_ours(workshop: Workshop) -> None:
    async with serve_example(str(EXAMPLES / "simpleStreamableHttp.js")) as url:
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


@pytest.mark.needs("conformance")
async def test_an_example_of_a_session_that_has_ended_is_connected_to_anew(workshop: Workshop, tmp_path: Path) -> None:
    async with serve_example(str(EXAMPLES / "simpleStreamableHttp.js")) as url:
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


@pytest.mark.needs("typescript")
@pytest.mark.parametrize("over", ["http", "stdio"])
async def test_a_server_of_2026_is_spoken_to_in_its_own_generation(workshop: Workshop, over: str) -> None:
    async with AsyncExitStack() as stack:
        if over == "http":
            said: dict[str, Any] = {"url": await stack.enter_async_context(serve_example(SHOP))}
        else:
            said = {"command": [NODE, SHOP]}
        tools = {"find_price": {"effect": "read"}, "place_order": {"effect": "keyed", "confirm": False}}
        workshop.write(shop={**said, "tools": tools})
        await workshop.accept()
        loaded = workshop.load()
        price = await workshop.call(loaded["shop_find_price"], article="fins")
        assert price["result"] == {"cents": 1250, "era": "modern"}
        ordered = await workshop.call(loaded["shop_place_order"], article="fins")
        assert "agent-server/idempotency-key" in ordered[1]
        await workshop.close()
