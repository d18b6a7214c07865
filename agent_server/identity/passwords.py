"""Passwords by Argon2id.

The parameters are those of RFC 9106 for little memory: 64 MiB, 3 passes, 4 lanes.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Literal

from agent_server.errors import FieldError, InvalidInput
from agent_server.late import Late

if TYPE_CHECKING:
    import argon2
else:
    argon2 = Late("argon2")

SHORTEST, LONGEST = 8, 128
AT_ONCE = 4
"""How many are hashed at once in a process: each takes 64 MiB, and no crowd of logins shall take all there is."""

# On the event loop a hash would hold up every other request; in the common threads, whatever else waits for those.
_THREADS = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="password")

Verdict = Literal["right", "outdated", "wrong"]
"""`outdated` is right, and hashed with parameters that are no longer ours."""


def check_password(password: str, email: str | None, field: str = "password") -> None:
    """Raises InvalidInput for one that is not to be taken."""
    message = None
    if not SHORTEST <= len(password) <= LONGEST:
        message = f"takes {SHORTEST} to {LONGEST} characters; a sentence is a good one"
    elif email is not None and password.strip().lower() == email.lower():
        message = "is the e-mail address; take one that others cannot know"
    if message is not None:
        raise InvalidInput(f"{field}: {message}", [FieldError(field, message)])


async def hash_password(password: str) -> str:
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _hash, password)


def _hash(password: str) -> str:
    return _hasher().hash(password)


@cache
def _hasher() -> "argon2.PasswordHasher":
    return argon2.PasswordHasher.from_parameters(argon2.profiles.RFC_9106_LOW_MEMORY)


async def verify_password(password: str, stored: str | None) -> Verdict:
    """Whether `password` is the one of which `stored` is the hash. Without `stored` it is wrong."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _verify, password, stored)


def _verify(password: str, stored: str | None) -> Verdict:
    # Where there is no account, a dummy is verified: the time must not tell which e-mail addresses are known. The first
    # call makes the dummy in any case, for the same reason.
    dummy = _dummy()
    try:
        _hasher().verify(dummy if stored is None else stored, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return "wrong"
    if stored is None:
        return "wrong"
    return "outdated" if _hasher().check_needs_rehash(stored) else "right"


@cache
def _dummy() -> str:
    return _hash("nobody's password")
