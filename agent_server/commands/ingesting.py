"""agent-server content ingest"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import TypeVar

import structlog
import typer

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import fail, say, show
from agent_server.db import Database
from agent_server.errors import AgentServerError, InvalidInput, Mistake
from agent_server.knowledge import ingest as ingestion
from agent_server.knowledge.embedders import open_embedder
from agent_server.knowledge.embedders.base import Embedder

log = structlog.get_logger()

SECONDS_BETWEEN_LINES = 5

_Result = TypeVar("_Result")
_Progress = Callable[[ingestion.Progress], None]


async def ingest_with_progress(
    database: Database,
    embedder: Embedder,
    content: Path,
    *,
    without: Collection[str] = (),
    later: Callable[[], Awaitable[object]] | None = None,
) -> ingestion.IngestReport:
    """Ingest with a bar where standard error is a terminal, and with lines in the log elsewhere."""
    return await _show_progress(
        "Ingesting",
        lambda progress: ingestion.ingest(database, embedder, content, without=without, progress=progress, later=later),
    )


async def _show_progress(doing: str, run: Callable[[_Progress], Awaitable[_Result]]) -> _Result:
    if not sys.stderr.isatty():
        return await run(_LogProgress())
    from rich import progress as bars  # noqa: PLC0415  # heavy
    from rich.console import Console  # noqa: PLC0415  # heavy

    console = Console(stderr=True)
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[rate]}"),
        bars.TimeRemainingColumn(),
    )
    # On standard error, because standard output is for the result; no bar in a log file or a pipe.
    with bars.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Reading content/", total=None, rate="")
        started = time.monotonic()

        def advance(at: ingestion.Progress) -> None:
            rate = _show_rate(at, time.monotonic() - started)
            bar.update(task, completed=at.done, total=at.total, description=f"{doing} {at.document}", rate=rate)

        return await run(advance)


class _LogProgress:
    """Writes how far an ingest is, every few seconds."""

    def __init__(self) -> None:
        self._started = self._told = time.monotonic()

    def __call__(self, at: ingestion.Progress) -> None:
        now = time.monotonic()
        if now - self._told < SECONDS_BETWEEN_LINES or at.done == at.total:
            return
        self._told, seconds = now, now - self._started
        left = round(seconds / at.done * (at.total - at.done)) if at.done else None
        log.info("content.progress", done=at.done, total=at.total, rate=_show_rate(at, seconds), seconds_left=left)


def _show_rate(at: ingestion.Progress, seconds: float) -> str:
    return f"{at.done / seconds:.0f} files/s" if at.done and seconds > 0 else ""


async def ingest(
    context: CommandContext,
    as_json: bool,
    watch: bool = False,
    source: Path | None = None,
    collection: str | None = None,
    allow_private: bool = False,
) -> int:
    """Bring the index up to date, after what `source` has was taken into content/.

    With `watch` it does so again at every change, until the command is stopped.
    """
    if source is None and (collection is not None or allow_private):
        raise typer.BadParameter("--collection and --allow-private go with a folder or a list of addresses")
    watched = _prepare(context.content, source)
    if not watch:
        return await _ingest_once(context, as_json, source, collection, allow_private)
    from watchfiles import awatch  # noqa: PLC0415  # heavy

    # It watches before it ingests: what changes meanwhile is not missed.
    changes = awatch(watched, recursive=True, rust_timeout=250, yield_on_timeout=True)
    await anext(changes)
    await _ingest_or_tell(context, as_json, source, collection, allow_private)
    fail("Waiting for a change.")
    async for changed in changes:
        if changed:
            await _ingest_or_tell(context, as_json, source, collection, allow_private)
    return 0


def _prepare(content: Path, source: Path | None) -> Path:
    """What is watched for changes. Raises InvalidInput for a source that cannot be one."""
    content.mkdir(exist_ok=True)
    if source is None:
        return content
    if not source.exists():
        raise InvalidInput(f"{source}: there is no such folder, and no such list of addresses")
    if source.is_dir() and source.resolve() != content.resolve() and content.resolve().is_relative_to(source.resolve()):
        raise InvalidInput(f"{source}: content/ is in it; name a folder beside content/")
    return source


async def _ingest_or_tell(
    context: CommandContext, as_json: bool, source: Path | None, collection: str | None, allow_private: bool
) -> None:
    try:
        await _ingest_once(context, as_json, source, collection, allow_private)
    except AgentServerError as error:  # the next change may be its correction
        fail(error.message)
    sys.stdout.flush()


async def _ingest_once(
    context: CommandContext, as_json: bool, source: Path | None, collection: str | None, allow_private: bool
) -> int:
    problems, remarks = await _gather(context.content, source, collection, allow_private) if source else ([], [])
    database, embedder = await context.engine_database(), open_embedder(context.settings)
    report = await ingest_with_progress(database, embedder, context.content, without=context.left_out.collections)
    report.problems, report.remarks = [*problems, *report.problems], [*remarks, *report.remarks]
    if as_json:
        found = {"problems": report.problems, "remarks": report.remarks}
        show({**vars(report), **{name: list(map(vars, mistakes)) for name, mistakes in found.items()}})
    else:
        for problem in report.problems:
            fail(str(problem))
        for remark in report.remarks:
            fail(f"{remark} (a remark)")
        say(
            f"{report.added} added, {report.changed} changed, {report.removed} removed, "
            f"{report.unchanged} unchanged; {report.chunks} passages in {report.seconds:.1f} s"
            + (f"; {report.embedded} embedded anew" if report.embedded else "")
        )
    return 1 if report.problems else 0


async def _gather(
    content: Path, source: Path, collection: str | None, allow_private: bool
) -> tuple[list[Mistake], list[Mistake]]:
    """Take what a folder or the addresses of a list hold into content/. Returns mistakes and remarks."""
    from agent_server.gathering import gather  # noqa: PLC0415  # for this command alone

    is_there, is_folder = await asyncio.to_thread(
        lambda: (source.resolve().is_relative_to(content.resolve()), source.is_dir())
    )
    if is_there:
        return [], []
    target = content / gather.name_collection(source, collection)
    if is_folder:
        gathered = await asyncio.to_thread(gather.gather_folder, source, target)
    else:
        from agent_server.gathering import fetch  # noqa: PLC0415  # heavy

        addresses = fetch.read_addresses(source)
        gathered = await _show_progress(
            "Fetching",
            lambda progress: fetch.fetch_addresses(addresses, target, allow_private=allow_private, progress=progress),
        )
    return gathered.problems, gathered.remarks
