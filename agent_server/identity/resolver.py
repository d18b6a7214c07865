"""From a credential to the caller that it stands for.

The caller's requests are counted. Nothing is kept in the process: what is revoked or disabled is refused by the next
request on any replica.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.db import Database, Executor, new_id, now
from agent_server.errors import TooMany, Unauthorized
from agent_server.identity.credentials import (
    EXPIRED,
    GUEST,
    KEY,
    MAX_TOKEN,
    NOT_OURS,
    REVOKED,
    SCOPE,
    UNKNOWN,
    IssuedGuest,
    check_guest,
    issue_guest,
    parse_token,
)
from agent_server.identity.limits import (
    CALLER_KEY,
    HOUR,
    MINUTE,
    Act,
    Limits,
    caller_key,
    limit_key,
    network_of,
    refuse,
    take_all,
    take_sql,
    values_of,
)
from agent_server.identity.logins import OURS, SigningSecret, read_access, roles_of_login
from agent_server.identity.profiles import update_profile
from agent_server.identity.rights import GUEST_SCOPES
from agent_server.identity.roles import Roles, define_roles, narrow, staff_scopes
from agent_server.identity.users import DISABLED, roles_of_account
from agent_server.identity.verifiers import Grants, OutsideToken, Verifier
from agent_server.late import Late
from agent_server.settings import Settings

if TYPE_CHECKING:
    import jwt
else:
    jwt = Late("jwt")

_TOUCH_KEY = text("update api_key set last_used_at = now() where owner_id = :owner_id and id = :id")
# The address is counted whatever the key is, and its owner for a key that works. `stale`: a key in use is written to once
# a minute, and not at every request.
_FIND_KEY = text(f"""
    with address as ({take_sql("address")}),
    let_in as (select 1 as one where :address_free or exists (select from address)),
    found as (
        select k.*, last_used_at is null or last_used_at < now() - interval '1 minute' as stale,
            revoked_at is not null or disabled_at is not null as ended, expires_at <= now() as expired
        from let_in cross join find_key(:id, :sha) k),
    caller as ({take_sql("caller", f"{CALLER_KEY.format('owner_id')} from found where :caller_counts and not ended and expired is not true")})
    select exists (select from let_in) as let_in, owner_id, scopes, expires_at, by_roles, roles, stale, ended,
        not :caller_counts or exists (select from caller) as caller_let_in
    from (select) one left join found on true""")  # noqa: S608  # SQL of our own
_FIND_OUTSIDER = text("select id, roles, disabled_at, issuer_roles from find_outsider(:issuer, :subject)")
# No rows where there is no account: a guest has none.
_STATE = text("""
    select a.disabled_at is not null as disabled, a.roles || a.issuer_roles as roles,
        exists (select from api_key k where k.owner_id = :owner_id and k.id = :key_id and k.revoked_at is null
                and (k.expires_at is null or k.expires_at > now())) as key_works
    from (select) one left join account a on a.id = :owner_id""")
_ADD_ROLES = text("""
    update account set issuer_roles = array(select distinct unnest(issuer_roles || cast(:more as text[])) order by 1)
    where id = :id""")
# Of several first requests of one user at once, one makes the account and the others find it.
_MAKE_OUTSIDER = text("""
    insert into account (id, name, roles, issuer, subject, created_at, updated_at)
    values (:id, :name, '{}', :issuer, :subject, now(), now()) on conflict do nothing""")
_FORMS = "forms:read"
"""The scope of `offer_form`, which every agent has without listing it."""


class Resolver:
    """Finds the caller that a credential stands for and counts its requests."""

    def __init__(
        self,
        database: Database,
        *,
        guest_scopes: Iterable[str] = (),
        roles: Roles | None = None,
        issuers: Verifier | None = None,
        grants: Grants | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.guest_scopes = frozenset(guest_scopes)
        self.roles = roles or define_roles({}, self.guest_scopes)
        self.secret = SigningSecret(database)
        self.limits = limits or Limits()
        self._database, self._issuers, self._grants = database, issuers, grants

    async def resolve(self, token: str, *, address: str | None = None, audience: Collection[str] = ()) -> Caller:
        """The caller of `token`. Its request comes from `address`; `audience` is what an outside token may be meant
        for beside what was configured. Raises Unauthorized, TooMany, and Unavailable where an issuer's keys cannot be
        had."""
        if (key := _read_key(token)) is not None:
            return await self.add_network(await self._resolve_key(*key, address), address)
        try:
            caller = await self._resolve(token, address, audience)
        except Unauthorized:
            # The refusal has undone the count, and who guesses credentials must be counted.
            async with self._database.quick() as session:
                await self.count_address(session, address)
            raise
        return await self.add_network(caller, address)

    async def add_network(self, caller: Caller, address: str | None) -> Caller:
        """The caller with a hash of the network that `address` belongs to."""
        if address is None:
            return caller
        return replace(caller, network=limit_key(await self.secret.get(), "network", network_of(address)))

    async def renew(self, caller: Caller) -> Caller:
        """The caller as its credential is now, for work that was put off. It never gains a scope.

        Raises Unauthorized where its key has ended or its account is disabled.
        """
        async with self._database.quick(caller.id) as session:
            now = (await session.execute(_STATE, {"owner_id": caller.id, "key_id": caller.key_id})).one()
            if caller.grant_id is not None and self._grants is not None:
                await self._grants.check(session, caller.id, caller.grant_id)
        if caller.key_id is not None and not now.key_works:
            raise Unauthorized("The key that this message was sent with has ended; send it again with another key")
        if now.disabled:
            raise Unauthorized(DISABLED)
        if not caller.by_roles or now.roles is None:
            return caller
        return replace(caller, scopes=narrow(self.roles.of(now.roles), caller.scopes))

    async def close(self) -> None:
        if self._issuers is not None:
            await self._issuers.close()

    async def count_address(self, session: Executor, address: str | None) -> None:
        """Count a request from there. Raises TooMany."""
        await take_all(session, await self._of_address(address), None)

    async def count_guest(self, session: Executor, address: str | None) -> None:
        """Count a new guest from there. Raises TooMany."""
        guests = await self._act("guests", address and network_of(address), HOUR, self.limits.guests_per_address)
        await take_all(session, await self._of_address(address), guests)

    async def create_guest(
        self, hours: int, address: str | None, profile: Mapping[str, Any] | None = None
    ) -> IssuedGuest:
        """A new guest from that address. Raises TooMany, and InvalidInput as `update_profile`."""
        id = new_id()
        # Read before a transaction is open: inside it would take a second connection of the pool.
        await self.secret.get()
        async with self._database.transaction(id) as session:
            await self.count_guest(session, address)
            issued = await issue_guest(session, id, hours)
            if profile:
                await update_profile(session, Caller(id=id, kind="guest"), profile)
        return issued

    async def _act(self, kind: str, of: str | None, seconds: float, burst: int) -> Act | None:
        return Act(limit_key(await self.secret.get(), kind, of), seconds, burst) if of is not None and burst else None

    async def _of_address(self, address: str | None) -> Act | None:
        return await self._act("address", address and network_of(address), MINUTE, self.limits.per_address)

    def _of_caller(self, id: UUID) -> Act | None:
        burst = self.limits.per_caller
        return Act(caller_key(id), MINUTE, burst) if burst else None

    async def _count(self, session: Executor, address: str | None, id: UUID) -> None:
        """Count a request of a caller from there. Raises TooMany."""
        await take_all(session, await self._of_address(address), self._of_caller(id))

    async def _resolve(self, token: str, address: str | None, audience: Collection[str]) -> Caller:
        if len(token) > MAX_TOKEN:
            raise Unauthorized(NOT_OURS)
        # Read before a transaction is open: inside it would take a second connection of the pool.
        await self.secret.get()
        # A JWT has two dots, a key or a guest's token one.
        if token.count(".") == 2:
            return await self._resolve_jwt(token, address, audience)
        prefix, id, digest = parse_token(token)
        if prefix == GUEST:
            return await self._resolve_guest(id, digest, address)
        raise Unauthorized(UNKNOWN)

    async def _resolve_key(self, id: UUID, digest: bytes, address: str | None) -> Caller:
        """The caller of an API key. The address is counted also where there is none."""
        of_address, of_caller = await self._of_address(address), self._of_caller(id)
        key = (
            await self._database.single(
                _FIND_KEY,
                {
                    "id": id,
                    "sha": digest,
                    "address_free": of_address is None,
                    "caller_counts": of_caller is not None,
                    **values_of(of_address, "address"),
                    **values_of(of_caller, "caller"),
                },
            )
        ).one()
        if not key.let_in and of_address is not None:
            raise await self._refuse(of_address)
        if key.owner_id is None:
            raise Unauthorized(UNKNOWN)
        if key.ended or (key.expires_at is not None and key.expires_at <= now()):
            raise Unauthorized(REVOKED if key.ended else EXPIRED)
        if not key.caller_let_in:
            raise await self._refuse(Act(caller_key(key.owner_id), MINUTE, self.limits.per_caller))
        # The owner was not known before, and only the owner's transaction may write.
        if key.stale:
            async with self._database.quick(key.owner_id) as session:
                await session.execute(_TOUCH_KEY, {"owner_id": key.owner_id, "id": id})
        scopes = frozenset(key.scopes)
        return Caller(
            id=key.owner_id,
            kind="user",
            # A role that was taken away is gone from the keys that were made by it, too.
            scopes=narrow(self.roles.of(key.roles), scopes) if key.by_roles else scopes,
            key_id=id,
            by_roles=key.by_roles,
            expires_at=key.expires_at,
        )

    async def _refuse(self, act: Act) -> TooMany:
        async with self._database.quick() as session:
            return await refuse(session, act)

    async def _resolve_guest(self, id: UUID, digest: bytes, address: str | None) -> Caller:
        async with self._database.quick(id) as session:
            guest = await check_guest(session, id, digest)
            await self._count(session, address, id)
        return Caller(id=id, kind="guest", scopes=self.guest_scopes, expires_at=guest.expires_at)

    async def _resolve_jwt(self, token: str, address: str | None, audience: Collection[str]) -> Caller:
        issuer = _read_issuer(token)
        if self._grants is not None and issuer == self._grants.issuer:
            return await self._resolve_granted(self._grants, token, address, audience)
        if issuer != OURS:
            return await self._resolve_outsider(token, address, audience)
        access = read_access(await self.secret.get(), token)
        async with self._database.quick(access.owner_id) as session:
            roles = await roles_of_login(session, access)
            await self._count(session, address, access.owner_id)
        return Caller(
            id=access.owner_id,
            kind="user",
            scopes=self.roles.of(roles),
            roles=roles,
            login_id=access.login_id,
            by_roles=True,
            expires_at=access.expires_at,
        )

    async def _resolve_granted(
        self, grants: Grants, token: str, address: str | None, audience: Collection[str]
    ) -> Caller:
        said = await grants.read(token, audience=audience)
        async with self._database.quick(said.owner_id) as session:
            await grants.check(session, said.owner_id, said.grant_id)
            roles = await roles_of_account(session, said.owner_id)
            await self._count(session, address, said.owner_id)
        return Caller(
            id=said.owner_id,
            kind="user",
            # A role that was taken away is gone from the clients that were let in by it, too.
            scopes=narrow(self.roles.of(roles), said.scopes),
            grant_id=said.grant_id,
            by_roles=True,
            expires_at=said.expires_at,
        )

    async def _resolve_outsider(self, token: str, address: str | None, audience: Collection[str]) -> Caller:
        if self._issuers is None:
            raise Unauthorized("This token's issuer is not known here; sign in, or send an API key")
        # Before a transaction is open, because the issuer may have to be asked for its keys.
        said = await self._issuers.verify(token, audience=audience)
        account = await self._get_account(said)
        if account.disabled_at is not None:
            raise Unauthorized(DISABLED)
        async with self._database.quick() as session:
            await self._count(session, address, account.id)
        named = said.roles & self.roles.scopes.keys()
        if more := named - frozenset(account.issuer_roles):
            # What an account may by its issuer's word is not known otherwise when somebody else is to change it.
            async with self._database.quick(account.id) as session:
                await session.execute(_ADD_ROLES, {"id": account.id, "more": sorted(more)})
        roles = frozenset(account.roles) | named
        scopes = self.roles.of(roles)
        if said.scopes is not None:
            # They only narrow: an issuer gives nobody more than the roles here do. Some, like `openid`, are not ours.
            scopes = narrow(scopes, filter(SCOPE.fullmatch, said.scopes))
        return Caller(id=account.id, kind="user", scopes=scopes, roles=roles, by_roles=True, expires_at=said.expires_at)

    async def _get_account(self, said: OutsideToken) -> Any:
        """The account of an outside user. It is made at first sight."""
        who = {"issuer": said.issuer, "subject": said.subject}
        id = new_id()
        # The issuer is in the name: an outsider who calls himself `local`, or like somebody who has yet to come, must
        # not be taken for them. A name that is taken all the same gives way to the id.
        for name in (f"{said.name or said.subject} ({said.issuer} {said.subject})", str(id)):
            async with self._database.quick() as session:
                if (found := (await session.execute(_FIND_OUTSIDER, who)).one_or_none()) is not None:
                    return found
            async with self._database.quick(id) as session:
                await session.execute(_MAKE_OUTSIDER, {"id": id, "name": name, **who})
        async with self._database.quick() as session:
            return (await session.execute(_FIND_OUTSIDER, who)).one()


async def resolve_caller(
    database: Database,
    token: str,
    *,
    guest_scopes: Iterable[str] = (),
    roles: Roles | None = None,
    address: str | None = None,
    audience: Collection[str] = (),
) -> Caller:
    """The caller that `token` stands for without limits and outside issuers. Raises Unauthorized for one that is
    malformed, unknown, expired or revoked."""
    return await Resolver(database, guest_scopes=guest_scopes, roles=roles).resolve(
        token, address=address, audience=audience
    )


def _read_key(token: str) -> tuple[UUID, bytes] | None:
    """The id and the hash of the secret of an API key. None for any other token."""
    if len(token) > MAX_TOKEN or not token.startswith(f"{KEY}_"):
        return None
    try:
        _, id, digest = parse_token(token)
    except Unauthorized:
        return None
    return id, digest


def _read_issuer(token: str) -> Any:
    """What an unverified JWT says of who issued it."""
    # It decides only who must verify the token, so a lie leads to a refusal.
    try:
        return jwt.decode(token, options={"verify_signature": False}).get("iss")
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Unauthorized(NOT_OURS) from None


def create_resolver(
    settings: Settings,
    database: Database,
    *,
    agents: Collection[str],
    staff: Collection[str],
    grants: Grants | None = None,
) -> Resolver:
    """The resolver that the settings describe. `grants` are those of clients that users have let in.

    `agents` are the scopes that the agents' tools need, `staff` those that tools declare for staff.

    Where the settings do not say what a guest holds, it is what the agents need, but nothing that is reserved for
    staff. `GUEST_SCOPES` it always holds.
    """
    agents = frozenset(agents) | {_FORMS}
    guests = settings.guest_scopes
    return Resolver(
        database,
        # A prompt may list a tool that is for staff. That must not open it to every visitor.
        guest_scopes=GUEST_SCOPES | frozenset(agents - staff_scopes() - frozenset(staff) if guests is None else guests),
        roles=define_roles(settings.roles, agents, staff),
        issuers=_create_issuers(settings) if settings.issuers else None,
        grants=grants,
        limits=Limits(
            per_caller=settings.rate_per_caller,
            per_address=settings.rate_per_address,
            guests_per_address=settings.rate_guests_per_address,
        ),
    )


def _create_issuers(settings: Settings) -> Verifier:
    from agent_server.identity.issuers import Issuers  # noqa: PLC0415  # heavy

    return Issuers(settings.issuers)
