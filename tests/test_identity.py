"""Keys, guests and profiles: a token stands for its caller, and everything that is no token for nobody."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from dirty_equals import IsStr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.db import Database, new_id, now
from agent_server.errors import Conflict, InvalidInput, NotFound, Unauthorized
from agent_server.identity.credentials import issue_guest, issue_key, list_keys, revoke_key
from agent_server.identity.profiles import MAX_BYTES, read_profile, update_profile
from agent_server.identity.resolver import resolve_caller
from agent_server.identity.users import create_user, find_user
from tests.conftest import everything


async def _key(database: Database, *scopes: str, **more: Any) -> tuple[UUID, str, UUID]:
    owner = new_id()
    async with everything(database) as session:
        key = await issue_key(session, owner, name="k", scopes=scopes, **more)
    return key.row.id, key.text, owner


async def test_a_key_stands_for_its_owner_with_its_scopes(database: Database) -> None:
    _, key, owner = await _key(database, "tasks:read", "notes:*")
    caller = await resolve_caller(database, key, guest_scopes={"other:read"})
    assert caller == Caller(id=owner, kind="user", scopes=frozenset({"tasks:read", "notes:*"}))
    assert caller.may("tasks:read") and caller.may("notes:write")
    assert not caller.may("tasks:write") and not caller.may("note:read") and not caller.may("other:read")


async def test_the_secret_of_a_key_or_a_guest_is_nowhere_in_the_database(database: Database) -> None:
    _, key, _ = await _key(database, "*")
    async with everything(database) as session:
        guest = (await issue_guest(session, new_id(), 1)).token
    async with everything(database) as session:
        both = "select row_to_json(k)::text from api_key k union all select row_to_json(g)::text from guest g"
        rows = (await session.execute(text(both))).scalars().all()
    for token in (key, guest):
        secret = token.partition(".")[2]
        assert len(secret) >= 43
        assert not [row for row in rows if secret in row or secret.encode().hex() in row]


@pytest.mark.parametrize(
    "scope", ["", ":", "tasks", "tasks:", ":read", "tasks:read:x", "*:read", "Tasks:read", "a b:c", "**"]
)
async def test_a_scope_that_would_never_match_is_refused(database: Database, scope: str) -> None:
    async with everything(database) as session:
        with pytest.raises(InvalidInput, match="write resource:verb"):
            await issue_key(session, new_id(), name="k", scopes=["tasks:read", scope])
        assert await list_keys(session) == []


async def test_a_key_ends_when_it_expires_and_when_it_is_revoked(database: Database) -> None:
    _, expired, _ = await _key(database, "*", expires_at=now() - timedelta(seconds=1))
    with pytest.raises(Unauthorized, match="expired"):
        await resolve_caller(database, expired)
    id, revoked, _ = await _key(database, "*", expires_at=now() + timedelta(days=1))
    await resolve_caller(database, revoked)
    async with everything(database) as session:
        at = (await revoke_key(session, id)).revoked_at
    async with everything(database) as session:
        assert (await revoke_key(session, id)).revoked_at == at
    with pytest.raises(Unauthorized, match="revoked"):
        await resolve_caller(database, revoked)
    async with everything(database) as session:
        with pytest.raises(NotFound):
            await revoke_key(session, new_id())


async def test_keys_are_listed_newest_first_of_all_or_of_one_owner(database: Database) -> None:
    first, _, owner = await _key(database, "*")
    second, _, _ = await _key(database, "*")
    async with everything(database) as session:
        assert [key.id for key in await list_keys(session)] == [second, first]
        assert [key.id for key in await list_keys(session, owner)] == [first]


async def test_a_guest_is_a_guest_until_it_expires(database: Database) -> None:
    async with everything(database) as session:
        guest = await issue_guest(session, new_id(), 1)
    caller = await resolve_caller(database, guest.token, guest_scopes={"leads:write"})
    assert caller == Caller(id=guest.id, kind="guest", scopes=frozenset({"leads:write"}))
    async with everything(database) as session:
        await session.execute(text("update guest set expires_at = now() - interval '1 second'"))
    with pytest.raises(Unauthorized, match="expired"):
        await resolve_caller(database, guest.token)


async def test_a_token_is_good_only_whole_and_only_as_what_it_is(database: Database) -> None:
    _, key, _ = await _key(database, "*")
    _, other, _ = await _key(database, "*")
    async with everything(database) as session:
        guest = (await issue_guest(session, new_id(), 1)).token
    mixed = f"{key.partition('.')[0]}.{other.partition('.')[2]}"
    as_guest, as_key = f"asg{key[3:]}", f"ask{guest[3:]}"
    for token in (mixed, as_guest, as_key, key[:-1], f"{key}x", f" {key}", key.upper(), key.replace(".", "")):
        with pytest.raises(Unauthorized):
            await resolve_caller(database, token)


_HEX = "01a1fc33738f72738701dc6b50b47ef7"  # pragma: allowlist secret
_near = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["ask", "asg", "", "ASK", "ask ", "a" * 99]),
    st.sampled_from(["_", "", "__", "-"]),
    st.one_of(
        st.sampled_from(
            [_HEX, _HEX[:-1], f"{{{_HEX}}}", f"urn:uuid:{_HEX}", "٣" * 32, "1_" * 16, "-" * 32, "+" + _HEX[1:]]
        ),
        st.text(max_size=40),
    ),
    st.sampled_from([".", "", ".."]),
    st.text(max_size=60),
)


@given(token=st.one_of(_near, st.text(), st.text(st.characters(categories=["Cs", "Cc"]))))
@example(token=f"ask_{_HEX}.\ud800")
@example(token=f"ask_{_HEX}.\0")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
async def test_whatever_is_no_token_is_unauthorized_and_never_a_bug(database: Database, token: str) -> None:
    with pytest.raises(Unauthorized) as refused:
        await resolve_caller(database, token)
    assert len(token) < 8 or token not in refused.value.message


async def test_a_users_name_is_taken_once(database: Database) -> None:
    async with everything(database) as session:
        user = await create_user(session, "ann@example.com")
    async with everything(database) as session:
        assert await find_user(session, "ann@example.com") == user
        assert await find_user(session, "bob@example.com") is None
        with pytest.raises(Conflict, match="There is a user"):
            await create_user(session, "ann@example.com")


async def test_a_profile_is_merged_key_by_key_and_null_drops_one(database: Database, me: Caller, other: Caller) -> None:
    async with everything(database) as session:
        assert await read_profile(session, me) == {}
        assert await update_profile(session, me, {"a": 1, "b": {"c": [None]}, "d": None}) == {
            "a": 1,
            "b": {"c": [None]},
        }
        assert await update_profile(session, me, {"a": None, "e": "ü"}) == {"b": {"c": [None]}, "e": "ü"}
    async with everything(database) as session:
        assert await read_profile(session, me) == {"b": {"c": [None]}, "e": "ü"}
        assert await read_profile(session, other) == {}


async def test_first_changes_that_arrive_together_are_all_kept(database: Database, me: Caller) -> None:
    async def change(n: int) -> None:
        async with everything(database) as session:
            await update_profile(session, me, {f"k{n}": n})

    await asyncio.gather(*(change(n) for n in range(8)))
    async with everything(database) as session:
        assert await read_profile(session, me) == {f"k{n}": n for n in range(8)}


async def _change(database: Database, caller: Caller, changes: dict[str, Any]) -> None:
    async with everything(database) as session:
        await update_profile(session, caller, changes)


async def test_a_profile_that_grows_too_large_or_is_no_json_is_refused_and_stays(
    database: Database, me: Caller
) -> None:
    await _change(database, me, {"a": "x" * (MAX_BYTES // 2)})
    for changes in ({"b": "x" * (MAX_BYTES // 2)}, {"b": float("nan")}, {"b": [float("inf")]}):
        with pytest.raises(InvalidInput, match="profile: "):
            await _change(database, me, changes)
    async with everything(database) as session:
        assert await read_profile(session, me) == {"a": IsStr(regex="x+")}
