"""What a tool asks and tells on a terminal."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from agent_server.calls.confirmations import show_lines, show_plainly
from agent_server.commands.terminal import agree, fail
from agent_server.questions import Inquiry, Reply
from agent_server.tool_context import Level, Listener


def put_inquiry(inquiry: Inquiry) -> Reply:
    """Ask on the terminal. The end of input is no answer."""
    if inquiry.url is not None:
        return Reply(
            "accept" if agree(show_plainly(f"{inquiry.message}: open {inquiry.url} and go on?")) else "decline"
        )
    fail(show_lines(inquiry.message))
    schema = inquiry.schema or {}
    content: dict[str, Any] = {}
    for name, about in schema.get("properties", {}).items():
        try:
            value = _ask_for(name, about, needed=name in schema.get("required", ()))
        except EOFError:
            return Reply("cancel")
        if value is not None:
            content[name] = value
    return Reply("accept", content)


def _ask_for(name: str, about: Mapping[str, Any], *, needed: bool) -> Any:
    """A value that was typed; None for one that is left out. It is asked for again where the form needs it."""
    label = about.get("description") or about.get("title") or name
    choices = about.get("enum") or about.get("items", {}).get("enum")
    kind = "/".join(map(str, choices)) if choices else {"boolean": "y/n"}.get(about["type"], "")
    while True:
        print(f"{label}{f' [{kind}]' if kind else ''}: ", end="", file=sys.stderr, flush=True)  # noqa: T201  # a question
        typed = input().strip()
        if not typed and not needed:
            return None
        value = _read(typed, about["type"])
        if value is not None and (about["type"] != "string" or not choices or value in choices):
            return value
        fail(f"{name}: type {kind or {'string': 'a text'}.get(about['type'], 'a number')}")


def _read(typed: str, kind: str) -> Any:
    match kind:
        case "boolean":
            return {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}.get(typed.lower())
        case "integer" | "number":
            try:
                value = json.loads(typed)
            except ValueError:
                return None
            return value if isinstance(value, int | float) and not isinstance(value, bool) else None
        case "array":
            return [word.strip() for word in typed.split(",") if word.strip()]
    return typed or None


@contextmanager
def show_call(title: str) -> Iterator[Listener]:
    """Show how far a call is: as a bar where standard error is a terminal, as lines elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines(title)
        return
    from rich import progress as bars  # noqa: PLC0415  # heavy
    from rich.console import Console  # noqa: PLC0415  # heavy

    console = Console(stderr=True)
    columns = (bars.TextColumn("{task.description}", markup=False), bars.BarColumn(), bars.TaskProgressColumn())
    with bars.Progress(*columns, console=console, transient=True) as bar:
        yield _Bar(bar, bar.add_task(title, total=None, visible=False), title)


def word_progress(message: str | None, done: float | None, total: float | None) -> str:
    """How far a call is, in a line: `Reading page 3: 3 of 10`."""
    count = "" if done is None else f"{done:g}" + ("" if total is None else f" of {total:g}")
    return ": ".join(part for part in (show_plainly(message or ""), count) if part)


class _Lines:
    def __init__(self, title: str) -> None:
        self._title = title

    async def report_progress(self, done: float, total: float | None, message: str | None) -> None:
        fail(word_progress(message or self._title, done, total))

    async def log(self, level: Level, message: str) -> None:
        if level != "debug":
            fail(show_lines(message))


class _Bar:
    def __init__(self, bar: Any, task: Any, title: str) -> None:
        self._bar, self._task, self._title = bar, task, title

    async def report_progress(self, done: float, total: float | None, message: str | None) -> None:
        self._bar.update(
            self._task, completed=done, total=total, description=show_plainly(message or self._title), visible=True
        )

    async def log(self, level: Level, message: str) -> None:
        if level != "debug":
            self._bar.console.print(show_lines(message), markup=False, highlight=False)
