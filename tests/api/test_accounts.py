"""Users who sign in, their keys, the guests they were, and all that they own."""

import asyncio
import base64
import contextlib
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import jwt
import pytest
from dirty_equals import IsDatetime, IsList, IsPartialDict, IsStr
from sqlalchemy import LargeBinary, select, text
from sqlmodel import SQLModel

from agent_server.db import DERIVED, new_id, now
from agent_server.db.isolation import row_policy_of
from agent_server.identity.accounts import Act
from agent_server.identity.limits import (
    FAILED_LOGINS_IN_ALL,
    FAILED_LOGINS_PER_ACCOUNT,
    FAILED_LOGINS_PER_ADDRESS,
    LOGIN_WINDOW,
    limit_key,
    take,
)
from agent_server.identity.passwords import hash_password
from agent_server.identity.roles import staff_scopes
from agent_server.identity.users import create_user
from tests.conftest import everything
from tests.rows import insert_row_of_everything, owned_tables
from tests.server import Client, Start
from tests.sse import read_frames

ANN, PASSWORD, OTHER_PASSWORD = "ann@example.com", "a password of Ann's", "another one of hers"
QUESTION = {"message": "How deep may I dive on nitrox 32?", "stream": False}


@dataclass
class People:
    """A server and those who have an account there, by their first names."""

    client: Client
    ids: dict[str, UUID]

    @property
    def http(self) -> httpx.AsyncClient:
        return self.client.http

    async def log_in(
        self, email: str = ANN, password: str = PASSWORD, *, address: str | None = None, **more: Any
    ) -> httpx.Response:
        headers = {} if address is None else {"X-Forwarded-For": address}
        body = {"email": email, "password": password, **more}
        return await self.http.post("/api/auth/login", json=body, headers=headers)

    async def signed_in(self, email: str = ANN) -> dict[str, Any]:
        response = await self.log_in(email)
        assert response.status_code == 200, response.text
        tokens: dict[str, Any] = response.json()
        return tokens

    async def headers(self, email: str = ANN) -> dict[str, str]:
        return bearer((await self.signed_in(email))["access_token"])

    async def guest(self, **profile: Any) -> tuple[UUID, str]:
        made = (await self.http.post("/api/session", json={"profile": profile})).json()
        return UUID(made["id"]), made["token"]

    async def acts(self, id: UUID) -> list[tuple[str, str, str]]:
        async with everything(self.client.server.database) as session:
            rows = await session.execute(
                text(
                    "select action, outcome, caller_kind from audit where owner_id = :id and surface = 'rest' order by id"
                ),
                {"id": id},
            )
            return [tuple(row) for row in rows]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


_HASHES: list[str] = []
"""The hash of `PASSWORD`. To make one takes a fifth of a second, and every test here wants four."""


async def make_people(client: Client) -> People:
    _HASHES[:] = _HASHES or [await hash_password(PASSWORD)]
    ids = {}
    async with everything(client.server.database) as session:
        for name, roles in (("ann", []), ("bob", []), ("sam", ["staff"]), ("ada", ["admin"])):
            email = f"{name}@example.com"
            user = await create_user(session, name, email=email, password_hash=_HASHES[0], roles=roles)
            await Act(surface="cli").record(session, user.id, "user.created", kind="operator")
            ids[name] = user.id
    return People(client, ids)


@pytest.fixture
async def people(client: Client) -> People:
    return await make_people(client)


# --- Signing in


@pytest.mark.parametrize(
    ("email", "password"),
    [(ANN, "not the password"), ("nobody@example.com", PASSWORD), ("", ""), (ANN, ""), ("ann@example.com ", PASSWORD)],
)
async def test_a_wrong_password_and_an_unknown_e_mail_are_answered_alike(
    people: People, email: str, password: str
) -> None:
    refused = await people.log_in(email, password)
    assert refused.status_code == 401
    assert refused.json()["detail"] == "E-mail and password do not belong together"


async def test_a_user_signs_in_and_is_who_it_is(people: People) -> None:
    response = await people.log_in("ANN@Example.com")
    tokens = response.json()
    assert tokens == {
        "access_token": IsStr(),
        "token_type": "bearer",  # pragma: allowlist secret
        "expires_in": 900,
        "refresh_token": IsStr(regex=r"asr_[0-9a-f]{32}[.][0-9a-f]{32}[.].{43}"),
        "user": {
            "id": str(people.ids["ann"]),
            "kind": "user",
            "name": "ann",
            "email": ANN,
            "roles": [],
            "scopes": IsList(length=...),
            "expires_at": IsDatetime(iso_string=True, approx=now() + timedelta(minutes=15), delta=60),
        },
    }
    me = await people.http.get("/api/auth/me", headers=bearer(tokens["access_token"]))
    assert me.json() == tokens["user"]
    assert await people.acts(people.ids["ann"]) == [("auth.login", "ok", "user")]


async def test_a_user_may_what_the_agents_need_and_nothing_that_is_for_staff(people: People) -> None:
    scopes = set((await people.signed_in())["user"]["scopes"])
    assert {"tasks:write", "leads:write", "account:read", "keys:write", "conversations:write"} <= scopes
    assert staff_scopes() >= {"users:read", "users:write", "audit:read"}
    assert not scopes & staff_scopes()
    assert not scopes & {"*", "account:*", "account:data"}
    assert not people.client.server.resolver.guest_scopes & staff_scopes()
    for path in ("/api/users", f"/api/audit?subject={people.ids['bob']}"):
        assert (await people.http.get(path, headers=await people.headers())).status_code == 403
        assert (await people.http.get(path, headers=await people.headers("sam@example.com"))).status_code == 200


