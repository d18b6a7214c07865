"""Dates on the command line."""

from datetime import UTC, datetime

import typer


def read_since(given: str) -> datetime:
    """The beginning that `--since` names, UTC where it names no zone. Raises typer.BadParameter."""
    try:
        read = datetime.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter(f"--since: {given!r} is no date; write one as in 2026-11-01") from None
    return read if read.tzinfo else read.replace(tzinfo=UTC)
