"""Nobody passes on, takes over or outlives what they hold themselves."""

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import jwt
import pytest
from dirty_equals import IsPartialDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from agent_server.caller import Caller, beyond
from agent_server.db import Database, new_id, now
from agent_server.errors import Unauthorized
from agent_server.identity.accounts import Accounts, Act
from agent_server.identity.credentials import IssuedKey, issue_key, revoke_key
from agent_server.identity.resolver import Resolver
from agent_server.identity.roles import define_roles
from agent_server.identity.users import create_user
from agent_server.settings import Issuer
from tests.commands import agent_server
from tests.conftest import ROOT, everything
from tests.server import Client, Start

PASSWORD = "a password of somebody's"
SECRET = "a secret of the issuer's, of enough bytes"
ISSUER = {"issuer": "https://auth.example", "audience": ["here"], "secret": SECRET}
ROLES = {"clerk": ["users:read", "users:write", "account:*", "keys:*"]}
ACT = Act(surface="cli")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def make(client: Client, name: str, roles: Sequence[str] = ()) -> tuple[UUID, dict[str, str]]:
    """A user of that name, and the header of one who has signed in as it."""
    accounts, email = Accounts(client.server.database, client.server.resolver), f"{name}@example.com"
    user = await accounts.make_user(ACT, None, name, email=email, password=PASSWORD, roles=roles)
    tokens = await client.http.post("/api/auth/login", json={"email": email, "password": PASSWORD})
    return user.id, bearer(tokens.json()["access_token"])


async def make_key(client: Client, auth: dict[str, str], *scopes: str, days: int | None = None) -> dict[str, Any]:
    made = await client.http.post("/api/keys", json={"name": "k", "scopes": scopes, "days": days}, headers=auth)
    assert made.status_code == 201, made.text
    document: dict[str, Any] = made.json()
    return document


async def status(client: Client, key: str) -> int:
    return (await client.http.get("/api/keys", headers=bearer(key))).status_code


def outside(**claims: Any) -> dict[str, str]:
    said = {"iss": ISSUER["issuer"], "aud": "here", "sub": "olga", "exp": now() + timedelta(minutes=5), **claims}
    return bearer(jwt.encode(said, SECRET, algorithm="HS256"))


# --- Users


@pytest.mark.parametrize("body", [{"name": "new"}, {"name": "new", "roles": []}, {"name": "new", "roles": ["user"]}])
async def test_a_user_without_a_role_is_made_by_nobody_who_lacks_what_every_user_may(
    client: Client, body: dict[str, Any]
) -> None:
    key = bearer(await client.new_key("users:write"))
    refused = await client.http.post("/api/users", json=body, headers=key)
    assert refused.status_code == 422
    assert "'user' has the scopes" in refused.json()["detail"]


async def test_roles_are_taken_away_by_nobody_who_lacks_what_is_left(start: Start) -> None:
    async with start(roles={**ROLES, "reader": ["users:read"]}) as client:
        _, clerk = await make(client, "cleo", ["clerk"])
        reader, _ = await make(client, "rita", ["reader"])
        path = f"/api/users/{reader}"
        assert (await client.http.patch(path, json={"roles": []}, headers=clerk)).status_code == 422
        assert (await client.http.patch(path, json={"roles": ["clerk"]}, headers=clerk)).status_code == 200


CHANGES: list[dict[str, Any]] = [
    {"disabled": True},
    {"disabled": False},
    {"password": "another canary password"},
    {"roles": ["clerk"]},
    {},
]


async def test_who_may_more_by_a_key_is_changed_by_nobody_who_may_less(start: Start) -> None:
    async with start(roles=ROLES) as client:
        _, cleo = await make(client, "cleo", ["clerk"])
        owner, _ = await make(client, "carl", ["clerk"])
        async with everything(client.server.database) as session:
            key = await issue_key(session, owner, name="k", scopes=["tasks:read"])
        for change in CHANGES:
            refused = await client.http.patch(f"/api/users/{owner}", json=change, headers=cleo)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
            assert "tasks:read" in refused.json()["detail"]
        async with everything(client.server.database) as session:
            await revoke_key(session, key.row.id)
        for change in CHANGES:
            assert (await client.http.patch(f"/api/users/{owner}", json=change, headers=cleo)).status_code == 200


