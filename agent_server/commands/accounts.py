"""agent-server key | user"""

import sys
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from agent_server.commands.context import CommandContext
from agent_server.commands.stores import get_user
from agent_server.commands.terminal import say, show
from agent_server.db import Database
from agent_server.errors import InvalidInput
from agent_server.identity.accounts import Accounts, Act
from agent_server.identity.credentials import issue_key, list_keys, revoke_key
from agent_server.identity.models import ApiKey, User
from agent_server.identity.resolver import Resolver
from agent_server.identity.roles import ADMIN, define_roles
from agent_server.identity.users import find_user, page_users


def accounts_of(context: CommandContext, database: Database) -> Accounts:
    """The accounts. Their roles have names alone: whoever runs the server may give each, whatever it holds."""
    return Accounts(database, Resolver(database, roles=define_roles(context.settings.roles, ())))


def _scopes_of(context: CommandContext, names: Collection[str]) -> frozenset[str]:
    """The scopes of somebody with these roles."""
    given = context.settings.roles
    alone = {ADMIN, *(name for name, scopes in given.items() if scopes is not None)}
    if names and alone.issuperset(names):
        return define_roles(given, ()).of(names)
    # Those of the others follow from what the agents need.
    return define_roles(given, context.workspace.agent_scopes, context.workspace.staff_scopes).of(names)


async def key_create(
    context: CommandContext, name: str, scopes: list[str], days: int | None, user: str, as_json: bool
) -> None:
    database = await context.engine_database()
    owner = await get_user(database, user)
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    # Not what an outside issuer has named: that holds in its tokens, and the issuer may take it back.
    by_roles = _scopes_of(context, owner.roles)
    act = Act(surface="cli")
    async with database.transaction(owner.id) as transaction:
        issued = await issue_key(
            transaction,
            owner.id,
            name=name,
            scopes=scopes or sorted(by_roles),
            expires_at=expires,
            by_roles=not scopes,
        )
        await act.record(transaction, owner.id, "key.created", kind="operator")
    if as_json:
        show({**_key_view(issued.row), "user": owner.name, "key": issued.text})
    else:
        say(f"{issued.text}\n\nIt is not stored and not shown again. Send it as `Authorization: Bearer <key>`.")


async def key_list(context: CommandContext, as_json: bool) -> None:
    async with (await context.engine_database()).transaction(scopes=["users:read"]) as transaction:
        keys = await list_keys(transaction)
    if as_json:
        show([_key_view(key) for key in keys])
        return
    for key in keys:
        state = "revoked" if key.revoked_at else "works"
        used = f"used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
        say(f"{key.id}  {state:<8} {key.name:<16} {used:<22} {' '.join(key.scopes)}")


async def key_revoke(context: CommandContext, id: str) -> None:
    try:
        key_id = UUID(id)
    except ValueError:
        raise InvalidInput("id: this is no key's id; `agent-server key list` shows the ids") from None
    database = await context.engine_database()
    async with database.transaction(scopes=["users:*"]) as transaction:
        # By two transactions: whoever revokes sees all keys, but the record of it belongs to the owner of the key.
        owner = (await revoke_key(transaction, key_id)).owner_id
    async with database.transaction(owner) as transaction:
        await Act(surface="cli").record(transaction, owner, "key.revoked", kind="operator")
    say(f"Revoked {key_id}")


def _key_view(key: ApiKey) -> dict[str, Any]:
    return {
        "id": str(key.id),
        "name": key.name,
        "scopes": key.scopes,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }


async def user_create(
    context: CommandContext, name: str, email: str | None, password_stdin: bool, roles: list[str], as_json: bool
) -> None:
    password = _read_password() if password_stdin else None
    email = None if email is None else _check_email(email)
    made = accounts_of(context, await context.engine_database())
    user = await made.make_user(Act(surface="cli"), None, name, email=email, password=password, roles=roles)
    if as_json:
        given = {"email": user.email} if email else {}
        show({"id": str(user.id), "name": user.name, **given, **({"roles": user.roles} if roles else {})})
    else:
        say(f"Made {user.name} ({user.id}). A key for them: agent-server key create --user {user.name}")


async def user_list(context: CommandContext, as_json: bool) -> None:
    async with (await context.engine_database()).transaction(scopes=["users:read"]) as transaction:
        page, cursor = await page_users(transaction, 200)
        users = list(page)
        while cursor is not None:
            page, cursor = await page_users(transaction, 200, cursor)
            users += page
    if as_json:
        show([_user_view(user) for user in users])
        return
    for user in users:
        state = "disabled" if user.disabled_at else "works"
        say(f"{user.id}  {state:<8} {user.name:<24} {user.email or '':<24} {' '.join(user.roles)}")


async def user_change(
    context: CommandContext,
    name: str,
    *,
    disabled: bool | None = None,
    password_stdin: bool = False,
    roles: list[str] | None = None,
) -> None:
    """What `user disable`, `enable`, `password` and `role` do."""
    password = _read_password() if password_stdin else None
    database = await context.engine_database()
    async with database.transaction(scopes=["users:read"]) as transaction:
        user = await find_user(transaction, name)
    if user is None:
        raise InvalidInput(f"There is no user {name!r}; `agent-server user list` shows which there are")
    changed = await accounts_of(context, database).change_user(
        Act(surface="cli"), None, user.id, roles=roles, disabled=disabled, password=password
    )
    state = "disabled" if changed.disabled_at else "works"
    say(f"{changed.name}: {state}; roles: {' '.join(changed.roles) or 'user'}")


def _read_password() -> str:
    """The first line of standard input."""
    # A password among the arguments would be in the list of processes and in the history of the shell.
    return sys.stdin.readline().rstrip("\r\n")


def _check_email(email: str) -> str:
    from email_validator import EmailNotValidError, validate_email  # noqa: PLC0415  # heavy

    try:
        # No look-up in DNS: a user can be made without a network, and the address is a name to sign in with.
        return validate_email(email, check_deliverability=False).normalized
    except EmailNotValidError as error:
        raise InvalidInput(f"email: {error}") from None


def _user_view(user: User) -> dict[str, Any]:
    return {
        "id": str(user.id),
        "name": user.name,
        "email": user.email,
        "roles": user.roles,
        "created_at": user.created_at,
        "disabled_at": user.disabled_at,
    }