async def test_no_password_and_no_token_is_written_down(people: People) -> None:
    tokens = await people.signed_in()
    await people.log_in(password="wrong but secret")  # pragma: allowlist secret
    secrets = [PASSWORD, "wrong but secret", tokens["access_token"], tokens["refresh_token"].rpartition(".")[2]]
    found = await scan(people.client, secrets)
    assert found == {secret: set() for secret in secrets}


async def test_what_is_wrong_with_a_body_is_named_and_is_never_a_bug(people: People) -> None:
    headers = {**await people.headers(), "Content-Type": "application/json"}
    for path, body in (
        ("login", '{"email": "a\\u0000@example.com", "password": "x"}'),
        ("login", '{"email": "ann@example.com", "password": "\\ud800"}'),
        ("login", '{"email": "ann@example.com"}'),
        ("login", '{"email": "ann@example.com", "password": "x", "admin": true}'),
        ("login", json.dumps({"email": ANN, "password": "x" * 129})),
        ("refresh", '{"refresh_token": "\\u0000"}'),
        ("claim", '{"guest_token": "\\ud800"}'),
        ("logout", '{"everywhere": "yes"}'),
        ("password", json.dumps({"current": PASSWORD, "new": "short"})),
        ("password", json.dumps({"current": PASSWORD, "new": "x" * 129})),
        ("password", json.dumps({"current": PASSWORD, "new": " ANN@example.com"})),
        ("password", json.dumps({"current": "wrong", "new": OTHER_PASSWORD})),
    ):
        response = await people.http.post(f"/api/auth/{path}", content=body, headers=headers)
        assert response.status_code == 422, (path, body, response.text)
        assert response.json()["code"] == "invalid_input"


# --- Tokens


def _part(header: str) -> str:
    return base64.urlsafe_b64encode(header.encode()).decode().rstrip("=")


def _tokens_of_an_attacker(secret: bytes, user: UUID, login: UUID, foreign_login: UUID) -> dict[str, str]:
    at = now()
    claims: dict[str, Any] = {
        "iss": "agent-server",
        "aud": "agent-server",
        "sub": str(user),
        "sid": str(login),
        "iat": at,
        "exp": at + timedelta(minutes=5),
    }

    def made(key: Any = secret, algorithm: str = "HS256", typ: str = "at+jwt", **changed: Any) -> str:
        given = {name: value for name, value in {**claims, **changed}.items() if value is not None}
        return jwt.encode(given, key, algorithm=algorithm, headers={"typ": typ})

    good = made()
    header, payload, signature = good.split(".")
    none = made("", "none")
    odd_none, rs256 = (_part(json.dumps({"alg": algorithm, "typ": "at+jwt"})) for algorithm in ("nOnE", "RS256"))
    return {
        "none": none,
        "none, with a signature": f"{none.rstrip('.')}.{signature}",
        "none in other letters": f"{odd_none}.{payload}.",
        "another key": made(b"x" * 32),
        "an empty key": made(b"\0" * 32),
        "another algorithm": made(secret * 2, "HS512"),
        "an asymmetric header": f"{rs256}.{payload}.{signature}",
        "another audience": made(aud="somebody-else"),
        "another issuer": made(iss="https://auth.example"),
        "another type": made(typ="JWT"),
        "expired": made(exp=at - timedelta(seconds=1)),
        "no login": made(sid=None),
        "no subject": made(sub=None),
        "no end": made(exp=None),
        "the login of another": made(sid=str(foreign_login)),
        "the login as another": made(sub=str(new_id())),
        "a login that is none": made(sid="../../etc"),
        "tampered": f"{header}.{payload[:-2]}AA.{signature}",
        "cut": good[:-1],
        "two parts": f"{header}.{payload}",
        "deep": f"{_part('[' * 5_000)}.{payload}.{signature}",
        "long": f"{header}.{payload}.{'x' * 9_000}",
    }


async def test_a_token_that_is_not_ours_is_refused(people: People) -> None:
    tokens, bobs = await people.signed_in(), await people.signed_in("bob@example.com")
    secret = await people.client.server.resolver.secret.get()
    said = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    theirs = jwt.decode(bobs["access_token"], options={"verify_signature": False})
    forged = _tokens_of_an_attacker(secret, UUID(said["sub"]), UUID(said["sid"]), UUID(theirs["sid"]))
    for what, token in forged.items():
        response = await people.http.get("/api/auth/me", headers=bearer(token))
        assert response.status_code == 401, (what, response.text)
        assert response.json()["code"] == "unauthorized"
        assert token not in response.text
    assert (await people.http.get("/api/auth/me", headers=bearer(tokens["access_token"]))).status_code == 200


async def test_a_refresh_token_is_no_credential_and_an_access_token_no_refresh_token(people: People) -> None:
    tokens = await people.signed_in()
    refused = await people.http.get("/api/auth/me", headers=bearer(tokens["refresh_token"]))
    assert refused.status_code == 401
    for token in (tokens["access_token"], people.client.key, "asr_x.y.z", "", tokens["refresh_token"][:-1]):
        refused = await people.http.post("/api/auth/refresh", json={"refresh_token": token})
        assert refused.status_code == 401


