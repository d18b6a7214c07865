"""What it costs to start: a server, its first turn, a command, and a server that reloads after a prompt was saved."""

import asyncio
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median

import httpx

from bench.clients import ask
from bench.cost import BARE, Tell
from bench.figures import Figure
from bench.stage import ROOT, WORKSPACE, Process, Stage

COMMANDS = {
    "check": ("check",),
    "key create": ("key", "create", "--name", "bench"),
    "content search": ("content", "search", "How long before flying?"),
    "prompt render": ("prompt", "render", "safety"),
    "tool list": ("tool", "list"),
}
RELOAD_SECONDS = 120


async def measure_start(stage: Stage, *, rounds: int, tell: Tell) -> list[Figure]:
    """Processor time up to the first 200, that of the first turn, and memory then; rounds of both servers alternate."""
    starts: dict[str, list[float]] = {"ours": [], "bare": []}
    firsts: dict[str, list[float]] = {"ours": [], "bare": []}
    memory: dict[str, list[float]] = {"ours": [], "bare": []}
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        for name, serve in (("bare", stage.bare), ("ours", stage.ours)):
            async with serve() as server:
                starts[name].append(server.cpu())
                await ask(server.address, server.keys, clients=1, turns=1)
                firsts[name].append((server.cpu() - starts[name][-1]) * 1000)
                memory[name].append(server.memory())
    return [
        Figure("start", "up to the first 200", median(starts["ours"]), "CPU s", BARE, median(starts["bare"])),
        Figure("start", "the first turn", median(firsts["ours"]), "CPU ms", BARE, median(firsts["bare"])),
        Figure("start", "memory after the first turn", median(memory["ours"]), "MiB", BARE, median(memory["bare"])),
    ]


async def measure_commands(stage: Stage, *, rounds: int, tell: Tell) -> list[Figure]:
    """Processor time of commands on the workspace of this repository, its content read beforehand."""
    workspace = {"AGENT_SERVER_WORKSPACE": str(ROOT)}
    async with stage.database("postgres") as connection:
        await connection.execute("create database commands")
    there = replace(stage, url=stage.url_of("commands"))
    tell("reading the content")
    for preparation in (("db", "upgrade"), ("content", "ingest")):
        await asyncio.to_thread(there.run, *preparation, **workspace)
    imported: list[float] = []
    took: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        imported.append((await asyncio.to_thread(there.run_python, "-c", "import agents"))[0])
        for name, words in COMMANDS.items():
            took[name].append((await asyncio.to_thread(there.run, *words, **workspace))[0])
    against, base = "`import agents` of the SDK", median(imported)
    return [Figure("commands", f"`{name}`", median(each), "CPU s", against, base) for name, each in took.items()]


async def measure_reload(stage: Stage, *, rounds: int, tell: Tell) -> list[Figure]:
    """What `serve --reload` spends from a saved prompt until it answers with it."""
    workspace = stage.folder / "reloaded"
    shutil.copytree(WORKSPACE, workspace, ignore=shutil.ignore_patterns("__pycache__"))
    took, waited = [], []
    _save(workspace, 0)
    async with stage.ours("--reload", workspace=workspace, AGENT_SERVER_ENVIRONMENT="development") as server:
        started = server.cpu()
        await _shows(server, "Question 0")
        for number in range(1, rounds + 1):
            tell(f"change {number} of {rounds}")
            await asyncio.sleep(1)
            before, began = server.cpu(), time.monotonic()
            _save(workspace, number)
            await _shows(server, f"Question {number}")
            took.append(server.cpu() - before)
            waited.append(time.monotonic() - began)
    return [
        Figure(
            "reload", "`--reload`, from a saved prompt until it is used", median(took), "CPU s", "its start", started
        ),
        Figure("reload", "the same by the clock", median(waited), "s", "nothing"),
    ]


def _save(workspace: Path, number: int) -> None:
    prompt = (WORKSPACE / "prompts" / "docs.md").read_text()
    (workspace / "prompts" / "docs.md").write_text(
        prompt.replace("knowledge: []", f"knowledge: []\nexamples: [Question {number}]")
    )


async def _shows(server: Process, question: str) -> None:
    """Wait until the page suggests a question. Raises TimeoutError."""
    async with asyncio.timeout(RELOAD_SECONDS), httpx.AsyncClient(timeout=5) as http:
        while True:
            with suppress(httpx.TransportError):
                if question in (await http.get(f"{server.address}/api/page")).text:
                    return
            await asyncio.sleep(0.05)
