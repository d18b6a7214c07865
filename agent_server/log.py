"""Log lines on standard error, in which secrets and personal data are masked.

They are for people in development and JSON in production. At INFO people are shown requests, what they can do something
about and little else; at DEBUG all that there is.

A line carries what was bound where the work began: `request_id`, `caller`, `conversation_id`, `tool`, `latency_ms`.

A value is masked for its name (`password`, `x-api-key`, `phone`) or for its shape (a key, a JWT, a card number): in
dicts, pairs, exceptions and text, percent-encoded or not. A person's name in free text has no shape: do not log it.
Whoever makes a request chooses some of what is logged, so every pattern takes time in proportion to the text, and of a
long text only the beginning and the end are logged.
"""

import logging
import re
import sys
import traceback
from collections import deque
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from contextlib import suppress
from itertools import accumulate, islice
from typing import Any, Literal, TextIO
from urllib.parse import quote, unquote

import structlog

# "tokens" and "tokenizer" are no secrets: counts of tokens are what one looks for in a log.
_NAMES = (
    r"pass(?:word|wd|phrase|code)|pwd|secret|token(?!s|i[sz])|(?:api|access|private|signing|encryption|auth)[_-]?key"
    r"|authori[sz]ation|cookie|credential|dsn|database_url"
)
_SECRET_NAME = re.compile(f"(?i){_NAMES}")
_PERSONAL_NAME = re.compile(r"(?i)(?:^|[_.-])(?:e-?mail|phone|telephone|mobile|iban|card_?number)$")
# A value may contain itself, so there has to be an end.
_DEEPEST = 8
_MOST_ITEMS = 200
_LONGEST = 8_000
"""Most characters of one value in a line. What is in the middle of a longer one is left out."""
_LONGEST_SECRET = 200
"""Beyond a cut so much is looked at, since half of a secret has no shape."""
_OF_FORMATTERS = frozenset({"exc_info", "_record", "_from_structlog"})

# Searching all patterns in every value would cost more than all else that a line costs.
_TAME = re.compile(
    r"[a-z]{1,15}(?:[._][a-z]{1,11}){0,4}|[A-Z]{3,7}|[0-9a-f]{32}"
    r"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
)
"""Most values of most lines, which need no search: names of events, tools and surfaces, methods, ids."""

_CARD_LENGTHS = range(13, 20)

_Replacement = str | Callable[[re.Match[str]], str]
_Mask = tuple[Callable[[str], Any], Callable[[_Replacement, str], str], _Replacement]


def _is_card(digits: str) -> bool:
    """Whether they begin as a card number does, are as many and have its check digit (Luhn, ISO/IEC 7812)."""
    return len(digits) in _CARD_LENGTHS and _has_card(digits, [0, len(digits)])


def _has_card(digits: str, bounds: Sequence[int]) -> bool:
    """Whether a card number begins at one of the `bounds` and ends at another."""
    # Two sums from the left, by which of the digits are doubled, give the check sum of any piece by one subtraction.
    even, odd = [0], [0]
    for place, digit in enumerate(map(int, digits)):
        doubled = digit * 2 - 9 * (digit > 4)
        even.append(even[-1] + (digit if place % 2 else doubled))
        odd.append(odd[-1] + (doubled if place % 2 else digit))
    ends = set(bounds)
    for start in bounds[:-1]:
        # The check digit alone lets one number in ten pass, and ids and times in milliseconds are such numbers.
        if digits[start] not in "23456":
            continue
        for length in _CARD_LENGTHS:
            end = start + length
            sums = even if end % 2 == 0 else odd
            if end in ends and (sums[end] - sums[start]) % 10 == 0:
                return True
    return False


def _without_card(run: re.Match[str]) -> str:
    """A card number need not be all of a run of digits: its expiry date may stand beside it."""
    groups = re.findall(r"\d+", run[0])
    return "[card]" if _has_card("".join(groups), [0, *accumulate(map(len, groups))]) else run[0]


def _without_jwt(word: re.Match[str]) -> str:
    *heads, _ = word[0].split(".")
    return "[jwt]" if any(0 <= head.find("eyJ") <= len(head) - 11 for head in heads) else word[0]


