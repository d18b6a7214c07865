"""Passwords that are tried, and how many wrong ones there may be.

Wrong ones count for the account from one address, for the address, and for the account from all addresses together.
The last does not count where the account has signed in before: many strangers cannot lock its owner out there.
"""

from uuid import UUID

from sqlalchemy import text

from agent_server.db import Database, new_id
from agent_server.identity.limits import (
    FAILED_LOGINS_IN_ALL,
    FAILED_LOGINS_PER_ACCOUNT,
    FAILED_LOGINS_PER_ADDRESS,
    LOGIN_WINDOW,
    device_of,
    give_back,
    limit_key,
    network_of,
    take,
)
from agent_server.identity.passwords import Verdict, verify_password

# A function of the database: before somebody has signed in, row-level security hides every login.
_KNOWS_DEVICE = text("select knows_device(:owner_id, :device)")


async def try_password(
    database: Database,
    secret: bytes,
    *,
    account: str,
    owner_id: UUID | None,
    address: str | None,
    password: str,
    stored: str | None,
) -> Verdict:
    """Whether the password is right. Wrong ones are counted, and too many raise TooMany whatever this one is.

    `account` is what is counted of the account; `owner_id` is None where there is none, and `address` where the try
    comes over no network.
    """
    # In lower case, as it is looked up: another spelling must not give more tries at the same account.
    account = account.lower()
    from_there = f"{'' if address is None else network_of(address)} {account}"
    counted = [(limit_key(secret, "login", from_there), FAILED_LOGINS_PER_ACCOUNT)]
    if address is not None:
        counted.insert(0, (limit_key(secret, "logins", network_of(address)), FAILED_LOGINS_PER_ADDRESS))
    async with database.transaction() as session:
        # An account that is not there is looked for as well, so that it takes as long to answer.
        device = device_of(secret, owner_id or new_id(), address or "")
        known = await session.execute(_KNOWS_DEVICE, {"owner_id": owner_id or new_id(), "device": device})
        if not known.scalar_one():
            counted.append((limit_key(secret, "account", account), FAILED_LOGINS_IN_ALL))
        for key, burst in counted:
            # Counted before the password is verified: of many tries at once, none would see the others' failure.
            await take(session, key, per_seconds=LOGIN_WINDOW, burst=burst)
    # Hashing is slow and may wait for a free thread, so no transaction is open meanwhile.
    verdict = await verify_password(password, stored)
    # Only failures are limited, so who signs in often must not be locked out.
    if verdict != "wrong":
        async with database.transaction() as session:
            for key, burst in counted:
                await give_back(session, key, per_seconds=LOGIN_WINDOW, burst=burst)
    return verdict
