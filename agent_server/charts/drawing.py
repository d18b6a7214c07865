"""Pictures of charts, each drawn by a process of its own with little time and memory.

The library of the extra `charts` runs Vega-Lite in a JavaScript engine. What a specification makes it do can end that process
only. Few are drawn at a time, and those that were asked for last are kept.
"""

import asyncio
import hashlib
import importlib.util
import json
import os
import sys
import xml.etree.ElementTree as ET  # of what our own child has drawn, and without a document type
from collections import OrderedDict
from pathlib import Path

import structlog

from agent_server.charts.chart import Chart
from agent_server.charts.looks import Look, lay_out

log = structlog.get_logger()

INSTALL = "Pictures of charts need the extra: pip install 'agent-server[charts]'"
_SECONDS, _SECONDS_OF_CPU = 60, 10
"""A chart of a thousand bars takes two of the latter; the former is for a machine with much else to do."""
_MEMORY = 2**30
_PIXELS = 4_000_000
_LARGEST = 1_000_000
"""Bytes of a picture."""
_AT_ONCE = 2
_KEPT = 16_000_000
"""Bytes of all pictures that are kept."""
_TAGS = frozenset(
    {
        "svg",
        "g",
        "path",
        "rect",
        "line",
        "text",
        "tspan",
        "circle",
        "title",
        "desc",
        "defs",
        "clipPath",
        "linearGradient",
        "stop",
    }
)


class CannotDraw(Exception):
    """A chart of which there is no picture. Its table is shown; the message is for whoever looks for the picture."""


class Drawings:
    """Draws charts for a process, and keeps the pictures that were asked for last."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    async def draw(self, chart: Chart, look: Look) -> bytes:
        """The picture. It is the same for the same chart each time. Raises CannotDraw."""
        if importlib.util.find_spec("vl_convert") is None:
            raise CannotDraw(INSTALL)
        job = json.dumps(
            {
                "spec": lay_out(chart, look),
                "form": look.form,
                "pixels": _PIXELS,
                "memory": _MEMORY,
                "seconds": _SECONDS_OF_CPU,
            }
        ).encode()
        key = hashlib.sha256(job).hexdigest()
        if (picture := self._kept.get(key)) is None:
            async with self._places:
                picture = self._kept.get(key) or await run_job(job)
            if look.form == "svg":
                _check_svg(picture)
        self._keep(key, picture)
        return picture

    def _keep(self, key: str, picture: bytes) -> None:
        self._kept[key] = picture
        self._kept.move_to_end(key)
        while sum(map(len, self._kept.values())) > _KEPT:
            self._kept.popitem(last=False)


async def run_job(job: bytes) -> bytes:
    """What a child makes of a job. Raises CannotDraw."""
    # Nothing of the server's environment, which holds its secrets. Windows starts no process without its root.
    environment = {"TZ": "UTC", **{name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(Path(__file__).with_name("child.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        picture, errors = await asyncio.wait_for(process.communicate(job), _SECONDS)
    except TimeoutError:
        raise CannotDraw(f"The chart was not drawn within {_SECONDS} seconds") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0 or not 0 < len(picture) <= _LARGEST:
        log.warning(
            "chart.failed", code=process.returncode, bytes=len(picture), error=errors.decode(errors="replace")[-300:]
        )
        raise CannotDraw("The chart could not be drawn")
    return picture


def _check_svg(picture: bytes) -> None:
    """Raise CannotDraw for a picture that is more than shapes and texts, which a client may put into a page of its own."""
    if b"<!" in picture:
        raise CannotDraw("The chart could not be drawn")
    try:
        drawn = ET.fromstring(picture)  # noqa: S314  # as above: no entities without a document type
    except ET.ParseError as error:
        log.warning("chart.unsafe", error=str(error))
        raise CannotDraw("The chart could not be drawn") from error
    for element in drawn.iter():
        tag = element.tag.rpartition("}")[2]
        names = [name.rpartition("}")[2].lower() for name in element.attrib]
        if tag not in _TAGS or any(name.startswith("on") or name in ("href", "style", "src") for name in names):
            log.warning("chart.unsafe", tag=tag, attributes=names)
            raise CannotDraw("The chart could not be drawn")