async def test_a_credential_is_taken_from_its_header_only(people: People) -> None:
    token = (await people.signed_in())["access_token"]
    refused = await people.http.get(
        "/api/auth/me", params={"access_token": token}, headers={"Cookie": f"access_token={token}; token={token}"}
    )
    assert refused.status_code == 401


async def test_a_refresh_token_works_once_and_a_second_use_ends_the_login(people: People) -> None:
    first = await people.signed_in()
    untouched = await people.headers()
    second = (await people.http.post("/api/auth/refresh", json={"refresh_token": first["refresh_token"]})).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert (await people.http.get("/api/auth/me", headers=bearer(second["access_token"]))).status_code == 200
    for token in (first["refresh_token"], first["refresh_token"], second["refresh_token"]):
        refused = await people.http.post("/api/auth/refresh", json={"refresh_token": token})
        assert refused.status_code == 401
    for tokens in (first, second):
        assert (await people.http.get("/api/auth/me", headers=bearer(tokens["access_token"]))).status_code == 401
    assert (await people.http.get("/api/auth/me", headers=untouched)).status_code == 200
    assert ("auth.refresh_reused", "unauthorized", "user") in await people.acts(people.ids["ann"])


async def test_of_many_that_come_with_one_refresh_token_one_wins(people: People) -> None:
    token = (await people.signed_in())["refresh_token"]
    answers = await asyncio.gather(
        *(people.http.post("/api/auth/refresh", json={"refresh_token": token}) for _ in range(6))
    )
    assert (
        sorted(answer.status_code for answer in answers) == [200, *[401] * 5]
        or [answer.status_code for answer in answers] == [401] * 6
    )


