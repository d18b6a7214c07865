"""The address of a database as everything that connects with it reads it."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from sqlalchemy import URL, make_url

from agent_server.errors import InvalidInput

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_ADDRESS = frozenset({"host", "port", "user", "password", "target_session_attrs"})
_SERVER_SETTINGS = frozenset({"application_name", "options", "search_path"})


@dataclass(frozen=True)
class Address:
    """An address: what SQLAlchemy's asyncpg dialect takes of it, what asyncpg is given as arguments instead, and what
    as settings of the session."""

    url: URL
    arguments: Mapping[str, Any]
    settings: Mapping[str, str]

    @property
    def user(self) -> str | None:
        """Whom it logs in as. None where that is up to the system."""
        named = self.url.username or self.url.query.get("user")
        return named if isinstance(named, str) else None

    @property
    def password(self) -> str | None:
        given = self.url.password or self.url.query.get("password")
        return given if isinstance(given, str) else None


def read_address(text: str) -> Address:
    """Read an address. Raises InvalidInput for a parameter that would be lost on the way, ValueError for no address.

    libpq's `sslmode` and `channel_binding` (in every address that Neon and Supabase hand out) are unknown to asyncpg.
    """
    parts = urlsplit(text)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    # A password with a plain `#`, `/`, `?` or `@`: each library would take it for the end of another part.
    if parts.fragment or parts.netloc.count("@") > 1 or "@" in parts.path or any("@" in name for name in query):
        raise ValueError("a character that stands for something else in an address")
    query.pop("channel_binding", None)
    arguments: dict[str, Any] = {}
    mode = query.pop("sslmode", None)
    if mode == "require":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # what libpq's `require` means
        arguments["ssl"] = context
    elif mode in _SSL_MODES:
        arguments["ssl"] = mode
    elif mode is not None:
        raise InvalidInput(f"DATABASE_URL: sslmode is one of {', '.join(_SSL_MODES)}")
    if (timeout := query.pop("connect_timeout", None)) is not None:
        if not timeout.isdecimal():
            raise InvalidInput("DATABASE_URL: connect_timeout is a number of seconds")
        # To libpq 0 is no limit.
        arguments["timeout"] = float(timeout) or None
    settings = {name: query.pop(name) for name in _SERVER_SETTINGS & query.keys()}
    if unknown := sorted(query.keys() - _ADDRESS):
        raise InvalidInput(f"DATABASE_URL: leave out {', '.join(unknown)}, which no setting here answers to")
    url = make_url(urlunsplit(("postgresql+asyncpg", parts.netloc, parts.path, urlencode(query), "")))
    return Address(url, arguments, settings)
