"""Limits that all replicas share by the clock of the database.

One row per key says when it will have paid for all it has done: the generic cell rate algorithm (ITU-T I.371, annex A).
A key is a hash (`limit_key`): addresses and e-mails are not written down. Addresses are counted as networks
(`network_of`).
"""

import hashlib
import hmac
import math
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any
from uuid import UUID

from sqlalchemy import text

from agent_server.db import Database, Executor
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


def take_sql(of: str, key: str | None = None, *, where: str | None = None) -> str:
    """SQL that counts one act, and returns its key where it is let through; else nothing.

    Its parameters are named after `of`: `<of>_key`, or SQL for `key` with what comes after it, `<of>_cost` and
    `<of>_window` in seconds. It counts nothing without a key, and nothing unless `where`.
    """
    # `clock_timestamp()` and not `now()`: a transaction may be old. In `do update` only what was to be inserted is
    # named, since a database that is spread over servers takes no function there. It says when an act came, which may be
    # before one that it waited for: 1.99 and not 2, or of as many at once as there may be the last is sometimes refused.
    cost, window = f":{of}_cost * interval '1 second'", f":{of}_window * interval '1 second'"
    source = (
        key or f"cast(:{of}_key as text) where cast(:{of}_key as text) is not null{f' and {where}' if where else ''}"
    )
    return f"""
    insert into rate as r (key, free_at)
    select t.key, clock_timestamp() + {cost} from (select {source}) t(key)
    on conflict (key) do update
        set free_at = greatest(r.free_at, excluded.free_at - {cost}) + {cost}
        where r.free_at <= excluded.free_at + {window} - 1.99 * {cost}
    returning key"""  # noqa: S608  # SQL of our own


_TAKE = text(take_sql("one"))
_TAKE_TWO = text(f"""
    with first as ({take_sql("one")}), second as ({take_sql("two")})
    select (select key from first) as one, (select key from second) as two""")  # noqa: S608  # SQL of our own
_WAIT = text("""
    select extract(epoch from free_at - clock_timestamp())::float + :one_cost - :one_window
    from rate where key = :one_key""")
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
    digest = hmac.new(secret, f"{kind}:{of}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
    # Half of it: each turn keeps one, and 128 bits are more than anybody can try.
    return f"{kind}:{digest[:32]}"


def caller_key(id: UUID) -> str:
    """The key under which a caller's requests are limited. Ids are random: nobody finds one by its hash."""
    return f"caller:{hashlib.sha256(str(id).encode()).hexdigest()}"


CALLER_KEY = "'caller:' || encode(sha256(convert_to(cast({} as text), 'UTF8')), 'hex')"
"""SQL of the same, around an id."""


@lru_cache(maxsize=4096)
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


@dataclass(frozen=True)
class Act:
    """Something that is counted under `key`, which may be done `burst` times at once and as many again in
    `per_seconds`."""

    key: str
    per_seconds: float
    burst: int

    def values(self, of: str) -> dict[str, Any]:
        """The parameters of `take_sql`."""
        return {f"{of}_key": self.key, f"{of}_cost": self.per_seconds / self.burst, f"{of}_window": self.per_seconds}


def values_of(act: Act | None, of: str) -> dict[str, Any]:
    """The parameters of `take_sql` for an act, or for none."""
    return {f"{of}_key": None, f"{of}_cost": 0.0, f"{of}_window": 0.0} if act is None else act.values(of)


async def take(session: Executor, key: str, *, per_seconds: float, burst: int) -> None:
    """Count one act of `key`. It may have `burst` of them at once and as many again in `per_seconds`.

    Counts with the transaction. Raises TooMany with the seconds after which one more will be let through.
    """
    act = Act(key, per_seconds, burst)
    if (await session.execute(_TAKE, act.values("one"))).one_or_none() is None:
        raise await refuse(session, act)


async def take_all(session: Executor, one: Act | None, two: Act | None) -> None:
    """Count both acts or none of them. Counts with the transaction. Raises as `take`."""
    taken = (await session.execute(_TAKE_TWO, {**values_of(one, "one"), **values_of(two, "two")})).one()
    for act, key in ((one, taken.one), (two, taken.two)):
        if act is not None and key is None:
            raise await refuse(session, act)


async def refuse(session: Executor, act: Act) -> TooMany:
    """What is raised where an act was not let through."""
    # The row may be gone by now: a job removes those whose time is over.
    wait = (await session.execute(_WAIT, act.values("one"))).scalar_one_or_none() or 0.0
    # Rounded up: a client that comes back after the rounded-down time would be refused again.
    seconds = max(1, math.ceil(wait))
    error = TooMany(f"Too many requests; try again in {count(seconds, 'second')}")
    error.retry_after = seconds
    return error


async def give_back(session: Executor, key: str, *, per_seconds: float, burst: int) -> None:
    """Undo one `take`. What was counted turned out to be no act to be limited."""
    # The time may end up in the past. That saves nothing up for later: `take` starts from the present at the earliest.
    await session.execute(_GIVE_BACK, {"key": key, "cost": per_seconds / burst})


async def expire_rates(database: Database) -> None:
    """Remove the rows of those who have paid for all they have done."""
    async with database.quick() as session:
        await session.execute(_EXPIRE)
