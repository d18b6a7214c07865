"""What a caller may is asked again when its work begins later, and nothing is kept of one who is gone by then."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlmodel import SQLModel

from agent_server import ToolContext, tool, update_profile
from agent_server.caller import Caller
from agent_server.calls.call import Runtime, call_tool
from agent_server.db import Database, new_id, now
from agent_server.db.isolation import row_policy_of
from agent_server.errors import AgentServerError, Conflict, Forbidden, NotFound, Unauthorized
from agent_server.identity.accounts import Accounts, Act
from agent_server.identity.credentials import MOST_KEYS, issue_guest, issue_key
from agent_server.identity.resolver import Resolver
from agent_server.identity.roles import define_roles
from agent_server.identity.users import create_user
from agent_server.settings import Settings
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.models import Turn
from tests.conftest import everything
from tests.turns.ledger import Replica, ended, kill, never, read_turn, replica, until

ACT = Act(surface="rest")
ROLES = {"clerk": ["tasks:read", "tasks:write", "conversations:*"]}


def _resolver(database: Database) -> Resolver:
    return Resolver(database, roles=define_roles({name: tuple(scopes) for name, scopes in ROLES.items()}, []))


async def _user(database: Database, *roles: str) -> UUID:
    id = new_id()
    async with database.transaction(id) as session:
        await create_user(session, f"user {id}", id=id, roles=roles)
    return id


async def _by_key(database: Database, *scopes: str, by_roles: bool = False, **more: Any) -> Caller:
    """A user with a role, as it calls with a key of its own."""
    id = await _user(database, "clerk")
    async with database.transaction(id) as session:
        issued = await issue_key(
            session, id, name="k", scopes=scopes or ("conversations:*", "tasks:read"), by_roles=by_roles, **more
        )
    return await _resolver(database).resolve(issued.text)


async def _by_role(database: Database) -> Caller:
    id = await _user(database, "clerk")
    return Caller(id=id, kind="user", scopes=frozenset({"tasks:read", "conversations:write"}), by_roles=True)


async def _as_guest(database: Database) -> Caller:
    id = new_id()
    async with database.transaction(id) as session:
        await issue_guest(session, id, hours=1)
    return Caller(id=id, kind="guest", scopes=frozenset({"conversations:write", "tasks:write"}))


# --- Turns that begin later


class Seen:
    """A run loop that keeps whom it was run for."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []

    async def __call__(self, attempt: Attempt) -> Outcome:
        self.callers.append(attempt.caller)
        return Outcome()


async def _revoke(database: Database, caller: Caller) -> None:
    assert caller.key_id is not None
    await Accounts(database, _resolver(database)).end_key(ACT, caller, caller.key_id)


async def _expire(database: Database, caller: Caller) -> None:
    async with everything(database) as session:
        await session.execute(text("update api_key set expires_at = now() where id = :id"), {"id": caller.key_id})


async def _disable(database: Database, caller: Caller) -> None:
    await Accounts(database, _resolver(database)).change_user(ACT, None, caller.id, disabled=True)


async def _take_role(database: Database, caller: Caller) -> None:
    await Accounts(database, _resolver(database)).change_user(ACT, None, caller.id, roles=[])


async def _put_off(here: Replica, database: Database, caller: Caller) -> Turn:
    """A turn that waits: nobody has room for it."""
    turn = await here.send(caller, "later")
    assert turn.status == "queued"
    return turn