async def test_who_may_more_by_the_word_of_an_outside_issuer_is_changed_by_nobody_who_may_less(start: Start) -> None:
    async with start(roles={"user": ROLES["clerk"]}, issuers=[Issuer(**ISSUER)]) as client:
        _, clerk = await make(client, "cleo")
        me = (await client.http.get("/api/auth/me", headers=outside())).json()
        path = f"/api/users/{me['id']}"
        assert (await client.http.patch(path, json={}, headers=clerk)).status_code == 200
        assert (await client.http.get("/api/auth/me", headers=outside(roles="admin"))).json()["scopes"] == ["*"]
        for change in CHANGES:
            assert (await client.http.patch(path, json=change, headers=clerk)).status_code == 403
        assert (await client.http.patch(path, json={"disabled": True}, headers=client.auth)).status_code == 200
        assert (await client.http.get("/api/auth/me", headers=outside())).status_code == 401


async def test_a_user_of_an_issuer_is_reckoned_by_the_roles_that_a_token_without_any_leaves(start: Start) -> None:
    async with start(roles=ROLES, issuers=[Issuer(**ISSUER)]) as client:
        _, clerk = await make(client, "cleo", ["clerk"])
        # A token that names this role has what a clerk has; one that names none has what every user has, which is more.
        me = (await client.http.get("/api/auth/me", headers=outside(roles="clerk"))).json()
        for change in CHANGES:
            refused = await client.http.patch(f"/api/users/{me['id']}", json=change, headers=clerk)
            assert refused.status_code == 403, change


async def test_the_operators_key_for_a_user_of_an_issuer_holds_nothing_by_the_issuers_word(
    start: Start,
) -> None:
    async with start(issuers=[Issuer(**ISSUER)]) as client:
        me = (await client.http.get("/api/auth/me", headers=outside(roles="admin"))).json()
        assert me["scopes"] == ["*"]
        async with everything(client.server.database) as session:
            name = (
                await session.execute(text("select name from account where id = :id"), {"id": me["id"]})
            ).scalar_one()
        made = await asyncio.to_thread(
            agent_server, "key", "create", "--user", name, "--json", cwd=ROOT, DATABASE_URL=client.server.database.url
        )
        assert made.returncode == 0, made.stderr
        scopes = json.loads(made.stdout)["scopes"]
        assert "*" not in scopes
        assert "conversations:write" in scopes


async def test_the_local_user_is_made_and_changed_by_the_command_line_only(start: Start) -> None:
    async with start(roles=ROLES) as client:
        made = {"name": "local", "email": "local@example.com", "password": PASSWORD, "roles": ["clerk"]}
        _, clerk = await make(client, "cleo", ["clerk"])
        for auth in (clerk, client.auth):
            refused = await client.http.post("/api/users", json=made, headers=auth)
            assert (refused.status_code, "`agent-server user`" in refused.json()["detail"]) == (403, True)
        async with everything(client.server.database) as session:
            local = (await create_user(session, "local")).id
        for auth in (clerk, client.auth):
            for change in CHANGES:
                refused = await client.http.patch(f"/api/users/{local}", json=change, headers=auth)
                assert refused.status_code == 403, change
        accounts = Accounts(client.server.database, client.server.resolver)
        assert (await accounts.change_user(ACT, None, local, disabled=True)).disabled_at


# --- Keys


