"""Passwords: what is taken, and that what is stored tells nothing."""

import asyncio

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.profiles import RFC_9106_LOW_MEMORY

from agent_server.errors import InvalidInput
from agent_server.identity.passwords import AT_ONCE, check_password, hash_password, verify_password

PASSWORD = "a password of Ann's"


@pytest.fixture(scope="module")
def password_cost() -> None:
    """That of users."""


@pytest.mark.parametrize(
    "password", ["", "short", "x" * 7, "x" * 129, "ann@example.com", "ANN@Example.com", "  ann@example.com "]
)
def test_a_password_that_is_short_long_or_the_e_mail_is_refused(password: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_password(password, "ann@example.com", "new")
    assert [error.field for error in refused.value.fields] == ["new"]
    assert not password or password not in refused.value.message


@pytest.mark.parametrize("password", ["x" * 8, "x" * 128, "ümläut-パスワード", "ann@example.com."])
def test_any_other_is_taken(password: str) -> None:
    check_password(password, "ann@example.com")
    check_password(password, None)


async def test_a_password_is_verified_against_its_hash_only() -> None:
    first, second = await asyncio.gather(hash_password(PASSWORD), hash_password(PASSWORD))
    assert first != second
    assert PASSWORD not in first
    assert extract_parameters(first) == RFC_9106_LOW_MEMORY
    for password, stored in ((PASSWORD + " ", first), ("", first), (PASSWORD, None), (PASSWORD, "no hash"), ("x", "")):
        assert await verify_password(password, stored) == "wrong"
    assert await verify_password(PASSWORD, first) == "right"
    assert await verify_password("nobody's password", None) == "wrong"


async def test_a_hash_of_other_parameters_is_right_and_outdated() -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    assert await verify_password(PASSWORD, weak.hash(PASSWORD)) == "outdated"
    assert await verify_password("wrong", weak.hash(PASSWORD)) == "wrong"


async def test_more_at_once_than_there_is_room_for_wait_and_are_answered() -> None:
    stored = await hash_password(PASSWORD)
    given = [PASSWORD if n % 2 else "wrong" for n in range(AT_ONCE * 2)]
    verdicts = await asyncio.gather(*(verify_password(password, stored) for password in given))
    assert verdicts == ["right" if password == PASSWORD else "wrong" for password in given]