@pytest.mark.parametrize("taken_over", [False, True])
@pytest.mark.parametrize(
    ("make", "end"),
    [(_by_key, _revoke), (_by_key, _expire), (_by_key, _disable), (_by_role, _disable)],
    ids=["key revoked", "key expired", "account of the key disabled", "account disabled"],
)
async def test_a_turn_that_waits_does_not_begin_once_its_credential_has_ended(
    database: Database,
    make: Callable[[Database], Awaitable[Caller]],
    end: Callable[[Database, Caller], Awaitable[None]],
    taken_over: bool,
) -> None:
    seen, caller = Seen(), await make(database)
    async with replica(database, never, slots=1 if taken_over else 0) as full:
        turn = await full.send(caller, "later")
        await end(database, caller)
        if taken_over:
            await kill(database, turn)
        async with replica(database, seen, renew=_resolver(database).renew):
            await until(lambda: ended(database, turn))
    row = await read_turn(database, turn)
    assert (row.status, (row.error or {})["code"], seen.callers) == ("failed", "unauthorized", [])
    assert "ended" in (row.error or {})["message"] or "disabled" in (row.error or {})["message"]


@pytest.mark.parametrize("by_key", [False, True])
async def test_a_turn_that_waits_loses_what_is_taken_from_its_senders_roles(database: Database, by_key: bool) -> None:
    seen = Seen()
    caller = await (_by_key(database, by_roles=True) if by_key else _by_role(database))
    async with replica(database, never, slots=0) as full:
        turn = await _put_off(full, database, caller)
        await _take_role(database, caller)
        async with replica(database, seen, renew=_resolver(database).renew):
            await until(lambda: ended(database, turn))
    (as_begun,) = seen.callers
    assert not as_begun.may("tasks:read")
    assert as_begun.may("conversations:write")


async def test_a_turn_that_waits_keeps_what_its_sender_still_has(database: Database) -> None:
    seen = Seen()
    callers = [await _by_key(database), await _by_role(database), await _as_guest(database)]
    callers.append(replace(await _by_key(database), network="a network"))
    async with replica(database, never, slots=0) as full:
        turns = [await _put_off(full, database, caller) for caller in callers]
        async with replica(database, seen, renew=_resolver(database).renew):
            await until(lambda: ended(database, *turns))
    parts = [
        (c.id, c.kind, c.scopes, c.key_id, c.by_roles, c.network) for c in sorted(seen.callers, key=lambda c: c.id)
    ]
    assert parts == [(c.id, c.kind, c.scopes, c.key_id, c.by_roles, c.network) for c in callers]


# --- Callers who are erased while a request of theirs is under way


@tool(scope="tasks:write", effect="stored")
async def remember(context: ToolContext, word: str) -> None:
    """Keep a word in the profile."""
    await update_profile(context.session, context.caller, {"word": word})


@tool(scope="tasks:write", effect="keyed")
async def send(context: ToolContext) -> None:
    """Send something, and keep that it was sent."""
    await update_profile(context.session, context.caller, {"sent": True})


async def _chat(here: Replica, accounts: Accounts, caller: Caller) -> None:
    await here.accept(caller, conversation_id=new_id(), create=True)


async def _make_key(here: Replica, accounts: Accounts, caller: Caller) -> None:
    await accounts.make_key(ACT, caller, "more", ["conversations:write"], None)


async def _remember(here: Replica, accounts: Accounts, caller: Caller) -> None:
    runtime = Runtime(settings=Settings(), database=here.database)
    await call_tool(runtime, remember, {"word": "kept"}, caller=caller, surface="rest")


async def _send(here: Replica, accounts: Accounts, caller: Caller) -> None:
    runtime = Runtime(settings=Settings(), database=here.database)
    await call_tool(runtime, send, {}, caller=caller, surface="rest")


REQUESTS = [_chat, _make_key, _remember, _send]


async def _left(database: Database, owner: UUID) -> dict[str, int]:
    """How many rows each table has of an owner, but for the audit."""
    left = {}
    async with everything(database) as session:
        for table in SQLModel.metadata.sorted_tables:
            policy = row_policy_of(table)
            if policy is None or policy.shared or policy.append_only:
                continue
            found = await session.execute(
                text(f"select count(*) from {table.name} where {policy.column} = :id"), {"id": owner}
            )
            left[table.name] = found.scalar_one()
    return {table: rows for table, rows in left.items() if rows}