def _mask_of(needed: str, pattern: str, replacement: _Replacement) -> _Mask:
    """`pattern` is tried where `needed`, which is found faster, occurs."""
    return re.compile(needed).search, re.compile(pattern).sub, replacement


# All lengths in these patterns are bounded, or a sign must come first: callers choose some of what is logged, and a
# long text made to be slow must not be.
_UPPER_LOWER_DIGIT = r"(?=[\w-]*[A-Z])(?=[\w-]*[a-z])(?=[\w-]*\d)"
_SHAPES = (
    _mask_of(
        "-----BEGIN",
        r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        "[key]",
    ),
    _mask_of("eyJ", r"(?<![\w-])[\w-]+(?:\.[\w-]*)+", _without_jwt),
    _mask_of("as[kg]_", r"(?<![a-z])as[kg]_(?=[a-z_-]{0,40}[\dA-Z])[\w.~-]{12,}", "[key]"),
    _mask_of(
        "[-_]",
        r"(?<![A-Za-z])(?:[spr]k|gsk|whsec|hf|npm|pypi|gh[opsur]|github_pat|glpat|xox[a-z])[-_]"
        r"(?=[a-z_-]{0,60}[A-Z\d])[\w-]{12,}",
        "[key]",
    ),
    _mask_of(
        "AIza|A[KS]IA|ya29|SG",
        r"AIza[\w-]{20,}|A[KS]IA[A-Z\d]{16}|ya29\.[\w-]{10,}|SG\.[\w-]{16,}\.[\w-]{16,}",
        "[key]",
    ),
    # what goes on for so long with upper case, lower case and digits is nobody's word
    _mask_of(r"[\w-]{40}", rf"(?<![\w-]){_UPPER_LOWER_DIGIT}[\w-]{{40,}}", "[secret]"),
    _mask_of("://", r"(?i)\b(postgres(?:ql)?(?:\+\w+)?://[^:/\s@]*):[^\s\"'<>]{0,200}@", r"\1:[secret]@"),
    _mask_of("://", r"(?i)\b([a-z][a-z\d+.-]{1,20}://[^:/\s@]*):[^\s/@]+@", r"\1:[secret]@"),
    _mask_of(
        "@",
        r"(?i)(?:[\w.+!#$&*?^{|}~-]|(?<=\w)'(?=\w)){1,64}@(?:[\w-]{1,63}\.){1,8}(?:xn--[\w-]{2,}|[^\W\d_]{2,})",
        "[email]",
    ),
    _mask_of(r"[A-Z]{2}\d\d", r"\b[A-Z]{2}\d\d(?:[ +-]?[A-Z\d]{4}){2,7}(?:[ +-]?[A-Z\d]{1,4})?\b", "[iban]"),
    _mask_of(r"\d[ +-]{0,2}\d", r"(?<![^\W_])(?<!\d\.)\d(?:[ +-]{0,2}\d){12,}", _without_card),
    _mask_of(r"\+\d", r"(?<![\w-])\+\d(?:[ ().-]{0,3}\d){7,14}\b", "[phone]"),
    _mask_of(r"\d[) -]", r"(?<![\w(.-])(?:\(\d{2,5}\) ?|0\d{1,4}[ -])\d{3,4}[ -]\d{3,4}(?![\w-])", "[phone]"),
)
_NAMED = (
    _mask_of("(?i:bearer)", r"\b((?i:bearer))[\s+:=]++[\w.~+/=-]{8,}", r"\1 [secret]"),
    _mask_of("(?i:basic)", r"\b((?i:basic))[\s+:=]++(?=[\w+/-]{0,200}[A-Z\d=])[\w+/=-]{8,}", r"\1 [secret]"),
    _mask_of(
        "(?i:authori[sz]ation|cookie)",
        r"(?i)((?:authori[sz]ation|cookie)['\"]?\s*[:=]\s*b?)(?:'[^'\n]*'|\"[^\"\n]*\"|[^\s'\"][^\n]*)",
        r"\1[secret]",
    ),
    # name='value', "name": "value", ('name', b'value'), name=value, name: value
    _mask_of(
        f"(?i:{_NAMES})",
        rf"(?i)((?:{_NAMES})(?:['\"]\s*[,:=]\s*b?(?=['\"])|['\"]?(?:=|:\s*)))(?!none\b|null\b|true\b|false\b|\[)"
        r"(?:'[^'\n]*'|\"(?:[^\"\\\n]|\\.)*\"|[^\s'\"&,;)\]}]{4,})",
        r"\1[secret]",
    ),
)


