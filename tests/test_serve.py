"""`agent-server serve` as a process: what it says when it starts, and that nothing is lost when it ends."""

import asyncio
import json
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import httpx2
import psutil  # type: ignore[import-untyped]
import pytest
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client

from agent_server.db import Database, new_id, now
from agent_server.identity.credentials import issue_key, somebody_can_sign_in
from agent_server.testing import Call, Say, ScriptedOpenAI, Step, copy_database, scripted_openai
from tests.commands import PATIENCE, Serving, agent_server, serving
from tests.conftest import ROOT, everything

SMALL = Path(__file__).parent / "other_workspace"
NOWHERE = "postgresql://someone:opens-everything-0123456789@127.0.0.1:1/nothing"


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    with copy_database(postgres) as url:
        yield url


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small workspace of this test's own."""
    return shutil.copytree(SMALL, tmp_path / "small", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """The reference workspace, where the server may write its key."""
    for folder in ("tools", "prompts", "content", "migrations"):
        shutil.copytree(ROOT / folder, tmp_path / "reference" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "reference"


def until(what: Callable[[], Any]) -> Any:
    """The first true value of `what`, asked for again and again: another process has no event to wait for."""
    give_up = time.monotonic() + PATIENCE
    while not (value := _attempted(what)):
        assert time.monotonic() < give_up, f"still {value!r}"
        time.sleep(0.1)
    return value


def _attempted(what: Callable[[], Any]) -> Any:
    try:
        return what()
    except httpx.TransportError:  # it is just starting again
        return None


def runs_on_uvloop(pid: int) -> bool:
    """Whether a process has loaded uvloop's event loop; on Linux that can be seen from outside."""
    return sys.platform != "linux" or "uvloop" in Path(f"/proc/{pid}/maps").read_text()


def children_of(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


async def chunks(url: str) -> set[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return {tuple(row) for row in await connection.fetch("select id, document_id, passage from chunk")}
    finally:
        await connection.close()


def test_a_server_says_where_it_is_and_a_second_start_has_nothing_left_to_do(small: Path, empty: str) -> None:
    with serving(small, empty) as server:
        said = "".join(server.written)
        page = str(server.http.base_url)
        assert f"Page    {page}\n" in said
        assert f"API     {page}/docs\n" in said
        assert "no model key is set: answers are quoted from content/" in said
        assert "<title>" in server.http.get("/").text
        entry = json.loads(server.written[-1])["mcpServers"]["agent-server"]
        assert entry["url"] in said
        assert {"report_bug", "search_knowledge"} <= asyncio.run(_mcp_tools(entry))
        ingested = asyncio.run(chunks(empty))
        assert len({document for _, document, _ in ingested}) == len([*(small / "content").rglob("*.md*")])
        assert runs_on_uvloop(server.process.pid)
        key = server.http.headers["Authorization"]
        assert (small / ".data" / "local-key").stat().st_mode & 0o077 == 0
        assert server.end() == 130
    (small / ".data" / "local-key").chmod(0o644)  # as a version of before may have left it
    with serving(small, empty) as server:
        assert server.http.headers["Authorization"] == key
        assert (small / ".data" / "local-key").stat().st_mode & 0o777 == 0o600
        assert asyncio.run(chunks(empty)) == ingested
        assert "Traceback" not in "".join(server.written)


async def _mcp_tools(entry: dict[str, Any]) -> set[str]:
    async with (
        httpx2.AsyncClient(headers=entry["headers"]) as http,
        McpClient(streamable_http_client(entry["url"], http_client=http)) as mcp,
    ):
        return {tool.name for tool in (await mcp.list_tools()).tools}


@pytest.fixture
async def held() -> AsyncIterator[ScriptedOpenAI]:
    """A model that adds a task, begins to answer and then says no more; the next time it is asked, it answers."""
    script: list[Step] = [
        Call("create_task", {"title": "Service the regulator"}),
        Say("It is being added", hold=(2, asyncio.Event())),
        Say("It is on your list."),
    ]
    async with scripted_openai(script) as model:
        yield model


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
async def test_a_server_that_ends_in_mid_answer_is_taken_up_where_it_was_by_the_next(
    ended_by: signal.Signals, reference: Path, stocked_url: str, held: ScriptedOpenAI
) -> None:
    variables = {"OPENAI_BASE_URL": held.url, "AGENT_SERVER_MODEL": "scripted"}

    def begin() -> tuple[str, str]:
        with serving(reference, stocked_url, **variables) as server:
            body = {"message": "Remind me to service the regulator", "agent": "tasks"}
            with server.http.stream("POST", "/api/chat", json=body) as response:
                for line in response.iter_lines():
                    if '"It' in line:
                        break
                assert server.end(ended_by) == (130 if ended_by == signal.SIGINT else -signal.SIGKILL)
            return response.headers["X-Turn-Id"], response.headers["X-Conversation-Id"]

    def go_on(turn: str, conversation: str) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
        with serving(reference, stocked_url, **variables) as server:
            finished = until(lambda: _finished(server, turn))
            messages = server.get(f"/api/conversations/{conversation}/messages")["items"]
            return finished, messages, server.call("list_tasks")["items"]

    turn, conversation = await asyncio.to_thread(begin)
    finished, messages, tasks = await asyncio.to_thread(go_on, turn, conversation)
    assert finished["status"] == "done"
    assert [(message["role"], message["text"]) for message in messages] == [
        ("user", "Remind me to service the regulator"),
        ("assistant", "It is on your list."),
    ]
    assert [task["title"] for task in tasks] == ["Service the regulator"]
    assert len(held.requests) == 3, "the call that had been made was made again"


def _finished(server: Serving, turn: str) -> dict[str, Any] | None:
    state: dict[str, Any] = server.get(f"/api/turns/{turn}")
    return None if state["status"] in ("queued", "running") else state


def test_with_reload_a_toolset_is_served_as_it_stands_now(small: Path, empty: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = small / "toolsets.yaml"
    with serving(small, empty, "--reload", "--port", str(port)) as server:

        def list_set(name: str) -> set[str] | None:
            """The tools of a toolset. None where there is no such set."""
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            headers = {"Accept": "application/json", "MCP-Protocol-Version": "2025-11-25"}
            answer = server.http.post(f"/mcp/{name}", json=body, headers=headers)
            return {tool["name"] for tool in answer.json()["result"]["tools"]} if answer.is_success else None

        assert list_set("reading") is None
        file.write_text("reading: {effect: read}\n")
        server.wait_for("Changed: toolsets.yaml. Starting again.")
        server.wait_for("Ready again")
        reading = list_set("reading")
        assert reading
        assert "report_bug" not in reading
        file.write_text("reading: {tools: [nothing]}\n")
        server.wait_for("toolsets.yaml:1: reading: there is no tool 'nothing'")
        file.write_text("reporting: {tools: [report_bug]}\n")
        server.wait_for("Ready again")
        assert (list_set("reading"), list_set("reporting")) == (None, {"report_bug"})


def test_with_reload_an_edit_is_live_and_a_mistake_waits_to_be_corrected(small: Path, empty: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with serving(small, empty, "--reload", "--port", str(port)) as server:
        prompt, module = small / "prompts" / "docs.md", small / "tools" / "bugs.py"
        (small / "content" / "guides" / "windows.md").write_text(
            "# Windows\n\nOn Windows a worker is started by the Task Scheduler as `kestrel-agent.exe`.\n"
        )
        prompt.write_text(prompt.read_text().replace("name: docs", "name: manual"))
        prompt.rename(prompt.with_name("manual.md"))
        module.write_text(
            module.read_text()
            + '\n\n@tool(scope="bugs:read", effect="read")\n'
            + "async def count_bugs(context: ToolContext) -> int:\n"
            + '    """Count the bugs that the user reported."""\n'
            + "    return len((await context.repository(BugRepository).page(50, None)).items)\n"
        )
        until(lambda: "count_bugs" in {tool["name"] for tool in server.get("/api/tools")})
        assert server.call("count_bugs") == 0
        answer = until(lambda: server.ask("How is a worker started on Windows?"))
        assert answer["agent"] == "manual"
        assert answer["sources"][0]["document"] == "guides/windows.md"

        good = module.read_text()
        module.write_text(good.replace("async def count_bugs(", "async def count_bugs)("))
        line = good[: good.index("async def count_bugs")].count("\n") + 1
        server.wait_for("Changed: tools/bugs.py. Starting again.")
        server.wait_for(f"tools/bugs.py:{line}: does not import: SyntaxError")
        server.wait_for("Waiting for a change")
        module.write_text(good.replace("count_bugs", "number_of_bugs"))
        server.wait_for("Ready again")
        assert "number_of_bugs" in {tool["name"] for tool in server.get("/api/tools")}

        assert any(map(runs_on_uvloop, children_of(server.process.pid)))
        begin, manual = len(server.written), prompt.with_name("manual.md")
        text = manual.read_text().replace("name: manual", "name: handbook")
        manual.write_text(text)
        server.wait_for("Changed: prompts/manual.md. Reading it.")
        line = text[: text.index("name:")].count("\n") + 1
        server.wait_for(f"prompts/manual.md:{line}: name: is 'handbook', the file is manual.md; make them the same")
        server.wait_for("The version before goes on")
        assert server.ask("How is a worker started on Windows?")["agent"] == "manual"
        (small / "content" / "guides" / "rust.md").write_text(
            "# Rust\n\nKestrel's bindings for Rust are called `hovering`.\n"
        )
        server.wait_for("Changed: content/guides/rust.md. Reading it.")
        server.wait_for("The version before goes on")
        # The page is read with the first version that has no mistake, though only a prompt changes then.
        manual.rename(prompt.with_name("handbook.md"))
        server.wait_for("Read. ")
        answer = server.ask("What are the bindings for Rust called?")
        assert answer["agent"] == "handbook"
        assert answer["sources"][0]["document"] == "guides/rust.md"
        # What a prompt is made of beside its file: a part, and a JSON Schema that its `output` names.
        handbook, tone = small / "prompts" / "handbook.md", small / "prompts" / "parts" / "tone.md"
        tone.parent.mkdir()
        tone.write_text("Be kind.\n")
        handbook.write_text(handbook.read_text() + "{% include 'parts/tone.md' %}\n")
        server.wait_for("prompts/handbook.md")
        server.wait_for("Read. ")
        told = until(lambda: server.ask("How is a worker started on Windows?"))["prompt_sha"]
        tone.write_text("Be short.\n")
        server.wait_for("Changed: prompts/parts/tone.md. Reading it.")
        server.wait_for("Read. ")
        assert server.ask("How is a worker started on Windows?")["prompt_sha"] != told
        shape = small / "prompts" / "shapes" / "answer.json"
        shape.parent.mkdir()
        shape.write_text('{"type": "object"')
        handbook.write_text(
            handbook.read_text().replace("name: handbook", "name: handbook\noutput: shapes/answer.json")
        )
        server.wait_for("prompts/shapes/answer.json:1: is not JSON")
        shape.write_text('{"type": "object"}')
        server.wait_for("Changed: prompts/shapes/answer.json. Reading it.")
        server.wait_for("Read. ")
        assert "Ready again" not in "".join(server.written[begin:])


def test_what_must_be_there_to_serve_is_asked_for_by_name(tmp_path: Path) -> None:
    (tmp_path / "content").mkdir()
    down = agent_server("serve", cwd=tmp_path, DATABASE_URL=NOWHERE)
    assert down.returncode == 1
    assert "unavailable: The database at 127.0.0.1:1/nothing does not answer" in down.stderr
    assert "Traceback" not in down.stderr
    assert "opens-everything" not in down.stdout + down.stderr
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        taken = agent_server("serve", "--port", port, cwd=tmp_path, DATABASE_URL=NOWHERE)
    assert taken.returncode == 1
    assert taken.stderr == (
        f"invalid_input: port: {port} of 127.0.0.1 is taken by another program; stop that one, or choose another, as in "
        f"`agent-server serve --port {int(port) + 1}`\n"
    )
    both = agent_server("serve", "--workers", "2", "--reload", cwd=tmp_path, DATABASE_URL=NOWHERE)
    assert both.returncode == 1
    assert both.stderr == "invalid_input: workers: --reload serves with one process; leave out --workers or --reload\n"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "myhost", ""])
def test_a_server_that_others_could_reach_says_in_order_what_to_set_first(tmp_path: Path, host: str) -> None:
    (tmp_path / "content").mkdir()
    wide = agent_server("serve", "--host", host, cwd=tmp_path, DATABASE_URL=NOWHERE)
    assert wide.returncode == 1
    assert wide.stderr.startswith(f"invalid_input: host: {host} is reachable from other machines")
    steps = (
        *("1. set AGENT_SERVER_ENVIRONMENT=production", "2. set AGENT_SERVER_ALLOWED_HOSTS", "AGENT_SERVER_PUBLIC_URL"),
        *("3. make a key with `agent-server key create`", "AGENT_SERVER_ISSUERS"),
    )
    found = [wide.stderr.find(step) for step in steps]
    assert -1 not in found
    assert found == sorted(found)
    assert wide.stderr.endswith("Or listen on 127.0.0.1\n")


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({"AGENT_SERVER_ENVIRONMENT": "staging"}, "1. set AGENT_SERVER_ALLOWED_HOSTS"),
        ({"AGENT_SERVER_PUBLIC_URL": "https://agents.example"}, "1. set AGENT_SERVER_ENVIRONMENT=production"),
        ({"AGENT_SERVER_ALLOWED_HOSTS": '["agents.example"]'}, "1. set AGENT_SERVER_ENVIRONMENT=production"),
    ],
)
def test_what_is_set_already_is_not_asked_for(tmp_path: Path, variables: dict[str, str], missing: str) -> None:
    (tmp_path / "content").mkdir()
    wide = agent_server("serve", "--host", "0.0.0.0", cwd=tmp_path, DATABASE_URL=NOWHERE, **variables)
    assert wide.returncode == 1
    assert missing in wide.stderr
    assert "2. make a key" in wide.stderr
    assert "3." not in wide.stderr


def test_a_server_is_opened_to_others_when_somebody_can_sign_in(small: Path, empty: str) -> None:
    variables = {"AGENT_SERVER_ENVIRONMENT": "test", "AGENT_SERVER_PUBLIC_URL": "https://agents.example"}
    arguments = ("--host", "0.0.0.0", "--workers", "2")
    refused = agent_server("serve", *arguments, "--port", "0", cwd=small, DATABASE_URL=empty, **variables)
    assert refused.returncode == 1
    assert "In this order: 1. make a key with `agent-server key create`" in refused.stderr
    assert "2. " not in refused.stderr
    agent_server("key", "create", cwd=small, DATABASE_URL=empty, **variables)
    with serving(small, empty, *arguments, **variables) as server:
        assert server.http.get("/api/page").status_code == 200
        assert server.http.get("/api/page", headers={"Host": "agents.example"}).status_code == 200
        assert server.http.get("/api/page", headers={"Host": "evil.example"}).status_code == 421


async def test_a_key_counts_while_it_works_and_the_local_users_own_does_not(database: Database) -> None:
    owner, past = new_id(), now() - timedelta(seconds=1)
    assert not await somebody_can_sign_in(database)
    async with everything(database) as session:
        await issue_key(session, owner, name="local", scopes=["*"])
        await issue_key(session, owner, name="expired", scopes=["*"], expires_at=past)
        revoked = await issue_key(session, owner, name="revoked", scopes=["*"])
        revoked.row.revoked_at = past
    assert not await somebody_can_sign_in(database)
    async with everything(database) as session:
        await issue_key(session, owner, name="works", scopes=[], expires_at=now() + timedelta(days=1))
    assert await somebody_can_sign_in(database)


async def test_a_server_is_asked_for_the_name_of_its_model_after_the_start(small: Path, empty: str) -> None:
    def name(server: Serving) -> str:
        return str(server.get("/health")["model"]["name"])

    def walk(url: str, port: int) -> None:
        with serving(small, empty, OPENAI_BASE_URL=url) as server:
            # it is away, which delays nothing
            assert "  Model   not known yet: the first model that OPENAI_BASE_URL lists\n" in server.written
            server.wait_for("  Model   not known yet. The server at OPENAI_BASE_URL does not list its models")
            assert name(server) == "not known yet: the first model that OPENAI_BASE_URL lists"
            asyncio.run_coroutine_threadsafe(there(port), loop).result()
            assert server.wait_for("  Model   openai/").endswith("openai/llama-of-one's-own\n")
            assert name(server) == "openai/llama-of-one's-own"

    served: list[Any] = []

    async def there(port: int) -> None:
        served.append(await asyncio.start_server(answer, "127.0.0.1", port))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"object": "list", "data": [{"id": "llama-of-one's-own", "object": "model"}]})
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    await asyncio.to_thread(walk, f"http://127.0.0.1:{port}/v1", port)
    for each in served:
        each.close()
