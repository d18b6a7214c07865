"""The blocks of the README, and the tools of docs/tools.md, run as they stand."""

import asyncio
import importlib.util
import json
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent_server.caller import Caller
from agent_server.db import Database
from agent_server.errors import AgentServerError
from agent_server.testing import copy_database
from agent_server.testing.serving import serving
from agent_server.turns.attempt import Attempt
from agent_server.turns.calls import CallLedger
from tests.commands import agent_server
from tests.conftest import ROOT
from tests.server import Start
from tests.turns.ledger import call, never, replica

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


async def run(*words: str, cwd: Path = ROOT, stdin: str | None = None, **variables: str) -> tuple[int, str]:
    """Run `agent-server` with these arguments; its exit code and what it printed."""
    done = await asyncio.to_thread(agent_server, *words, cwd=cwd, stdin=stdin, **variables)
    return done.returncode, done.stdout + done.stderr


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("make ")]
    assert commands == ["make serve", "make test"]
    assert {command.split()[1] for command in commands} <= targets


async def test_the_question_over_http_is_answered_with_a_citation(start: Start) -> None:
    (block,) = [block for block in blocks("sh") if "curl" in block]
    async with start() as client:
        base = str(client.http.base_url).rstrip("/")
        command = block.replace("\\\n", " ").replace("http://127.0.0.1:8000", base)
        curl = await asyncio.create_subprocess_exec(*shlex.split(command), stdout=asyncio.subprocess.PIPE)
        out, _ = await curl.communicate()
    assert curl.returncode == 0
    answer = json.loads(out)
    assert "12 hours" in answer["text"]
    assert answer["sources"]


async def test_the_commands_do_what_they_say(stocked_url: str) -> None:
    (block,) = [block for block in blocks("sh") if "agent-server" in block]
    outputs = []
    for line in block.splitlines():
        words = shlex.split(line)
        assert words[0] == ".venv/bin/agent-server"
        code, out = await run(*words[1:], DATABASE_URL=stocked_url)
        assert code == 0, out
        outputs.append(out)
    chat, created, listed, found, routed = outputs
    assert re.search(r"\[[1-5]\]", chat)
    assert json.loads(created)["title"] == "Service the regulator"
    assert [task["title"] for task in json.loads(listed)["items"]] == ["Service the regulator"]
    assert "safety/" in found
    assert routed.startswith("safety")


async def test_the_tool_of_the_readme_is_a_tool(tmp_path: Path, stocked_url: str) -> None:
    (block,) = blocks("python")
    for name in ("tools", "prompts", "content", "migrations"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "tools" / "todo" / "count.py").write_text(block)
    code, out = await run("tool", "call", "count_tasks", cwd=tmp_path, DATABASE_URL=stocked_url)
    assert (code, out.strip().splitlines()[-1]) == (0, "0"), out


def test_the_files_it_names_are_there() -> None:
    for path in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize(
    "folder", ["agent_server", "tools", "prompts", "content", "migrations", "docs", "tests", "bench"]
)
def test_the_folders_it_shows_are_there(folder: str) -> None:
    assert f"{folder}/" in README
    assert (ROOT / folder).is_dir()