async def test_a_key_ends_with_the_key_that_it_was_made_with(client: Client) -> None:
    first = await make_key(client, client.auth, "keys:*")
    second = await make_key(client, bearer(first["key"]), "keys:*")
    third = await make_key(client, bearer(second["key"]), "keys:read")
    beside = await make_key(client, client.auth, "keys:read")
    gone = await client.http.delete(f"/api/keys/{first['id']}", headers=client.auth)
    assert gone.status_code == 204
    assert [await status(client, made["key"]) for made in (first, second, third)] == [401] * 3
    assert [await status(client, key) for key in (beside["key"], client.key)] == [200, 200]
    shown = {key["id"]: key["revoked_at"] for key in (await client.get("/api/keys"))}
    assert all(shown[made["id"]] for made in (first, second, third)) and shown[beside["id"]] is None


async def test_a_key_expires_no_later_than_the_key_that_it_was_made_with(client: Client) -> None:
    day = await make_key(client, client.auth, "keys:*", days=1)
    for days in (None, 1, 365):
        made = await make_key(client, bearer(day["key"]), "keys:*", days=days)
        assert made["expires_at"] <= day["expires_at"]
        below = await make_key(client, bearer(made["key"]), "keys:read", days=days)
        assert below["expires_at"] <= made["expires_at"]
    assert (await make_key(client, client.auth, "keys:read"))["expires_at"] is None
    week = await make_key(client, client.auth, "keys:*", days=7)
    sooner = await make_key(client, bearer(week["key"]), "keys:read", days=1)
    assert sooner["expires_at"] < week["expires_at"]


async def test_a_key_that_was_made_with_an_outside_token_ends_with_the_token(start: Start) -> None:
    async with start(issuers=[Issuer(**ISSUER)]) as client:
        made = await make_key(client, outside(), "keys:read", "keys:write", days=30)
        assert datetime.fromisoformat(made["expires_at"]) <= now() + timedelta(minutes=5)
        below = await make_key(client, bearer(made["key"]), "keys:read")
        assert below["expires_at"] <= made["expires_at"]


async def test_a_key_never_holds_more_than_the_roles_of_its_user_do_now(start: Start) -> None:
    async with start(roles=ROLES) as client:
        id, auth = await make(client, "cleo", ["clerk"])
        key = await make_key(client, auth, "users:read", "keys:*")
        below = await make_key(client, bearer(key["key"]), "users:read", "keys:read")
        async with everything(client.server.database) as session:
            operators = (await issue_key(session, id, name="k", scopes=["users:read"])).text
        keys = [key["key"], below["key"], operators]

        async def read_users() -> list[int]:
            return [(await client.http.get("/api/users", headers=bearer(key))).status_code for key in keys]

        assert await read_users() == [200, 200, 200]
        accounts = Accounts(client.server.database, client.server.resolver)
        await accounts.change_user(ACT, None, id, roles=["user"])
        assert await read_users() == [403, 403, 200]
        assert await status(client, key["key"]) == 200  # what every user may is left
        refused = await client.http.post(
            "/api/keys", json={"name": "k", "scopes": ["users:read"]}, headers=bearer(key["key"])
        )
        assert refused.status_code == 403
        await accounts.change_user(ACT, None, id, roles=["clerk"])
        assert await read_users() == [200, 200, 200]


async def test_no_key_is_left_of_those_that_are_made_while_their_maker_is_revoked(database: Database) -> None:
    accounts, owner = Accounts(database, Resolver(database)), new_id()

    def caller(key: IssuedKey) -> Caller:
        return Caller(id=owner, kind="user", scopes=frozenset({"*"}), key_id=key.row.id)

    async def grow(maker: IssuedKey) -> None:
        """A chain of keys, each made with the one before, until one is refused."""
        for _ in range(40):
            try:
                maker = await accounts.make_key(ACT, caller(maker), "k", ["*"], None)
            except Unauthorized:
                return

    for _ in range(5):
        async with everything(database) as session:
            first = await issue_key(session, owner, name="first", scopes=["*"])
        growing = [asyncio.create_task(grow(first)) for _ in range(3)]
        await asyncio.sleep(0.02)  # so that some are made before the end
        await accounts.end_key(ACT, caller(first), first.row.id)
        await asyncio.gather(*growing)
    async with everything(database) as session:
        left = await session.execute(text("select count(*) from api_key where revoked_at is null"))
        assert left.scalar_one() == 0
        assert (await session.execute(text("select count(*) from api_key"))).scalar_one() > 5