def _replace(masks: tuple[_Mask, ...], text: str) -> str:
    for needed, replaced, replacement in masks:
        if needed(text):
            text = replaced(replacement, text)
    return text


def without_secrets(text: str) -> str:
    """`text` with all replaced that has the shape of a secret or of personal data: for what people are shown."""
    return _replace(_SHAPES, text)


def mask(text: str) -> str:
    """The same for logs: also what is called a secret (`password=...`) and what is percent-encoded."""
    if _TAME.fullmatch(text):
        return text
    if len(text) > _LONGEST:
        half, more = _LONGEST // 2, _LONGEST // 2 + _LONGEST_SECRET
        return f"{mask(text[:more])[:half]} ... {mask(text[-more:])[-half:]}"
    text = _mask_plain(text)
    return re.sub(r"\S+", _decode_if_secret, text) if "%" in text else text


def _mask_plain(text: str) -> str:
    return _replace(_SHAPES, _replace(_NAMED, text))


def _decode_if_secret(word: re.Match[str]) -> str:
    """A word as it was, unless it hides something; encoded line breaks do not become real ones."""
    text = word[0]
    for _ in range(3):  # as often as proxies and clients encode what is encoded
        text = unquote(text)
    found = _mask_plain(text)
    return word[0] if found == text else " ".join(found.split())