TOOL_FILE = re.compile(r"^`(tools/[^`\n]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def bookshop(tmp_path: Path) -> Path:
    """The workspace of docs/tools.md."""
    for name, text in TOOL_FILE.findall((ROOT / "docs" / "tools.md").read_text()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


class Outside:
    """The payment service and the printer that the tools of docs/tools.md call."""

    def __init__(self) -> None:
        self.refunds: dict[str, dict[str, Any]] = {}
        self.jobs: list[str] = []
        self.bells = 0
        self.forgetful = False

    async def refund(self, request: Request) -> Response:
        refund = {"id": f"re_{len(self.refunds)}", "pence": (await request.json())["pence"]}
        if refund["pence"] > 1000:
            return Response(status_code=422)
        return JSONResponse(self.refunds.setdefault(request.headers["Idempotency-Key"], refund))

    async def print(self, request: Request) -> Response:
        self.jobs.append((await request.json())["name"])
        return Response(status_code=201)

    async def find(self, request: Request) -> Response:
        if self.forgetful:
            return Response(status_code=410)
        return JSONResponse([name for name in self.jobs if name == request.query_params["name"]])

    async def ring(self, _: Request) -> Response:
        self.bells += 1
        return Response(status_code=204)


@asynccontextmanager
async def outside() -> AsyncIterator[tuple[Outside, str]]:
    there = Outside()
    routes = [
        Route("/refunds", there.refund, methods=["POST"]),
        Route("/jobs", there.print, methods=["POST"]),
        Route("/jobs", there.find, methods=["GET"]),
        Route("/bell", there.ring, methods=["POST"]),
    ]
    async with serving(Starlette(routes=routes)) as base:
        yield there, base


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    with copy_database(postgres) as url:
        yield url


async def test_a_tool_of_each_effect_does_what_the_documentation_says(bookshop: Path, empty: str) -> None:
    async def called(*words: str) -> tuple[int, str]:
        variables = {"DATABASE_URL": empty, "PAYMENTS_URL": base, "PRINTER_URL": base}
        code, out = await run("tool", "call", *words, cwd=bookshop, **variables)
        return code, out.strip().splitlines()[-1]

    async with outside() as (there, base):
        assert await called("get_book", "--title", "frankenstein") == (
            0,
            '{"isbn": "9780141439471", "title": "Frankenstein", "pence": 799}',
        )
        code, wish = await called("add_wish", "--title", "huckleberry")
        assert (code, json.loads(wish)["book"]["pence"]) == (0, 450)
        asked = "Show my wishes\nHow much is Frankenstein?\nShow me the prices\n"
        code, said = await run("chat", cwd=bookshop, stdin=asked, DATABASE_URL=empty)
        assert code == 0
        assert "- Huckleberry Finn (**under five pounds**)" in said
        assert "**Frankenstein** costs 799 pence." in said
        assert "| Title | Price (GBP) |" in said and "| Frankenstein | 7.99 |" in said
        refund = ("refund_order", "--order", "AB-123456", "--pence")
        assert await called(*refund, "450") == (0, '{"id": "re_0", "pence": 450}')
        assert (await called(*refund, "4500"))[0] == 1
        assert await called("print_label", "--order", "AB-123456") == (0, '{"order": "AB-123456"}')
        assert (await called("ring_bell"))[0] == 0
    assert (len(there.refunds), len(there.jobs), there.bells) == (1, 1, 1)


@pytest.mark.parametrize("became", ["printed", "not printed", "forgotten"])
async def test_the_printer_of_the_documentation_is_asked_what_became_of_a_label(
    bookshop: Path, database: Database, me: Caller, monkeypatch: pytest.MonkeyPatch, became: str
) -> None:
    async with outside() as (there, base), replica(database, never) as here:
        monkeypatch.setenv("PRINTER_URL", base)
        spec = importlib.util.spec_from_file_location("documented_orders", bookshop / "tools" / "orders.py")
        assert spec is not None
        assert spec.loader is not None
        orders = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, orders)
        spec.loader.exec_module(orders)
        turn = await here.send(me)
        writer = await here.writer(turn)
        cut_off = CallLedger(writer=writer, call_id="call_1", name="print_label", effect="once", args_sha=b"")
        await cut_off.start()
        if became == "printed":
            there.jobs.append(cut_off.idempotency_key)
        there.forgetful = became == "forgotten"
        attempt = Attempt(writer=await here.writer(turn), caller=me, message="", agent=None, number=2)
        if became == "forgotten":
            with pytest.raises(AgentServerError, match="Do not call print_label again"):
                await call(database, attempt, orders.print_label, order="AB-123456")
            assert there.jobs == []
        else:
            assert await call(database, attempt, orders.print_label, order="AB-123456") == {"order": "AB-123456"}
            assert there.jobs == [cut_off.idempotency_key]