async def _nothing_runs(_: UUID) -> None:
    pass


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("make", [_by_key, _by_role, _as_guest])
async def test_a_request_that_was_let_in_before_its_caller_was_erased_leaves_nothing(
    database: Database, make: Callable[..., Awaitable[Caller]], request_: Callable[..., Awaitable[None]]
) -> None:
    caller = replace(await make(database), scopes=frozenset({"*"}))
    accounts = Accounts(database, _resolver(database))
    async with replica(database, never, slots=0) as here:
        await accounts.erase(ACT, caller, None, _nothing_runs)
        with pytest.raises(Unauthorized):
            await request_(here, accounts, caller)
    assert await _left(database, caller.id) == {}


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("make", [_by_key, _by_role, _as_guest])
async def test_a_request_at_the_moment_in_which_its_caller_is_erased_leaves_nothing(
    database: Database, make: Callable[..., Awaitable[Caller]], request_: Callable[..., Awaitable[None]]
) -> None:
    accounts = Accounts(database, _resolver(database))
    async with replica(database, never, slots=0) as here:
        for n in range(6):
            caller = replace(await make(database), scopes=frozenset({"*"}))

            async def later(caller: Caller = caller, n: int = n) -> None:
                await asyncio.sleep(n / 1000)
                await accounts.erase(ACT, caller, None, _nothing_runs)

            results = await asyncio.gather(
                *(request_(here, accounts, caller) for _ in range(3)), later(), return_exceptions=True
            )
            unexpected = [r for r in results if isinstance(r, BaseException) and not isinstance(r, AgentServerError)]
            assert unexpected == []
            assert results[-1] is None
            assert await _left(database, caller.id) == {}


# --- Conversations of another credential


async def test_who_may_not_read_a_conversation_does_not_have_a_model_read_it_out(database: Database) -> None:
    wide = await _by_key(database, "conversations:*", "tasks:read")
    narrow = replace(wide, scopes=frozenset({"conversations:write"}))
    async with replica(database, never, slots=0) as here:
        theirs = await here.send(wide, "a secret")
        for on_busy in ("queue", "reject", "steer", "interrupt"):
            with pytest.raises((Forbidden, Conflict)) as refused:
                await here.send(narrow, "repeat it", conversation_id=theirs.conversation_id, on_busy=on_busy)
            if isinstance(refused.value, Forbidden):
                assert refused.value.scope == "conversations:read"
        own = await here.send(narrow, "mine")
        await here.send(narrow, "more", conversation_id=own.conversation_id)
        # Whoever may all that was done there may go on with it.
        await here.send(wide, "more", conversation_id=own.conversation_id)
        with pytest.raises(NotFound):
            await here.send(narrow, "x", conversation_id=new_id())


# --- Keys without end


async def test_there_are_so_many_keys_of_a_user_and_what_ended_long_ago_is_removed(database: Database) -> None:
    caller = replace(await _by_key(database), scopes=frozenset({"*"}))
    accounts = Accounts(database, _resolver(database))
    async with everything(database) as session:
        for n in range(MOST_KEYS - 2):
            await issue_key(
                session, caller.id, name=str(n), scopes=["tasks:read"], expires_at=now() - timedelta(days=29)
            )
    first = await accounts.make_key(ACT, caller, "last", ["tasks:read"], None)
    with pytest.raises(Conflict, match="200 keys"):
        await accounts.make_key(ACT, caller, "more", ["tasks:read"], None)
    async with everything(database) as session:
        await session.execute(
            text("update api_key set expires_at = now() - interval '31 days' where expires_at is not null")
        )
    await accounts.make_key(ACT, caller, "more", ["tasks:read"], None)
    async with everything(database) as session:
        names = (
            await session.execute(text("select name from api_key where owner_id = :id"), {"id": caller.id})
        ).scalars()
        assert sorted(names) == ["k", "last", "more"]
    assert first.row.name == "last"
