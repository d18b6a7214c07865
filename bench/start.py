"""What it costs to start: a server, its first turn, a command, and a server that reloads after a prompt was saved."""

import asyncio
import shutil
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

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


async def measure_reload(stage: Stage, *, times: int, tell: Tell) -> list[Figure]:
    """How long after a prompt was saved `serve --reload` answers by it, and what that takes of the processor.

    The time is that from the saving to the end of the first turn whose model was told the new text, less an ordinary
    turn. No process starts for it: RuntimeError where one does."""
    workspace = stage.folder / "reloaded"
    shutil.copytree(WORKSPACE, workspace, ignore=shutil.ignore_patterns("__pycache__"))
    if not stage.forked:  # then it is a matter of whether it works, and pages take a while to read
        shutil.copytree(ROOT / "content", workspace / "content")
    took, waited, ordinary = [], [], []
    async with stage.ours("--reload", workspace=workspace, AGENT_SERVER_ENVIRONMENT="development") as server:
        started, processes = server.cpu(), server.processes()
        await _ask_until(stage, server, "")
        for number in range(times):
            tell(f"change {number + 1} of {times}")
            began, before = time.monotonic(), server.cpu()
            await _ask_until(stage, server, "")
            ordinary.append((time.monotonic() - began, server.cpu() - before))
            began, before = time.monotonic(), server.cpu()
            _save(workspace, number)
            await _ask_until(stage, server, _sentence(number))
            waited.append(time.monotonic() - began)
            took.append(server.cpu() - before)
        if server.processes() != processes:
            raise RuntimeError("A process started for a saved prompt")
    turn, turn_cpu = (median(each) for each in zip(*ordinary, strict=True))
    what = "from a saved prompt until an answer by it, less a turn"
    return [
        Figure("reload", f"`--reload`, {what}", median(waited) - turn, "s", "an ordinary turn", turn),
        Figure("reload", "the same, with the turns asked meanwhile", median(took), "CPU s", "its start", started),
        Figure("reload", "an ordinary turn", turn_cpu, "CPU s", "nothing"),
    ]


def _sentence(number: int) -> str:
    return f"This is version {number} of the prompt."


def _save(workspace: Path, number: int) -> None:
    prompt = (WORKSPACE / "prompts" / "docs.md").read_text()
    (workspace / "prompts" / "docs.md").write_text(f"{prompt}\n{_sentence(number)}\n")


async def _ask_until(stage: Stage, server: Process, told: str) -> None:
    """Ask until the model was told a sentence. Raises TimeoutError."""
    async with asyncio.timeout(RELOAD_SECONDS):
        while True:
            load = await ask(server.address, server.keys, clients=1, turns=1)
            if load.errors:
                raise RuntimeError(f"A turn failed: {load.errors}")
            if told in stage.script.instructions:
                return
