"""Draws one chart, in a process of its own: `python child.py` with a job as JSON on standard input.

    {"spec": {...}, "form": "svg" or "png", "pixels": 4000000, "memory": 1073741824, "seconds": 15}

The picture is written to standard output. This file is run as a script and imports nothing of the engine, so that the process
holds none of its settings. Whatever a specification makes of the library, it ends with this process.
"""

import json
import re
import sys
from typing import Any

_SIZE = re.compile(r'<svg[^>]{0,300} width="([0-9.]{1,20})" height="([0-9.]{1,20})"')
_SCALE = 2
"""Pixels of a PNG for each of the chart's: it is looked at on screens with as many."""


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    _limit(job["memory"], job["seconds"])
    sys.stdout.buffer.write(_draw(job["spec"], job["form"], job["pixels"]))


def _limit(memory: int, seconds: int) -> None:
    if sys.platform != "win32":
        import resource  # noqa: PLC0415  # Windows has none

        # V8 reserves far more addresses than it uses, so what counts is data.
        for limit, most in (
            (resource.RLIMIT_DATA, memory),
            (resource.RLIMIT_CPU, seconds),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(limit, (most, most))


def _draw(spec: dict[str, Any], form: str, pixels: int) -> bytes:
    import vl_convert  # noqa: PLC0415  # after the limits

    # No address is allowed: the library fetches nothing and reads no file.
    svg = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    size = _SIZE.match(svg)
    if size is None or float(size[1]) * float(size[2]) > pixels:
        sys.exit("the chart is larger than a picture may be")
    return vl_convert.svg_to_png(svg, scale=_SCALE) if form == "png" else svg.encode()


if __name__ == "__main__":
    main()
