"""The clients that are known.

Anybody may register one, or name the address of a document that describes one, so what is stored of those that nobody has
let in yet is bounded.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from urllib.parse import urlsplit

import structlog
from sqlalchemy import text

from agent_server.db import Database, Executor, now
from agent_server.errors import TooMany
from agent_server.oauth.redirects import MOST, mistake_of

log = structlog.get_logger()

LONGEST_NAME = 80
MOST_UNUSED = 5_000
UNUSED_DAYS = 7
"""How long a client is known that nobody has let in."""
_FIND = text("select id, name, redirect_uris, method, read_at from oauth_client where id = :id")
_COUNT_UNUSED = text("select count(*) from (select from oauth_client where used_at is null limit :most) c")
_DROP_OLDEST = text("""
    delete from oauth_client where used_at is null and created_at < now() - interval '1 hour'""")
_ADD = text("""
    insert into oauth_client (id, name, redirect_uris, method, created_at, read_at)
    values (:id, :name, :redirect_uris, :method, now(), now())""")
_ADD_AGAIN = text(
    _ADD.text
    + """
    on conflict (id) do update set name = excluded.name, redirect_uris = excluded.redirect_uris, read_at = excluded.read_at"""
)
_USE = text("update oauth_client set used_at = now() where id = :id returning id")
_EXPIRE = text("""
    delete from oauth_client
    where (used_at is null and created_at < now() - :unused * interval '1 day')
       or used_at < now() - (:days + :unused) * interval '1 day'""")
# What shows nothing, or has what follows read in the other direction, could make one client look like another.
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


@dataclass(frozen=True, kw_only=True)
class Described:
    """A client as it describes itself. `read_at` is when it last did; None for now."""

    id: str
    name: str
    redirect_uris: tuple[str, ...]
    method: str
    read_at: datetime | None = None

    @property
    def host(self) -> str | None:
        """The host that vouches for it. None for one that has only its own word."""
        return urlsplit(self.id).hostname if self.id.startswith("https://") else None

    @property
    def age(self) -> float:
        """Seconds since it described itself."""
        return 0.0 if self.read_at is None else (now() - self.read_at).total_seconds()


def clean_name(name: str) -> str:
    """A name that is shown to people: one short line of characters that can be seen."""
    seen = "".join(" " if c.isspace() else c for c in name if c.isspace() or unicodedata.category(c) not in _INVISIBLE)
    return re.sub(" +", " ", seen).strip()[:LONGEST_NAME].strip()


def mistake_of_redirects(addresses: Sequence[str]) -> str | None:
    """What is wrong with the addresses that a client wants to be answered at."""
    if not 1 <= len(addresses) <= MOST:
        return f"redirect_uris: name one to {MOST}"
    wrong = ((number, mistake_of(address)) for number, address in enumerate(addresses, 1))
    return next((f"redirect_uris: number {number} {mistake}" for number, mistake in wrong if mistake), None)


async def find_client(session: Executor, id: str) -> Described | None:
    row = (await session.execute(_FIND, {"id": id})).one_or_none()
    if row is None:
        return None
    return Described(
        id=row.id, name=row.name, redirect_uris=tuple(row.redirect_uris), method=row.method, read_at=row.read_at
    )


async def add_client(session: Executor, client: Described) -> None:
    """Store a client, or what it says of itself now. Raises TooMany where there are too many that nobody has let in."""
    if await _count_unused(session) >= MOST_UNUSED:
        await session.execute(_DROP_OLDEST)
        if await _count_unused(session) >= MOST_UNUSED:
            raise TooMany("Too many clients have registered; try again in an hour")
    values = {
        "id": client.id,
        "name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "method": client.method,
    }
    await session.execute(_ADD_AGAIN, values)


async def use_client(session: Executor, id: str) -> bool:
    """Note that somebody lets a client in. Returns whether it is still known."""
    return (await session.execute(_USE, {"id": id})).first() is not None


async def expire_clients(database: Database, days: int) -> None:
    """Remove clients that nobody has let in for a time, or not for longer than a grant lasts, which is so many days."""
    async with database.transaction() as session:
        removed = cast(Any, await session.execute(_EXPIRE, {"unused": UNUSED_DAYS, "days": days})).rowcount
    if removed:
        log.info("oauth_clients.expired", count=removed)


async def _count_unused(session: Executor) -> int:
    return int((await session.execute(_COUNT_UNUSED, {"most": MOST_UNUSED})).scalar_one())
