"""How long a provider asks to wait."""

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SPAN = r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|s|m|h)){1,4}"
_IN_BODY = re.compile(
    rf"retry_?delay\W{{1,6}}({_SPAN})"  # Gemini's RetryInfo (google.rpc)
    rf"|(?:try again|retry) (?:in|after) ({_SPAN}|\d{{1,9}}(?:\.\d{{1,9}})? ?seconds?)",  # OpenAI and Groq, in words
    re.IGNORECASE,
)
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?(ms|s|m|h)", re.IGNORECASE)


def read_pause(headers: Mapping[str, Any], body: str) -> float | None:
    """Seconds to wait before a request is made again. None where nothing was said of it.

    `headers` are by their names in lower case. `Retry-After` is seconds or a date (RFC 9110, 10.2.3); OpenAI and Azure
    also send milliseconds, and some providers say it in the body alone.
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    after = str(headers.get("retry-after", "")).strip()
    if (seconds := _number(after)) is not None:
        return seconds
    if after and (until := _read_date(after)) is not None:
        return max(until - time.time(), 0.0)
    found = _IN_BODY.search(body)
    span = (found[1] or found[2]) if found else after
    parts = _PART.findall(span)
    return sum(float(amount) * _UNITS[unit.lower()] for amount, unit in parts) if parts else None


def _number(text: Any) -> float | None:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _read_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