def mask_value(name: str, value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _mask_number(name, value)
    if _SECRET_NAME.search(name):
        return "[secret]"
    if _PERSONAL_NAME.search(name):
        return "[personal]"
    if isinstance(value, str | bytes | bytearray):
        return mask(_text(value))
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {mask(_text(k)): mask_value(_text(k), v, depth + 1) for k, v in islice(value.items(), _MOST_ITEMS)}
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return _mask_items(value, depth + 1)
    return mask(repr(value) if isinstance(value, BaseException) else str(value))


def _mask_number(name: str, value: float) -> Any:
    """Numbers of tokens are kept, and passwords and card numbers that are numbers are not."""
    if _SECRET_NAME.search(name) and "token" not in name.lower():
        return "[secret]"
    return "[card]" if isinstance(value, int) and 0 < value < 10**19 and _is_card(str(value)) else value


def _mask_items(items: Collection[Any], depth: int) -> list[Any]:
    """A pair may be a name and its value, as headers are."""
    match items:
        case [str() | bytes() as name, value] if isinstance(value, str | bytes):
            return [mask(_text(name)), mask_value(_text(name), value, depth)]
    return [mask_value("", value, depth) for value in islice(items, _MOST_ITEMS)]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else str(value)


def _mask_event(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name not in _OF_FORMATTERS:
            event[name] = mask_value(name, value)
    return event


# A page asks for these by itself.
_UNASKED = ("/static/", "/favicon.ico")
_COLORS = {2: "\x1b[2m", 3: "\x1b[2m", 4: "\x1b[33m", 5: "\x1b[31m"}
"""How a request's line looks by the first digit of its status: dim, yellow, red."""
_WARNED = 4
"""A warning looks as a request does that was refused."""


def _tell_request(event: Mapping[str, Any]) -> str | None:
    status, path = event["status"], str(event["path"])
    if path.startswith(_UNASKED) and status < 500:
        return None
    # Whoever asks chooses the path: no line break and no command to the terminal is written as it is.
    shown = "".join(sign if sign.isprintable() and sign != " " else quote(sign, errors="replace") for sign in path)
    return f"{event['method']} {shown} {status} {event['latency_ms'] / 1000:.1f} s"


def _tell_stop(event: Mapping[str, Any]) -> str | None:
    if not event["seconds"]:
        return None
    return f"Stopping. Answers that are being given have {event['seconds']:g} s; press ctrl-C again to stop at once."


def _tell_ingest(event: Mapping[str, Any]) -> str | None:
    counts = [f"{event[what]} {what}" for what in ("added", "changed", "removed") if event[what]]
    return f"Read content/: {', '.join(counts)}" if counts else None


_TOLD: Mapping[str, Callable[[Mapping[str, Any]], str | None]] = {
    "http.request": _tell_request,
    "server.stopping": _tell_stop,
    "content.ingested": _tell_ingest,
    "workspace.remark": lambda event: f"{event['problem']} (a remark)",
    "content.skipped": lambda event: f"{event['problem']} (the page is left as it was, or left out)",
    "table.left_over": lambda event: f"The table {event['table']} is of a tool that is gone; see `{event['hint']}`",
    "database.unavailable": lambda _: "The database cannot be reached. It is tried again.",
    "worker.ended": lambda event: f"A process has ended with code {event['code']}. Another takes its place.",
    "model.fallback": lambda event: f"{event['model']} fails: {event['reason']}. {event['fallback']} answers.",
}
"""What people are told in a sentence. Of other lines of INFO they are told nothing, other warnings they see whole."""


def _tell(whole: structlog.typing.Processor, *, colors: bool) -> structlog.typing.Processor:
    """A renderer for people: a sentence where there is one, warnings and errors of which there is none whole."""

    def render(logger: Any, name: str, event: MutableMapping[str, Any]) -> Any:
        tell, info = _TOLD.get(str(event["event"])), event["level"] == "info"
        if not info and (tell is None or "exc_info" in event):
            return whole(logger, name, event)
        line = tell(event) if tell is not None else None
        if line is None:
            raise structlog.DropEvent
        color = _COLORS.get(event.get("status", 0) // 100 if info else _WARNED, "") if colors else ""
        return f"{color}{line}\x1b[0m" if color else line

    return render


class RecentLines:
    """The last lines that this process has logged about turns. `keep` switches it on: in development, where one process
    has all of them."""

    MOST = 2_000

    def __init__(self) -> None:
        self.keep = False
        self._lines: deque[dict[str, Any]] = deque(maxlen=self.MOST)

    def __call__(self, _: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if self.keep and "turn_id" in event:
            self._lines.append(dict(event))
        return event

    def find(self, turn_id: str) -> list[dict[str, Any]]:
        """Those about a turn, in order."""
        return [line for line in self._lines if line["turn_id"] == turn_id]


recent = RecentLines()


class _Lines:
    """A stream for lines of the log. A line that cannot be written is lost."""

    # Who reads the log may have gone, as in `2>&1 | head`: a turn must not fail because it says what it does.
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure_logging(level: str, format: Literal["console", "json"]) -> None:
    """Send every log line, of ours and of the libraries, through the same processors to stderr."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        # JSON needs the traceback as text in its one line, and before the masks, which then see it.
        structlog.processors.format_exc_info if format == "json" else structlog.processors.StackInfoRenderer(),
        _mask_event,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        recent,
    ]
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    ours = renderer
    if format == "console":
        colors = sys.stderr.isatty()
        renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_write_masked_traceback)
        ours = renderer if level == "DEBUG" else _tell(renderer, colors=colors)
    structlog.configure(
        processors=[*shared, ours],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # One write for each line: lines of several workers would mingle otherwise.
        logger_factory=structlog.WriteLoggerFactory(_Lines(sys.stderr)),  # type: ignore[arg-type]  # it writes and flushes
        # A logger that is used before this call must take on what is configured here.
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [stderr]
    # At INFO libraries log too much: httpx, for one, each request that it makes.
    root.setLevel(max(logging.WARNING, logging.getLevelName(level)))


def _write_masked_traceback(stream: Any, exc_info: Any) -> None:
    stream.write("\n" + mask("".join(traceback.format_exception(*exc_info))))
