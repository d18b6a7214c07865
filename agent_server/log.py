"""structlog: readable in development, JSON in production, to stderr; secrets and personal data masked.

A line carries what was bound where the work began: `request_id`, `caller`, `conversation_id`, `tool`, `latency_ms`.
"""

import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

_SECRET_KEYS = re.compile(r"(?i)(password|secret|token|api[_-]?key|authorization|cookie|credential|dsn|database_url)")
_MASKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), r"\1 [secret]"),
    (re.compile(r"\b(?:ask|asg)_[0-9a-f]{8,}[.\w-]*"), "[key]"),
    (re.compile(r"\b(?:sk|pk|gsk|rk|xox[abp]|ghp|AIza)[-_]?[\w-]{16,}"), "[key]"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), "[jwt]"),
    (re.compile(r"(?i)\b(postgres(?:ql)?(?:\+\w+)?://[^:/\s@]*):[^@\s]*@"), r"\1:[secret]@"),
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), "[email]"),
    (re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){3,7}(?:[ ]?[A-Z0-9]{1,3})?\b"), "[iban]"),
    (re.compile(r"\b(?:\d[ -]?){13,19}\b"), "[card]"),
    (re.compile(r"(?<![\w-])\+\d(?:[ ().-]?\d){7,14}\b"), "[phone]"),
)


def masked(text: str) -> str:
    """`text` with keys, tokens, e-mail addresses, phone, card and account numbers replaced."""
    for pattern, replacement in _MASKS:
        text = pattern.sub(replacement, text)
    return text


def _masked_value(key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if _SECRET_KEYS.search(key):
        return "[secret]"
    if isinstance(value, dict):
        return {masked(str(k)): _masked_value(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked_value("", v) for v in value]
    return masked(repr(value) if isinstance(value, BaseException) else str(value))


def _mask(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if key != "exc_info" and not key.startswith("_"):  # what the formatters after this one read
            event[key] = _masked_value(key, value)
    return event


def configure_logging(level: str, format: Literal["console", "json"]) -> None:
    """Send every log line, of ours and of the libraries, through the same processors to stderr."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if format == "json" else structlog.processors.StackInfoRenderer(),
        _mask,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_plain_masked_traceback)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
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
    root.setLevel(max(logging.WARNING, logging.getLevelName(level)))


def _plain_masked_traceback(stream: Any, exc_info: Any) -> None:
    stream.write("\n" + masked("".join(traceback.format_exception(*exc_info))))
