"""What users let clients do: begun with a code, held by refresh tokens, ended by the user, by us or by its time.

A code or a refresh token that comes a second time was stolen, or the first was: the grant ends. Which of two that come at
once is the first, the row decides, on whichever replica they come.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.db import Database, Executor, new_id, now
from agent_server.errors import Conflict, NotFound, Unauthorized
from agent_server.identity.accounts import Act
from agent_server.identity.credentials import keep_credential
from agent_server.identity.logins import SigningSecret
from agent_server.oauth.tokens import CODE_SECONDS, Granted, Request, issue_code, read_access
from agent_server.settings import Settings

MOST_GRANTS = 100
"""Of one owner, at the same time."""
CONNECTED, DISCONNECTED, REUSED = "client.connected", "client.disconnected", "client.token_reused"  # acts on record
ENDED = "This client is no longer connected; connect it again"

_LOCK = text("select pg_advisory_xact_lock(hashtextextended('grants of ' || :owner, 0))")
_FORGET = text("""
    delete from oauth_grant where owner_id = :owner_id
      and (revoked_at < now() or expires_at < now() or (exchanged_at is null and code_expires_at < now()))""")
_COUNT = text("select count(*) from oauth_grant where owner_id = :owner_id")
_ADD = text("""
    insert into oauth_grant (owner_id, id, client_id, client_name, redirect_uri, redirect_named, resource, scopes, challenge,
                             code_sha, code_expires_at, refreshes, created_at, expires_at)
    values (:owner_id, :id, :client_id, :client_name, :redirect_uri, :redirect_named, :resource, :scopes, :challenge,
            :code_sha, :code_expires_at, 0, now(), :expires_at)""")
_FIND = text("select * from oauth_grant where owner_id = :owner_id and id = :id")
_HOLDS = text(
    "select revoked_at is null and expires_at > now() as holds from oauth_grant where owner_id = :owner_id and id = :id"
)
_EXCHANGE = text("""
    update oauth_grant set exchanged_at = now(), last_used_at = now(), refreshes = 1
    where owner_id = :owner_id and id = :id and exchanged_at is null and revoked_at is null and code_expires_at > now()
    returning id""")
_REFRESH = text("""
    update oauth_grant set last_used_at = now(), refreshes = refreshes + 1
    where owner_id = :owner_id and id = :id and refreshes = :number and exchanged_at is not null and revoked_at is null
      and expires_at > now()
    returning id""")
_END = text("""
    update oauth_grant set revoked_at = now()
    where owner_id = :owner_id and id = :id and revoked_at is null and expires_at > now() returning id""")
_LIST = text("""
    select id, client_id, client_name, redirect_uri, resource, scopes, created_at, last_used_at, expires_at
    from oauth_grant
    where owner_id = :owner_id and exchanged_at is not null and revoked_at is null and expires_at > now()
    order by created_at desc, id desc""")


@dataclass(frozen=True)
class StoredGrants:
    """The grants of one database, as the resolver asks for them. `issuer` is who gives tokens for them."""

    database: Database
    issuer: str
    secret: SigningSecret

    async def read(self, token: str, *, audience: Collection[str]) -> Granted:
        """What a token says that is for one of `audience`. Raises Unauthorized."""
        return read_access(await self.secret.get(), self.issuer, token, audience)

    async def check(self, session: Executor, owner_id: UUID, grant_id: UUID) -> None:
        """Raises Unauthorized for a grant that has ended."""
        row = (await session.execute(_HOLDS, {"owner_id": owner_id, "id": grant_id})).one_or_none()
        if row is None or not row.holds:
            raise Unauthorized(ENDED)


def find_grants(settings: Settings, database: Database) -> StoredGrants | None:
    """The grants of clients that were let in here. None where none is let in."""
    issuer = find_issuer(settings)
    return None if issuer is None else StoredGrants(database, issuer, SigningSecret(database))


def find_issuer(settings: Settings) -> str | None:
    """What the server's own authorisation server calls itself. None where it is off."""
    return settings.public_url if settings.oauth else None


async def begin_grant(
    session: Executor, act: Act, owner_id: UUID, asked: Request, scopes: Collection[str], days: int
) -> str:
    """A grant of these scopes. Returns its code.

    Raises Conflict where the owner has too many, and Unauthorized where the account is gone or disabled.
    """
    await keep_credential(session, Caller(id=owner_id, kind="user", by_roles=True))
    # Of several at once each must see those that the others have begun.
    await session.execute(_LOCK, {"owner": str(owner_id)})
    await session.execute(_FORGET, {"owner_id": owner_id})
    if (await session.execute(_COUNT, {"owner_id": owner_id})).scalar_one() >= MOST_GRANTS:
        raise Conflict(f"{MOST_GRANTS} clients are connected, the most there may be; disconnect one first")
    id = new_id()
    code, sha = issue_code(owner_id, id)
    values = {
        "owner_id": owner_id,
        "id": id,
        "client_id": asked.client_id,
        "client_name": asked.client_name,
        "redirect_uri": asked.redirect_uri,
        "redirect_named": asked.redirect_named,
        "resource": asked.resource,
        "scopes": sorted(scopes),
        "challenge": asked.challenge,
        "code_sha": sha,
        "code_expires_at": now() + timedelta(seconds=CODE_SECONDS),
        "expires_at": now() + timedelta(days=days),
    }
    await session.execute(_ADD, values)
    await act.record(session, owner_id, CONNECTED)  # type: ignore[arg-type]  # the audit only executes on it
    return code


async def find_grant(session: Executor, owner_id: UUID, id: UUID) -> Any:
    """The row of a grant, also of one that has ended. None where there is none."""
    return (await session.execute(_FIND, {"owner_id": owner_id, "id": id})).one_or_none()


async def exchange(session: Executor, owner_id: UUID, id: UUID) -> bool:
    """Use up the code of a grant. Returns whether it was the first time."""
    return (await session.execute(_EXCHANGE, {"owner_id": owner_id, "id": id})).first() is not None


async def refresh(session: Executor, owner_id: UUID, id: UUID, number: int) -> bool:
    """Use up a refresh token. Returns whether it was the latest one."""
    return (await session.execute(_REFRESH, {"owner_id": owner_id, "id": id, "number": number})).first() is not None


async def end_grant(session: Executor, act: Act, owner_id: UUID, id: UUID, action: str, outcome: str = "ok") -> bool:
    """End a grant and record why. Returns whether there was one that held."""
    ended = (await session.execute(_END, {"owner_id": owner_id, "id": id})).first() is not None
    if ended:
        await act.record(session, owner_id, action, outcome=outcome)  # type: ignore[arg-type]  # the audit only executes on it
    return ended


async def list_grants(database: Database, owner_id: UUID) -> Sequence[Any]:
    """The clients that an owner has connected with the newest first."""
    async with database.transaction(owner_id) as session:
        return (await session.execute(_LIST, {"owner_id": owner_id})).all()


async def disconnect(database: Database, act: Act, owner_id: UUID, id: UUID) -> None:
    """End a grant of the owner's. Raises NotFound."""
    async with database.transaction(owner_id) as session:
        if not await end_grant(session, act, owner_id, id, DISCONNECTED):
            raise NotFound(f"There is no connected client {id}; list them to see which there are")
