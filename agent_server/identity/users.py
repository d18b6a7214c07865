"""The rows of users."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from agent_server.db import Executor, new_id
from agent_server.errors import Conflict, InvalidInput, Unauthorized, quote_value
from agent_server.identity.models import User

DISABLED = "This account is disabled; ask whoever runs this server"
_ROLES = text("select roles, disabled_at from account where id = :id")
LOCAL_USER = "local"
"""The user that the command line acts as. Nobody but the operator makes or changes it."""


async def create_user(
    session: AsyncSession,
    name: str,
    *,
    id: UUID | None = None,
    email: str | None = None,
    password_hash: str | None = None,
    roles: Iterable[str] = (),
) -> User:
    """Raises Conflict when the name or the e-mail is taken."""
    email = email and email.lower()
    if await find_user(session, name) is not None:
        raise Conflict(f"There is a user {quote_value(name)} already")
    row = User(id=id or new_id(), name=name, email=email, password_hash=password_hash, roles=sorted(set(roles)))
    session.add(row)
    try:
        await session.flush()
    # Two that come at once both find the name free; only the database can tell.
    except IntegrityError:
        raise Conflict(f"There is a user {quote_value(name)} already, or one with this e-mail") from None
    return row


async def roles_of_account(session: Executor, id: UUID) -> frozenset[str]:
    """The roles that somebody who signs in here has now. Raises Unauthorized where the account is gone or disabled."""
    row = (await session.execute(_ROLES, {"id": id})).one_or_none()
    if row is None or row.disabled_at is not None:
        raise Unauthorized("This account is no more; sign in with another one" if row is None else DISABLED)
    return frozenset(row.roles)


async def find_user(session: AsyncSession, name: str) -> User | None:
    return (await session.execute(select(User).where(col(User.name) == name))).scalar_one_or_none()


async def page_users(session: AsyncSession, limit: int, cursor: str | None = None) -> tuple[Sequence[User], str | None]:
    """So many users with the newest first and the cursor of the next page.

    Raises InvalidInput for a cursor that is none.
    """
    statement = select(User).order_by(col(User.id).desc()).limit(limit + 1)
    if cursor is not None:
        try:
            statement = statement.where(col(User.id) < UUID(cursor))
        except ValueError:
            raise InvalidInput(
                "cursor: not one of ours; pass next_cursor of the page before, or leave it out"
            ) from None
    rows = (await session.execute(statement)).scalars().all()
    return rows[:limit], str(rows[limit - 1].id) if len(rows) > limit else None
