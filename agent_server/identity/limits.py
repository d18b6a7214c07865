"""Limits that all replicas share by the clock of the database.

One row per key says when it will have paid for all it has done: the generic cell rate algorithm (ITU-T I.371, annex A).
A key is a hash (`limit_key`): addresses and e-mails are not written down. Addresses are counted as networks
(`network_of`).
"""

import hashlib
import hmac
import math
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db import Database
from agent_server.errors import TooMany
from agent_server.wording import count

MINUTE, HOUR = 60.0, 3600.0
LOGIN_WINDOW = 900.0
FAILED_LOGINS_PER_ACCOUNT = 10
"""From one address, within `LOGIN_WINDOW` seconds."""
FAILED_LOGINS_PER_ADDRESS = 30
"""For all accounts together, within `LOGIN_WINDOW` seconds."""
FAILED_LOGINS_IN_ALL = 100
"""For one account from all addresses that it has not signed in from, within `LOGIN_WINDOW` seconds."""

# `clock_timestamp()`, since whoever waits here for another request of the same key began before that one ended
_TAKE = text("""
    insert into rate as r (key, free_at) values (:key, clock_timestamp() + :cost * interval '1 second')
    on conflict (key) do update
        set free_at = greatest(r.free_at, clock_timestamp()) + :cost * interval '1 second'
        where r.free_at <= clock_timestamp() + (:window - :cost) * interval '1 second'
    returning key""")
_WAIT = text("""
    select extract(epoch from free_at - clock_timestamp())::float + :cost - :window from rate where key = :key""")
_GIVE_BACK = text("update rate set free_at = free_at - :cost * interval '1 second' where key = :key")
_EXPIRE = text("delete from rate where free_at < now()")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is taken of ordinary requests. 0 is no limit."""

    per_caller: int = 0
    """Requests a minute."""
    per_address: int = 0
    """Requests a minute."""
    guests_per_address: int = 0
    """New guests an hour."""


def limit_key(secret: bytes, kind: str, of: str) -> str:
    """The key under which something is limited. It says nothing of `of` to whoever does not have `secret`."""
    # HMAC and not a bare hash: there are so few addresses that all of them can be hashed and compared.
    # `surrogatepass`, because JSON can spell half a character, which UTF-8 cannot encode.
    return f"{kind}:{hmac.new(secret, f'{kind}:{of}'.encode('utf-8', 'surrogatepass'), hashlib.sha256).hexdigest()}"


def network_of(address: str) -> str:
    """What an address is counted as: an IPv4 address as itself, however it is spelled, and an IPv6 address as its /64.

    What is no address is counted as the text that it is.
    """
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        # A /64 is the least that one customer is given, and each of its addresses is free to use.
        return str(found.ipv4_mapped or ip_network((found, 64), strict=False))
    return str(found)


def device_of(secret: bytes, owner_id: UUID, address: str) -> bytes:
    """A keyed hash of a user and of an address that it signs in from."""
    return hmac.new(secret, f"device:{owner_id}:{network_of(address)}".encode(), hashlib.sha256).digest()


async def take(session: AsyncSession, key: str, *, per_seconds: float, burst: int) -> None:
    """Count one act of `key`. It may have `burst` of them at once and as many again in `per_seconds`.

    Counts with the transaction. Raises TooMany with the seconds after which one more will be let through.
    """
    values = {"key": key, "cost": per_seconds / burst, "window": per_seconds}
    if (await session.execute(_TAKE, values)).one_or_none() is not None:
        return
    # The row may be gone by now: a job removes those whose time is over.
    wait = (await session.execute(_WAIT, values)).scalar_one_or_none() or 0.0
    # Rounded up: a client that comes back after the rounded-down time would be refused again.
    seconds = max(1, math.ceil(wait))
    error = TooMany(f"Too many requests; try again in {count(seconds, 'second')}")
    error.retry_after = seconds
    raise error


async def give_back(session: AsyncSession, key: str, *, per_seconds: float, burst: int) -> None:
    """Undo one `take`. What was counted turned out to be no act to be limited."""
    # The time may end up in the past. That saves nothing up for later: `take` starts from the present at the earliest.
    await session.execute(_GIVE_BACK, {"key": key, "cost": per_seconds / burst})


async def expire_rates(database: Database) -> None:
    """Remove the rows of those who have paid for all they have done."""
    async with database.transaction() as session:
        await session.execute(_EXPIRE)