async def test_a_login_ends_however_often_it_is_refreshed(people: People) -> None:
    tokens = await people.signed_in()
    async with everything(people.client.server.database) as session:
        await session.execute(text("update login set expires_at = now() - interval '1 second'"))
    assert (await people.http.get("/api/auth/me", headers=bearer(tokens["access_token"]))).status_code == 401
    refused = await people.http.post("/api/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert refused.status_code == 401
    assert "has ended" in refused.json()["detail"]


@pytest.mark.parametrize("everywhere", [False, True])
async def test_logging_out_ends_this_login_or_all_and_no_key(people: People, everywhere: bool) -> None:
    here, there = await people.signed_in(), await people.signed_in()
    headers = bearer(here["access_token"])
    key = (await people.http.post("/api/keys", json={"name": "k", "scopes": ["account:read"]}, headers=headers)).json()
    left = await people.http.post("/api/auth/logout", json={"everywhere": everywhere}, headers=headers)
    assert left.status_code == 204
    assert (await people.http.get("/api/auth/me", headers=headers)).status_code == 401
    refused = await people.http.post("/api/auth/refresh", json={"refresh_token": here["refresh_token"]})
    assert refused.status_code == 401
    other = await people.http.get("/api/auth/me", headers=bearer(there["access_token"]))
    assert other.status_code == (401 if everywhere else 200)
    assert (await people.http.get("/api/auth/me", headers=bearer(key["key"]))).status_code == 200


async def test_who_did_not_sign_in_cannot_log_out(people: People) -> None:
    _, guest = await people.guest()
    for token, status in ((people.client.key, 409), (await people.client.new_key("tasks:*"), 403), (guest, 409)):
        assert (await people.http.post("/api/auth/logout", headers=bearer(token))).status_code == status


async def test_another_password_ends_the_other_logins(people: People) -> None:
    here, there = await people.headers(), await people.headers()
    body = {"current": PASSWORD, "new": OTHER_PASSWORD}
    assert (await people.http.post("/api/auth/password", json=body, headers=here)).status_code == 204
    assert (await people.http.get("/api/auth/me", headers=here)).status_code == 200
    assert (await people.http.get("/api/auth/me", headers=there)).status_code == 401
    assert (await people.log_in()).status_code == 401
    assert (await people.log_in(password=OTHER_PASSWORD)).status_code == 200


# --- Limits


@pytest.mark.parametrize("email", [ANN, "nobody@example.com"])
async def test_too_many_failures_refuse_the_right_password_too_and_say_until_when(people: People, email: str) -> None:
    attempts = [people.log_in(email, f"guess {n}") for n in range(FAILED_LOGINS_PER_ACCOUNT + 2)]
    statuses = [answer.status_code for answer in await asyncio.gather(*attempts)]
    assert sorted(statuses) == [*[401] * FAILED_LOGINS_PER_ACCOUNT, 429, 429]
    refused = await people.log_in(email)
    assert refused.status_code == 429
    assert refused.json()["detail"] == IsStr(regex=r"Too many requests; try again in \d+ seconds?")
    # one attempt is free again after a tenth of a quarter of an hour
    assert 60 < int(refused.headers["Retry-After"]) <= 90
    assert (await people.log_in("bob@example.com")).status_code == 200


async def test_failures_of_one_address_count_together_whichever_account_they_try(people: People) -> None:
    attempts = [people.log_in(f"user{n}@example.com", "guess") for n in range(FAILED_LOGINS_PER_ADDRESS)]
    assert {answer.status_code for answer in await asyncio.gather(*attempts)} == {401}
    assert (await people.log_in()).status_code == 429


async def test_wrong_passwords_from_elsewhere_do_not_lock_the_owner_out(start: Start) -> None:
    async with start(trusted_proxies=["127.0.0.1"]) as client:
        people, home, elsewhere = await make_people(client), "2001:db8::1", "192.0.2.7"
        assert (await people.log_in(address=home)).status_code == 200
        for n in range(FAILED_LOGINS_PER_ACCOUNT):
            assert (await people.log_in(password=f"guess {n}", address=elsewhere)).status_code == 401
        assert (await people.log_in(address=elsewhere)).status_code == 429
        for address in (home, "2001:db8::2", "192.0.2.8"):
            assert (await people.log_in(address=address)).status_code == 200


async def test_an_account_that_many_strangers_try_lets_in_whoever_signed_in_from_there_before(start: Start) -> None:
    async with start(trusted_proxies=["127.0.0.1"]) as client:
        people, home, new = await make_people(client), "192.0.2.1", "192.0.2.2"
        signed_in = await people.log_in(address=home)
        # it is the address that is known, whatever becomes of the login
        auth = bearer(signed_in.json()["access_token"])
        assert (await people.http.post("/api/auth/logout", headers=auth)).status_code == 204
        # all but the last few are counted as if they had come before: each takes the time of a hash
        secret = await client.server.resolver.secret.get()
        async with client.server.database.transaction() as session:
            for _ in range(FAILED_LOGINS_IN_ALL - 5):
                key = limit_key(secret, "account", ANN)
                await take(session, key, per_seconds=LOGIN_WINDOW, burst=FAILED_LOGINS_IN_ALL)
        guesses = [people.log_in(password=f"guess {n}", address=f"198.51.100.{n}") for n in range(7)]
        statuses = [answer.status_code for answer in await asyncio.gather(*guesses)]
        assert sorted(statuses) == [*[401] * 5, 429, 429]
        refused = await people.log_in(address=new)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= LOGIN_WINDOW / FAILED_LOGINS_IN_ALL
        assert (await people.log_in("bob@example.com", address=new)).status_code == 200
        assert (await people.log_in("bob@example.com", address=home)).status_code == 200
        # at home the owner has as many tries as ever, and no more
        for n in range(FAILED_LOGINS_PER_ACCOUNT):
            assert (await people.log_in(password=f"guess {n}", address=home)).status_code == 401
        assert (await people.log_in(address=home)).status_code == 429


async def test_the_address_of_a_login_is_not_written_down(start: Start) -> None:
    async with start(trusted_proxies=["127.0.0.1"]) as client:
        people, address = await make_people(client), "203.0.113.77"
        assert (await people.log_in(address=address)).status_code == 200
        assert await scan(client, [address]) == {address: set()}
        async with everything(client.server.database) as session:
            assert len((await session.execute(text("select device from login"))).scalar_one()) == 32


async def test_signing_in_often_is_no_failure(people: People) -> None:
    statuses = [(await people.log_in()).status_code for _ in range(FAILED_LOGINS_PER_ACCOUNT + 2)]
    assert set(statuses) == {200}


async def test_a_caller_an_address_and_new_guests_are_limited(start: Start) -> None:
    async with start(rate_per_caller=3, rate_per_address=0, rate_guests_per_address=2) as client:
        answers = [await client.http.get("/api/auth/me", headers=client.auth) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 20
        assert (await client.http.get("/api/auth/me", headers=bearer(await client.new_key("*")))).status_code == 200
        made = [await client.http.post("/api/session"), await client.http.post("/api/chat", json=QUESTION)]
        assert [answer.status_code for answer in made] == [201, 200]
        for refused in (await client.http.post("/api/session"), await client.http.post("/api/chat", json=QUESTION)):
            assert refused.status_code == 429
            assert "X-Guest-Token" not in refused.headers


@pytest.mark.parametrize("token", ["ask_0123.x", f"ask_{'0' * 32}.x", "a.b.c", f"asg_{'0' * 32}.x", "x"])
async def test_wrong_credentials_count_against_their_address(start: Start, token: str) -> None:
    async with start(rate_per_caller=0, rate_per_address=2) as client:
        answers = [await client.http.get("/api/auth/me", headers=bearer(token)) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [401, 401, 429]
        assert (await client.http.get("/api/auth/me", headers=client.auth)).status_code == 429
        body = {"email": ANN, "password": PASSWORD}
        assert (await client.http.post("/api/auth/login", json=body)).status_code == 429


async def test_limits_hold_no_address_and_no_e_mail(people: People) -> None:
    await people.log_in("somebody@example.com", "guess")
    async with everything(people.client.server.database) as session:
        keys = (await session.execute(text("select key from rate"))).scalars().all()
    assert {key.partition(":")[0] for key in keys} >= {"login", "logins", "address"}
    assert all(IsStr(regex=r"[a-z]+:[0-9a-f]{32}") == key for key in keys)


# --- Keys


async def test_a_key_holds_no_more_than_its_maker(people: People) -> None:
    headers = await people.headers()
    for scopes in (["*"], ["tasks:*"], ["leads:read"], ["tasks:read", "users:write"], ["account:*"]):
        refused = await people.http.post("/api/keys", json={"name": "k", "scopes": scopes}, headers=headers)
        assert refused.status_code == 403, scopes
    for scopes in (["account:data"], ["nonsense"], [], ["a" * 101]):
        refused = await people.http.post("/api/keys", json={"name": "k", "scopes": scopes}, headers=headers)
        assert refused.status_code in (403, 422), scopes
    assert (await people.http.get("/api/keys", headers=headers)).json() == []


async def test_a_key_is_shown_once_used_and_ended(people: People) -> None:
    headers = await people.headers()
    body = {"name": "for the phone", "scopes": ["account:read"], "days": 3}
    made = await people.http.post("/api/keys", json=body, headers=headers)
    assert made.status_code == 201
    view = {
        "id": IsStr(),
        "name": "for the phone",
        "scopes": ["account:read"],
        "created_at": IsDatetime(iso_string=True),
        "expires_at": IsDatetime(iso_string=True, approx=now() + timedelta(days=3), delta=60),
        "revoked_at": None,
        "last_used_at": None,
    }
    assert made.json() == {**view, "key": IsStr(regex=r"ask_[0-9a-f]{32}[.].{43}")}
    key = bearer(made.json()["key"])
    assert (await people.http.get("/api/auth/me", headers=key)).json() == IsPartialDict(
        id=str(people.ids["ann"]), scopes=["account:read"], name="ann"
    )
    assert (await people.http.get("/api/keys", headers=key)).status_code == 403
    (listed,) = (await people.http.get("/api/keys", headers=headers)).json()
    assert listed == {**view, "last_used_at": IsDatetime(iso_string=True)}
    path = f"/api/keys/{made.json()['id']}"
    assert (await people.http.delete(path, headers=await people.headers("bob@example.com"))).status_code == 404
    assert (await people.http.get("/api/auth/me", headers=key)).status_code == 200
    assert (await people.http.delete(path, headers=headers)).status_code == 204
    assert (await people.http.get("/api/auth/me", headers=key)).status_code == 401
    assert [act for act, _, _ in await people.acts(people.ids["ann"])] == ["auth.login", "key.created", "key.revoked"]


# --- Users, for staff


async def test_nobody_gives_or_changes_more_than_it_may_itself(start: Start) -> None:
    async with start(roles={"clerk": ["users:read", "users:write", "account:write"]}) as client:
        people = await make_people(client)
        ada = await people.headers("ada@example.com")
        made = await people.http.post(
            "/api/users",
            json={"name": "cleo", "email": "cleo@example.com", "password": PASSWORD, "roles": ["clerk"]},
            headers=ada,
        )
        assert made.status_code == 201
        cleo = await people.headers("cleo@example.com")
        for roles in (["admin"], ["staff"], ["user"], ["clerk", "admin"], ["no such role"]):
            refused = await people.http.post("/api/users", json={"name": "new", "roles": roles}, headers=cleo)
            assert refused.status_code in (403, 422), roles
        for name in ("ada", "sam", "ann"):
            path = f"/api/users/{people.ids[name]}"
            changes: list[dict[str, Any]] = [{"password": OTHER_PASSWORD}, {"disabled": True}, {"roles": []}]
            for change in changes:
                assert (await people.http.patch(path, json=change, headers=cleo)).status_code == 403
        own = f"/api/users/{made.json()['id']}"
        assert (await people.http.patch(own, json={"roles": ["admin"]}, headers=cleo)).status_code == 422
        assert (await people.http.patch(own, json={"roles": ["clerk"]}, headers=cleo)).status_code == 200


async def test_a_role_that_is_taken_away_is_gone_with_the_next_request(people: People) -> None:
    sam, ada = await people.headers("sam@example.com"), await people.headers("ada@example.com")
    assert (await people.http.get("/api/users", headers=sam)).status_code == 200
    path = f"/api/users/{people.ids['sam']}"
    changed = await people.http.patch(path, json={"roles": []}, headers=ada)
    assert changed.json() == IsPartialDict(name="sam", roles=[])
    assert (await people.http.get("/api/users", headers=sam)).status_code == 403
    assert ("user.changed", "ok", "staff") in await people.acts(people.ids["sam"])
    assert ("user.changed", "ok", "user") in await people.acts(people.ids["ada"])


async def test_a_disabled_user_is_cut_off_at_once(people: People) -> None:
    ann, ada = await people.headers(), await people.headers("ada@example.com")
    body = {"name": "k", "scopes": ["account:read"]}
    key = bearer((await people.http.post("/api/keys", json=body, headers=ann)).json()["key"])
    path = f"/api/users/{people.ids['ann']}"
    assert (await people.http.patch(path, json={"disabled": True}, headers=ada)).json()["disabled_at"]
    for headers in (ann, key):
        assert (await people.http.get("/api/auth/me", headers=headers)).status_code == 401
    assert (await people.log_in()).status_code == 401
    assert (await people.http.patch(path, json={"disabled": False}, headers=ada)).json()["disabled_at"] is None
    assert (await people.http.get("/api/auth/me", headers=ann)).status_code == 401
    assert (await people.http.get("/api/auth/me", headers=key)).status_code == 200
    assert (await people.log_in()).status_code == 200


async def test_users_are_made_once_and_listed_in_pages(people: People) -> None:
    ada = await people.headers("ada@example.com")
    for body, status in (
        ({"name": "ann"}, 409),
        ({"name": "ann2", "email": "ANN@example.com"}, 409),
        ({"name": "x", "password": PASSWORD}, 422),
        ({"name": "x", "email": "no address"}, 422),
        ({"name": "\u0000"}, 422),
        ({"name": "x", "email": "xyz@example.com", "password": "xyz@example.com"}, 422),
    ):
        refused = await people.http.post("/api/users", json=body, headers=ada)
        assert refused.status_code == status, body
    names, cursor = [], None
    while True:
        page = (
            await people.http.get(
                "/api/users", params={"limit": 3, **({"cursor": cursor} if cursor else {})}, headers=ada
            )
        ).json()
        names += [user["name"] for user in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names == ["ada", "sam", "bob", "ann"]
    assert (await people.http.get("/api/users?cursor=x", headers=ada)).status_code == 422
    assert (await people.http.patch(f"/api/users/{new_id()}", json={}, headers=ada)).status_code == 404


# --- The claim of a guest


async def _owners(client: Client) -> dict[str, set[UUID]]:
    """Who has rows, table by table."""
    found = {}
    async with everything(client.server.database) as session:
        for table in owned_tables():
            policy = row_policy_of(table)
            assert policy is not None
            found[table.name] = set((await session.execute(select(table.c[policy.column]))).scalars())
    return found


def kept_for_good() -> set[str]:
    """The tables whose rows nobody changes or removes: the audit, a shop's invoices and what came and went of its stock."""
    policies = ((table.name, row_policy_of(table)) for table in owned_tables())
    kept = {name for name, policy in policies if policy is not None and policy.append_only}
    assert kept == {"audit", "invoice", "stock_movement"}
    return kept


async def test_a_claim_moves_every_row_of_the_guest_and_ends_its_token(people: People) -> None:
    headers = await people.headers()
    id, token = await people.guest(level="Open Water", dives=3)
    talk = (await people.http.post("/api/chat", json=QUESTION, headers=bearer(token))).json()
    stranger, _ = await people.guest(level="Rescue")
    async with everything(people.client.server.database) as session:
        await session.execute(text("delete from guest where id = :id"), {"id": id})  # the made-up row takes its place
        await session.execute(text("delete from profile where owner_id = :id"), {"id": id})
        await insert_row_of_everything(session, id, "of the guest")
        await session.execute(text("delete from account where id = :id"), {"id": id})
        await session.execute(text("update turn set status = 'done'"))
        await session.execute(text("insert into profile values (:id, '{\"dives\": 9}')"), {"id": people.ids["ann"]})
        await session.execute(
            text(
                "update guest set secret_sha = sha256(cast(:secret as bytea)), expires_at = now() + interval '1 hour'"
            ),
            {"secret": token.partition(".")[2].encode()},
        )
    before = await _owners(people.client)
    claimed = await people.http.post("/api/auth/claim", json={"guest_token": token}, headers=headers)
    assert claimed.status_code == 204, claimed.text
    after = await _owners(people.client)
    ann = people.ids["ann"]
    for name, owners in before.items():
        if name == "account" or name in kept_for_good():
            assert after[name] >= owners  # what is only ever added stays as it was said
        elif name in ("api_key", "login", "refresh_token"):
            assert after[name] == owners - {id}  # a credential of the guest's is nobody's
        elif name == "guest":
            assert after[name] == owners - {id} >= {stranger}
        elif name == "profile":
            assert after[name] == {ann, stranger}
        else:
            assert id in owners, name
            assert after[name] == (owners - {id}) | {ann}, name
    async with everything(people.client.server.database) as session:
        profile = text("select body from profile where owner_id = :id")
        assert (await session.execute(profile, {"id": ann})).scalar_one() == {"said": "of the guest", "dives": 9}
    messages = await people.http.get(f"/api/conversations/{talk['conversation_id']}/messages", headers=headers)
    assert [item["role"] for item in messages.json()["items"]] == ["user", "assistant"]
    assert (await people.http.get("/api/auth/me", headers=bearer(token))).status_code == 401
    again = await people.http.post("/api/auth/claim", json={"guest_token": token}, headers=headers)
    assert again.status_code == 422
    assert ("auth.claim", "ok", "user") in await people.acts(ann)


async def test_signing_in_with_a_guests_token_claims_it_all_or_not_at_all(people: People) -> None:
    _, token = await people.guest()
    talk = (await people.http.post("/api/chat", json=QUESTION, headers=bearer(token))).json()
    for wrong in (token[:-1], people.client.key, "x"):
        refused = await people.log_in(guest_token=wrong)
        assert refused.status_code == 422
        assert refused.json()["errors"] == [IsPartialDict(field="guest_token")]
    assert (await people.log_in(password="wrong", guest_token=token)).status_code == 401  # pragma: allowlist secret
    async with everything(people.client.server.database) as session:
        await session.execute(text("update turn set status = 'running'"))
    assert (await people.log_in(guest_token=token)).status_code == 409
    assert (await people.http.get("/api/auth/me", headers=bearer(token))).status_code == 200
    async with everything(people.client.server.database) as session:
        assert (await session.execute(text("select count(*) from login"))).scalar_one() == 0
        await session.execute(text("update turn set status = 'done'"))
    signed_in = await people.log_in(guest_token=token)
    assert signed_in.status_code == 200
    path = f"/api/conversations/{talk['conversation_id']}"
    assert (await people.http.get(path, headers=bearer(signed_in.json()["access_token"]))).status_code == 200
    assert (await people.http.get("/api/auth/me", headers=bearer(token))).status_code == 401


async def test_a_guest_is_claimed_once_and_by_no_guest(people: People) -> None:
    _, token = await people.guest()
    _, other = await people.guest()
    body = {"guest_token": token}
    assert (await people.http.post("/api/auth/claim", json=body, headers=bearer(other))).status_code == 403
    headers = [await people.headers(), await people.headers("bob@example.com")]
    answers = await asyncio.gather(*(people.http.post("/api/auth/claim", json=body, headers=h) for h in headers))
    assert sorted(answer.status_code for answer in answers) == [204, 422]


async def test_the_same_idempotency_key_of_guest_and_user_is_in_no_claims_way(people: People) -> None:
    headers = await people.headers()
    _, token = await people.guest()
    for auth in (headers, bearer(token)):
        sent = await people.http.post("/api/chat", json=QUESTION, headers={**auth, "Idempotency-Key": "one"})
        assert sent.status_code == 200
    claimed = await people.http.post("/api/auth/claim", json={"guest_token": token}, headers=headers)
    assert claimed.status_code == 204
    assert len((await people.http.get("/api/conversations", headers=headers)).json()["items"]) == 2


# --- Export, erasure, audit


async def scan(client: Client, needles: list[str]) -> dict[str, set[str]]:
    """In which tables each of these stands, in whichever column, as text or as bytes."""
    found: dict[str, set[str]] = {needle: set() for needle in needles}
    async with everything(client.server.database) as session:
        tables = (
            (
                await session.execute(
                    text("select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace")
                )
            )
            .scalars()
            .all()
        )
        for table in tables:
            rows = (await session.execute(text(f'select to_jsonb(t)::text from "{table}" t'))).scalars().all()
            for needle in needles:
                spelled = (needle, needle.encode().hex(), needle.replace("-", ""))
                if any(one in row for row in rows for one in spelled):
                    found[needle].add(table)
    return found


async def test_erasure_leaves_nothing_of_the_user_but_an_id_in_the_audit(people: People) -> None:
    server, ann, bob = people.client.server, people.ids["ann"], people.ids["bob"]
    headers = await people.headers()
    body = {"name": "k", "scopes": ["account:read"]}
    key = bearer((await people.http.post("/api/keys", json=body, headers=headers)).json()["key"])
    assert (await people.http.post("/api/chat", json=QUESTION, headers=headers)).status_code == 200
    async with everything(server.database) as session:
        for id, canary in ((ann, "canary of ann"), (bob, "canary of bob")):
            hashed = text("select password_hash from account where id = :id")
            stored = (await session.execute(hashed, {"id": id})).scalar_one()
            await session.execute(text("delete from account where id = :id"), {"id": id})
            await insert_row_of_everything(session, id, canary)
            await session.execute(
                text("update account set password_hash = :hash, disabled_at = null where id = :id"),
                {"hash": stored, "id": id},
            )
        rows = {name: await _count(session, name, bob) for name in (table.name for table in owned_tables())}
    for wrong in (None, {}, {"password": "wrong"}):  # pragma: allowlist secret
        assert (await people.http.request("DELETE", "/api/me", json=wrong, headers=headers)).status_code == 422
    assert (await people.http.request("DELETE", "/api/me", headers=key)).status_code == 403
    assert {ann} <= set.union(*(await _owners(people.client)).values())
    gone = await people.http.request("DELETE", "/api/me", json={"password": PASSWORD}, headers=headers)
    assert gone.status_code == 204, gone.text
    for auth in (headers, key):
        assert (await people.http.get("/api/auth/me", headers=auth)).status_code == 401
    # rows of these that were made up hold the canary
    kept = kept_for_good()
    assert await scan(people.client, [str(ann), "canary of ann"]) == {str(ann): kept, "canary of ann": kept}
    async with everything(server.database) as session:
        assert {name: await _count(session, name, bob) for name in rows} == rows
        assert min(rows.values()) >= 1
    assert (await people.acts(ann))[-1] == ("account.erased", "ok", "user")


async def _count(session: Any, name: str, owner: UUID) -> int:
    policy = row_policy_of(SQLModel.metadata.tables[name])
    assert policy is not None
    counted = text(f'select count(*) from "{name}" where {policy.column} = :owner')
    return int((await session.execute(counted, {"owner": owner})).scalar_one())


async def test_what_only_the_product_writes_is_erased_too(people: People) -> None:
    headers = await people.headers()
    marker = "zanzibar-4711"
    said = await people.http.post(
        "/api/chat", json={"message": f"Tell me of {marker}", "stream": False}, headers=headers
    )
    assert said.status_code == 200
    lead = {"email": f"{marker}@example.com"}
    assert (await people.http.post("/api/lead", json=lead, headers=headers)).status_code == 200
    task = {"title": f"Buy fins for {marker}"}
    assert (await people.http.post("/api/tools/create_task", json=task, headers=headers)).status_code == 200
    assert (await scan(people.client, [marker]))[marker] >= {"lead", "task", "item", "conversation", "turn"}
    gone = await people.http.request("DELETE", "/api/me", json={"password": PASSWORD}, headers=headers)
    assert gone.status_code == 204
    ann = str(people.ids["ann"])
    assert await scan(people.client, [marker, ANN, ann]) == {marker: set(), ANN: set(), ann: {"audit"}}


async def test_erasure_stops_the_answer_that_is_being_written(start: Start) -> None:
    async with start(offline_words_per_second=1) as client:
        people = await make_people(client)
        headers = await people.headers()
        async with client.http.stream("POST", "/api/chat", json={"message": QUESTION["message"]}, headers=headers) as s:
            frames = read_frames(s)
            async for frame in frames:
                if "text-delta" in str(frame):
                    break
            gone = await client.http.request("DELETE", "/api/me", json={"password": PASSWORD}, headers=headers)
            assert gone.status_code == 204
            with contextlib.suppress(httpx.HTTPError):  # the stream ends, or is cut
                _ = [frame async for frame in frames]
        ann = str(people.ids["ann"])
        assert await scan(client, [ann]) == {ann: {"audit"}}


async def test_a_key_without_the_scope_learns_nothing_of_its_owner(people: People) -> None:
    key = bearer(await people.client.new_key("tasks:*"))
    for path in ("/api/auth/me", "/api/me/export", "/api/me/audit", "/api/keys", "/api/users", "/api/audit"):
        refused = await people.http.get(path, headers=key)
        assert refused.status_code == 403, path
        assert "needs the scope" in refused.json()["detail"]


async def test_a_guest_and_the_owner_of_a_key_erase_themselves(people: People) -> None:
    id, token = await people.guest(level="Open Water")
    erased = await people.http.request("DELETE", "/api/me", headers=bearer(token))
    assert erased.status_code == 204
    assert (await people.http.get("/api/auth/me", headers=bearer(token))).status_code == 401
    assert await people.acts(id) == [("account.erased", "ok", "guest")]
    for scopes in (("account:read", "account:write"), ("tasks:*",)):
        lesser = bearer(await people.client.new_key(*scopes))
        assert (await people.http.request("DELETE", "/api/me", headers=lesser)).status_code == 403
    owner = bearer(await people.client.new_key("account:erase"))
    assert (await people.http.request("DELETE", "/api/me", headers=owner)).status_code == 204
    assert (await people.http.get("/api/auth/me", headers=owner)).status_code == 401


async def test_an_export_is_one_document_of_every_row_and_no_secret(people: People) -> None:
    headers = await people.headers()
    ann, bob = people.ids["ann"], people.ids["bob"]
    async with everything(people.client.server.database) as session:
        await session.execute(text("delete from account where id in (:ann, :bob)"), {"ann": ann, "bob": bob})
        await insert_row_of_everything(session, ann, "of ann")
        await insert_row_of_everything(session, bob, "of bob")
        enabled = "update account set disabled_at = null, password_hash = 'hash of ann'"  # pragma: allowlist secret
        await session.execute(text(enabled))
    response = await people.http.get("/api/me/export", headers=headers)
    assert response.status_code == 200, response.text
    document = response.json()
    assert document == {"id": str(ann), "exported_at": IsDatetime(iso_string=True), "tables": IsPartialDict()}
    assert "of bob" not in response.text and str(bob) not in response.text
    assert "hash of ann" not in response.text
    secret = {c.name for t in owned_tables() for c in t.columns if isinstance(c.type, LargeBinary)} | {"password_hash"}
    for table in owned_tables():
        if DERIVED.items() <= table.info.items():
            continue
        rows = document["tables"][table.name]
        assert len(rows) >= 1, table.name
        named = {column.name for column in table.columns}
        assert all(set(row) == named - secret for row in rows), table.name
    assert ("account.exported", "ok", "user") in await people.acts(ann)


async def test_an_export_goes_on_after_the_rows_that_are_read_at_once(people: People) -> None:
    headers = await people.headers()
    async with everything(people.client.server.database) as session:
        await session.execute(
            text(
                "insert into task (owner_id, id, title, description, status, created_at, updated_at) "
                "select :ann, gen_random_uuid(), n::text, '', 'open', now(), now() from generate_series(1, 450) n"
            ),
            {"ann": people.ids["ann"]},
        )
    exported = (await people.http.get("/api/me/export", headers=headers)).json()
    assert sorted(int(row["title"]) for row in exported["tables"]["task"]) == list(range(1, 451))


async def test_one_reads_ones_own_record_and_staff_read_that_of_all(people: People) -> None:
    headers, sam = await people.headers(), await people.headers("sam@example.com")
    own = (await people.http.get("/api/me/audit", headers=headers)).json()
    assert [act["action"] for act in own["items"]] == ["auth.login", "user.created"]
    assert {act["owner_id"] for act in own["items"]} == {str(people.ids["ann"])}
    first = (await people.http.get("/api/me/audit?limit=1", headers=headers)).json()
    rest = (await people.http.get("/api/me/audit", params={"cursor": first["next_cursor"]}, headers=headers)).json()
    assert first["items"] + rest["items"] == own["items"]
    read = await people.http.get("/api/audit", params={"subject": str(people.ids["ann"])}, headers=sam)
    assert read.json() == own
    for path in ("/api/audit", "/api/audit?subject=x", "/api/me/audit?cursor=x"):
        assert (await people.http.get(path, headers=sam)).status_code == 422