SCOPES = st.lists(st.sampled_from(["keys:*", "keys:read", "tasks:read", "tasks:*", "users:*", "*"]), unique=True)
STEPS = st.lists(
    st.tuples(st.integers(0, 5), st.one_of(st.none(), SCOPES), st.one_of(st.none(), st.integers(1, 30))), max_size=6
)


@given(steps=STEPS)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
async def test_whatever_is_made_and_ended_no_key_works_for_longer_or_more_than_its_maker(
    database: Database, steps: list[tuple[int, list[str] | None, int | None]]
) -> None:
    """A step makes a key with the key that it names, or with no scopes ends that key."""
    resolver = Resolver(database, roles=define_roles({}, ["tasks:read", "tasks:write"]))
    accounts, owner = Accounts(database, resolver), new_id()
    async with everything(database) as session:
        keys = [(await issue_key(session, owner, name="k", scopes=["*"])).text]
    makers = [0]
    for which, scopes, days in steps:
        try:
            caller = await resolver.resolve(keys[which % len(keys)])
        except Unauthorized:
            continue
        if scopes is None:
            assert caller.key_id is not None
            await accounts.end_key(ACT, caller, caller.key_id)
        elif not beyond(scopes, caller.scopes):
            keys.append((await accounts.make_key(ACT, caller, "k", scopes, days)).text)
            makers.append(which % (len(keys) - 1))
    callers = [await _resolve(resolver, key) for key in keys]
    for made, n in zip(callers, makers, strict=True):
        if made is not None:
            maker = callers[n]
            assert maker is not None and not beyond(made.scopes, maker.scopes)
            assert maker.expires_at is None or (made.expires_at is not None and made.expires_at <= maker.expires_at)


async def _resolve(resolver: Resolver, key: str) -> Caller | None:
    try:
        return await resolver.resolve(key)
    except Unauthorized:
        return None


# --- One's own account


async def _take_out(client: Client, scope: str) -> list[httpx.Response]:
    auth = bearer(await client.new_key(scope))
    exported = await client.http.get("/api/me/export", headers=auth)
    return [exported, await client.http.request("DELETE", "/api/me", headers=auth)]


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("account:read", [403, 403]),
        ("account:write", [403, 403]),
        ("account:export", [200, 403]),
        ("account:erase", [403, 204]),
        ("account:*", [200, 204]),
    ],
)
async def test_to_export_and_to_erase_all_are_scopes_of_their_own(
    client: Client, scope: str, expected: list[int]
) -> None:
    assert [answer.status_code for answer in await _take_out(client, scope)] == expected


async def test_users_and_guests_export_and_erase_what_is_theirs(client: Client) -> None:
    _, user = await make(client, "ann")
    guest = bearer((await client.http.post("/api/session")).json()["token"])
    for auth, body in ((user, {"password": PASSWORD}), (guest, None)):
        assert (await client.http.get("/api/me/export", headers=auth)).json() == IsPartialDict(tables=IsPartialDict())
        erased = await client.http.request("DELETE", "/api/me", json=body, headers=auth)
        assert erased.status_code == 204


@pytest.mark.parametrize("scope", ["own_data:all", "own_data:*", "deleted:purge", "deleted:*"])
async def test_no_key_is_given_what_only_the_servers_own_transactions_hold(client: Client, scope: str) -> None:
    refused = await client.http.post("/api/keys", json={"name": "k", "scopes": [scope]}, headers=client.auth)
    assert (refused.status_code, "resource:verb" in refused.text) == (422, True)
