"""Users of outside issuers: one account each, and no more than token and roles both allow."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import jwt
import pytest
from sqlalchemy import text

from agent_server.db import Database, now
from agent_server.errors import Unauthorized
from agent_server.identity.logins import issue_access
from agent_server.identity.resolver import Resolver
from agent_server.identity.roles import OWN_ACCOUNT, Roles, define_roles, narrow, staff_scopes
from agent_server.identity.users import create_user
from tests.conftest import everything

ISSUER = "https://auth.example"
AGENTS = frozenset({"tasks:read", "tasks:write", "users:read"})


@dataclass(frozen=True, kw_only=True)
class Said:
    """What an issuer says of a user."""

    issuer: str = ISSUER
    subject: str = "ann"
    name: str | None = None
    scopes: frozenset[str] | None = None
    roles: frozenset[str] = frozenset()
    expires_at: datetime = field(default_factory=lambda: now() + timedelta(hours=1))


class Issuer:
    """An issuer that says the same of every token."""

    def __init__(self, said: Said | None = None) -> None:
        self.said = said
        self.audiences: list[Collection[str]] = []

    async def verify(self, token: str, *, audience: Collection[str] = ()) -> Said:
        self.audiences.append(audience)
        if self.said is None:
            raise Unauthorized("not mine")
        return self.said

    async def close(self) -> None:
        pass


def _token(**claims: Any) -> str:
    return jwt.encode({"iss": ISSUER, "sub": "ann", **claims}, "k" * 32, algorithm="HS256")


def _resolver(database: Database, issuer: Issuer | None) -> Resolver:
    return Resolver(database, roles=define_roles({"clerk": ["notes:*", "tasks:read"]}, AGENTS), issuers=issuer)


async def test_a_token_of_an_issuer_that_is_not_trusted_is_refused(database: Database) -> None:
    for issuer in (None, Issuer()):
        with pytest.raises(Unauthorized):
            await _resolver(database, issuer).resolve(_token())
    async with everything(database) as session:
        assert (await session.execute(text("select count(*) from account"))).scalar_one() == 0


async def test_an_outside_issuer_says_nothing_about_our_tokens(database: Database) -> None:
    issuer = Issuer(Said())
    for claims in ({"iss": "agent-server"}, {"iss": "agent-server", "aud": "agent-server", "exp": 9_999_999_999}):
        with pytest.raises(Unauthorized, match="not a token that we have given"):
            await _resolver(database, issuer).resolve(_token(**claims))
    assert issuer.audiences == []


async def test_the_account_of_an_outsider_is_made_once_however_many_come_at_once(database: Database) -> None:
    resolver = _resolver(database, Issuer(Said(name="Ann")))
    callers = await asyncio.gather(*(resolver.resolve(_token(), audience=["here"]) for _ in range(6)))
    assert len({caller.id for caller in callers}) == 1
    assert callers[0].scopes == (AGENTS - staff_scopes()) | OWN_ACCOUNT
    other = await _resolver(database, Issuer(Said(subject="bob"))).resolve(_token())
    elsewhere = await _resolver(database, Issuer(Said(issuer="https://other.example"))).resolve(_token())
    assert len({callers[0].id, other.id, elsewhere.id}) == 3


async def test_an_outsider_is_taken_for_nobody_else_whatever_it_calls_itself(database: Database) -> None:
    async with everything(database) as session:
        taken = await create_user(session, f"local ({ISSUER} ann)")
    caller = await _resolver(database, Issuer(Said(name="local"))).resolve(_token())
    assert caller.id != taken.id
    async with everything(database) as session:
        assert (await create_user(session, "local")).id not in (caller.id, taken.id)


async def test_a_disabled_outsider_is_refused(database: Database) -> None:
    resolver = _resolver(database, Issuer(Said()))
    await resolver.resolve(_token())
    async with everything(database) as session:
        await session.execute(text("update account set disabled_at = now()"))
    with pytest.raises(Unauthorized, match="disabled"):
        await resolver.resolve(_token())


@pytest.mark.parametrize(
    ("scopes", "roles", "given", "expected"),
    [
        (None, set(), [], (AGENTS - staff_scopes()) | OWN_ACCOUNT),
        (None, {"clerk"}, [], {"notes:*", "tasks:read"}),
        (None, {"root", "no such role"}, [], (AGENTS - staff_scopes()) | OWN_ACCOUNT),
        (None, set(), ["clerk"], {"notes:*", "tasks:read"}),
        (None, {"admin"}, [], {"*"}),
        (set(), {"admin"}, [], set()),
        ({"openid", "offline_access", "https://x/y", "A:B"}, {"admin"}, [], set()),
        ({"tasks:read", "users:write"}, {"clerk"}, [], {"tasks:read"}),
        ({"tasks:*", "notes:read"}, {"clerk"}, [], {"tasks:read", "notes:read"}),
        ({"*"}, {"clerk"}, [], {"notes:*", "tasks:read"}),
    ],
)
async def test_an_outsider_may_what_token_and_roles_both_allow(
    database: Database, scopes: set[str] | None, roles: set[str], given: list[str], expected: set[str]
) -> None:
    said = Said(scopes=None if scopes is None else frozenset(scopes), roles=frozenset(roles))
    resolver = _resolver(database, Issuer(said))
    await resolver.resolve(_token())
    async with everything(database) as session:
        await session.execute(text("update account set roles = :roles"), {"roles": given})
    caller = await resolver.resolve(_token())
    assert caller.scopes == expected
    async with database.transaction(caller.id, scopes=caller.scopes) as session:
        await session.execute(text("select 1"))


async def test_our_tokens_are_signed_with_one_secret_on_all_replicas(database: Database, url: str) -> None:
    other = Database(url)
    resolvers = [_resolver(one, None) for one in (database, other, database)]
    secrets = await asyncio.gather(*(resolver.secret.get() for resolver in resolvers))
    await other.close()
    assert len(set(secrets)) == 1 and len(secrets[0]) == 32


def test_roles_of_the_settings_stand_beside_ours_and_in_their_place() -> None:
    roles = define_roles({"support": ["leads:read"], "staff": None, "user": ["tasks:read"]}, AGENTS)
    assert roles.of(["support"]) == {"leads:read"}
    assert roles.of(["staff"]) == (AGENTS - staff_scopes()) | OWN_ACCOUNT
    assert roles.of([]) == roles.of(["gone"]) == {"tasks:read"}
    assert roles.of(["support", "user"]) == {"leads:read", "tasks:read"}


def test_a_role_by_default_holds_nothing_that_is_for_staff() -> None:
    roles = define_roles({}, AGENTS | staff_scopes())
    assert not roles.of([]) & staff_scopes()
    assert Roles({"user": frozenset()}).of([]) == narrow({"*"}, []) == frozenset()


async def test_a_token_says_nothing_without_its_login(database: Database) -> None:
    resolver = _resolver(database, None)
    async with everything(database) as session:
        user = await create_user(session, "ann")
    token = issue_access(await resolver.secret.get(), user.id, user.id, 5)
    with pytest.raises(Unauthorized, match="has ended"):
        await resolver.resolve(token)
