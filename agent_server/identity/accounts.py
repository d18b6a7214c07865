"""What becomes of accounts. Each act is on record."""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.audit import AuditRepository, Surface
from agent_server.caller import Caller, beyond
from agent_server.db import OWN_DATA, Database, is_deadlock, new_id, now
from agent_server.errors import Conflict, FieldError, Forbidden, InvalidInput, NotFound, Unauthorized, Unavailable
from agent_server.identity.attempts import try_password
from agent_server.identity.credentials import (
    IssuedKey,
    check_guest,
    issue_key,
    keep_credential,
    make_room,
    parse_guest,
    revoke_key,
    scopes_of_keys,
)
from agent_server.identity.limits import device_of
from agent_server.identity.logins import SignedIn, begin_login, end_logins, refresh_login, refresh_owner
from agent_server.identity.models import ApiKey, Guest, User
from agent_server.identity.own_data import erase_rows, move_rows
from agent_server.identity.passwords import Verdict, check_password, hash_password
from agent_server.identity.resolver import Resolver
from agent_server.identity.rights import name_scopes
from agent_server.identity.users import DISABLED, LOCAL_USER, create_user

# A function of the database: before somebody has signed in, row-level security hides every account.
_FIND_LOGIN = text("select id, password_hash, disabled_at from find_login(:email)")
WRONG = "E-mail and password do not belong together"

Stop = Callable[[UUID], Awaitable[None]]
"""Stops all turns of an owner."""


@dataclass(frozen=True, kw_only=True)
class Act:
    """An act on its way."""

    surface: Surface
    address: str | None = None
    started: float = field(default_factory=time.perf_counter)

    async def record(
        self, session: AsyncSession, owner_id: UUID, action: str, *, kind: str = "user", outcome: str = "ok"
    ) -> None:
        """Add it to the audit of `owner_id`. `kind` is who acted: the owner as a user or guest; `staff` or the
        `operator` on it."""
        await AuditRepository(session, Caller(id=owner_id, kind="user")).record(
            caller_kind=kind,
            surface=self.surface,
            action=action,
            outcome=outcome,
            latency_ms=(time.perf_counter() - self.started) * 1000,
            request_id=structlog.contextvars.get_contextvars().get("request_id"),
        )


@dataclass(frozen=True)
class Accounts:
    """The accounts of one database. `resolver` finds their callers."""

    database: Database
    resolver: Resolver

    async def sign_in(self, act: Act, email: str, password: str, *, guest_token: str | None, days: int) -> SignedIn:
        """A new login. With `guest_token` what the guest has is the user's from then on.

        Raises Unauthorized, TooMany, and as `claim`; then there is no login.
        """
        guest = None if guest_token is None else _parse_guest(guest_token)
        found, verdict = await self._find_proven(act, email, password)
        fresh = await hash_password(password) if verdict == "outdated" else None
        device = None if act.address is None else device_of(await self.resolver.secret.get(), found.id, act.address)
        owners = [found.id, *([] if guest is None else [guest[0]])]
        async with self.database.transaction(*owners, scopes=(OWN_DATA,)) as session:
            # Read again and locked: the password or the account may have changed while the password was verified.
            user = await session.get(User, found.id, with_for_update=True)
            if user is None or user.password_hash != found.password_hash or user.disabled_at is not None:
                raise Unauthorized(WRONG)
            user.password_hash = fresh or user.password_hash
            if guest is not None:
                await _claim(session, act, guest, user.id)
            login = await begin_login(session, user.id, days, device)
            await act.record(session, user.id, "auth.login")
        return login

    async def identify(self, act: Act, email: str, password: str) -> UUID:
        """Whose e-mail and password these are, without a login. Raises Unauthorized and TooMany."""
        found, _ = await self._find_proven(act, email, password)
        id: UUID = found.id
        return id

    async def _find_proven(self, act: Act, email: str, password: str) -> tuple[Any, Verdict]:
        async with self.database.transaction() as session:
            found = (await session.execute(_FIND_LOGIN, {"email": email.lower()})).one_or_none()
        id, stored = (None, None) if found is None else (found.id, found.password_hash)
        verdict = await self._verify(act, email, id, password, stored)
        if found is None or verdict == "wrong" or found.disabled_at is not None:
            await self._record_failure(act, id)
            # Only somebody who knows the password is told that the account is disabled.
            raise Unauthorized(WRONG if found is None or verdict == "wrong" else DISABLED)
        return found, verdict

    async def _record_failure(self, act: Act, owner_id: UUID | None) -> None:
        if owner_id is not None:
            async with self.database.transaction(owner_id) as session:
                await act.record(session, owner_id, "auth.login_failed", outcome="unauthorized")

    async def _verify(self, act: Act, account: str, id: UUID | None, password: str, stored: str | None) -> Verdict:
        """Raises TooMany as `try_password`."""
        secret = await self.resolver.secret.get()
        return await try_password(
            self.database, secret, account=account, owner_id=id, address=act.address, password=password, stored=stored
        )

    async def refresh(self, act: Act, token: str) -> SignedIn:
        """The next refresh token. Raises Unauthorized, also for one that was used before: then the login has ended."""
        owner_id = refresh_owner(token)
        async with self.database.transaction(owner_id) as session:
            login = await refresh_login(session, token)
            if login is None:
                await act.record(session, owner_id, "auth.refresh_reused", outcome="unauthorized")
        # Raised outside of the transaction, which holds the end of the login and must be committed.
        if login is None:
            raise Unauthorized("This refresh token has been used before, so this login has ended; sign in again")
        return login

    async def sign_out(self, act: Act, caller: Caller, *, everywhere: bool) -> None:
        """End the caller's login or all of its user's. Its API keys work on. Raises Conflict for who has none."""
        if caller.login_id is None and not everywhere:
            raise Conflict("This credential is of no login; end an API key by DELETE /api/keys/{id}")
        async with self.database.transaction(caller.id) as session:
            await end_logins(session, caller.id, None if everywhere else caller.login_id)
            await act.record(session, caller.id, "auth.logout", kind=caller.kind)

    async def change_password(self, act: Act, caller: Caller, current: str, new: str) -> None:
        """Change the password. All other logins end. Raises InvalidInput, TooMany, and Conflict for who has none."""
        user = await self.find(caller.id)
        if user is None or user.password_hash is None:
            raise Conflict("This account has no password: whoever runs this server can set one")
        check_password(new, user.email, "new")
        await self._prove(act, user, current, "current")
        hashed = await hash_password(new)
        async with self.database.transaction(caller.id) as session:
            # Somebody else may know the old password and be signed in with it.
            await _set_password(session, caller.id, hashed, spared=caller.login_id)
            await act.record(session, caller.id, "user.changed")

    async def find(self, id: UUID) -> User | None:
        """The account of a user for the user itself. A guest has none."""
        async with self.database.transaction(id) as session:
            return await session.get(User, id)

    async def _prove(self, act: Act, user: User, password: str | None, name: str) -> None:
        """Raises InvalidInput unless `password` is the user's. Raises TooMany as `sign_in`."""
        account = user.email or str(user.id)
        if password is None or await self._verify(act, account, user.id, password, user.password_hash) == "wrong":
            # No Unauthorized: after a 401 a client would give up its own credential, which is good.
            message = "is not your password"
            raise InvalidInput(f"{name}: {message}", [FieldError(name, message)])

    async def claim(self, act: Act, caller: Caller, guest_token: str) -> None:
        """Make the caller's what a guest has.

        The token is the proof, and the guest then is no more. Raises InvalidInput for one that is none, and Conflict
        while the guest is being answered.
        """
        guest = _parse_guest(guest_token)
        async with self.database.transaction(guest[0], caller.id, scopes=(OWN_DATA,)) as session:
            await _claim(session, act, guest, caller.id)

    async def erase(self, act: Act, caller: Caller, password: str | None, stop: Stop) -> None:
        """Remove the caller and all that it owns. Its turns are stopped. Of the audit only an id is left.

        Raises InvalidInput unless a user who has a password gives it, and TooMany.
        """
        user = await self.find(caller.id)
        if user is not None and user.password_hash is not None:
            await self._prove(act, user, password, "password")
        # Stopped first: a turn that still runs would store rows of this caller again.
        await stop(caller.id)
        while True:
            try:
                async with self.database.transaction(caller.id, scopes=(OWN_DATA,)) as session:
                    await erase_rows(session, caller.id)
                    await act.record(session, caller.id, "account.erased", kind=caller.kind)
                return
            # A call that works outside the database writes rows before it asks for its caller, whom this one has
            # locked: the database ends one of the two. The call will have ended by the next time.
            except Unavailable as error:
                if not is_deadlock(error):
                    raise

    async def make_key(self, act: Act, caller: Caller, name: str, scopes: Sequence[str], days: int | None) -> IssuedKey:
        """A key of the caller's, which ends with the caller's own key or outside token.

        Raises Forbidden for a scope that the caller itself lacks, InvalidInput, Conflict where it has too many, and
        Unauthorized where the caller's key ends in this instant.
        """
        if more := beyond(scopes, caller.scopes):
            raise Forbidden(f"You lack {name_scopes(more)} yourself; a key has no more than its maker", more[0])
        # A login is passed over: who signs in by a password makes keys for programs, which outlast it.
        ends = None if caller.login_id is not None else caller.expires_at
        wanted = None if days is None else now() + timedelta(days=days)
        async with self.database.transaction(caller.id) as session:
            await keep_credential(session, caller)
            await make_room(session, caller.id)
            issued = await issue_key(
                session,
                caller.id,
                name=name,
                scopes=scopes,
                expires_at=min((at for at in (ends, wanted) if at is not None), default=None),
                maker_id=caller.key_id,
                by_roles=caller.by_roles,
            )
            await act.record(session, caller.id, "key.created")
        return issued

    async def end_key(self, act: Act, caller: Caller, id: UUID) -> ApiKey:
        """End a key of the caller's and those made with it. Raises NotFound."""
        async with self.database.transaction(caller.id) as session:
            row = await revoke_key(session, id, caller.id)
            await act.record(session, caller.id, "key.revoked")
        return row

    async def make_user(
        self,
        act: Act,
        maker: Caller | None,
        name: str,
        *,
        email: str | None = None,
        password: str | None = None,
        roles: Sequence[str] = (),
    ) -> User:
        """A new user that staff or the operator makes.

        The operator is None. Raises InvalidInput, Forbidden for the local user, and Conflict where the name or the
        e-mail is taken.
        """
        if maker is not None and name == LOCAL_USER:
            raise Forbidden(_FOR_THE_OPERATOR)
        self.resolver.roles.check(roles, None if maker is None else maker.scopes)
        hashed = None
        if password is not None:
            if email is None:
                raise InvalidInput(f"{_NEEDS_EMAIL.field}: {_NEEDS_EMAIL.message}", [_NEEDS_EMAIL])
            check_password(password, email)
            hashed = await hash_password(password)
        id = new_id()
        async with self._begin(id, maker) as session:
            user = await create_user(session, name, id=id, email=email, password_hash=hashed, roles=roles)
            await self._record_for_both(session, act, id, maker, "user.created")
        return user

    async def change_user(
        self,
        act: Act,
        maker: Caller | None,
        id: UUID,
        *,
        roles: Sequence[str] | None = None,
        disabled: bool | None = None,
        password: str | None = None,
    ) -> User:
        """Change what is given.

        Who is disabled, or has a new password, is signed out; keys of the disabled do not work.

        Raises NotFound, InvalidInput, and Forbidden for a user who may more than the maker.
        """
        # Before the slow hash, and again under the lock: roles may be given to this user in between.
        await self._find_and_check(maker, id)
        if roles is not None:
            self.resolver.roles.check(roles, None if maker is None else maker.scopes)
        hashed = None if password is None else await hash_password(password)
        async with self._begin(id, maker) as session:
            user = await session.get_one(User, id, with_for_update=True)
            await self._check_reach(session, maker, user)
            if password is not None:
                _check_new_password(user, password)
                user.password_hash = hashed
            if roles is not None:
                user.roles = sorted(set(roles))
            if disabled is not None:
                # Disabled a second time, it keeps the time of the first.
                user.disabled_at = (user.disabled_at or now()) if disabled else None
            if disabled or password is not None:
                await end_logins(session, id)
            await self._record_for_both(session, act, id, maker, "user.changed")
        return user

    async def _find_and_check(self, maker: Caller | None, id: UUID) -> None:
        async with self._begin(id, maker) as session:
            user = await session.get(User, id)
            if user is None:
                raise NotFound(f"There is no user {id}; list them to see which there are")
            await self._check_reach(session, maker, user)

    async def _check_reach(self, session: AsyncSession, maker: Caller | None, user: User) -> None:
        """Raises Forbidden unless the maker holds all that the user may, by a role or by a key."""
        if maker is None:
            return
        if user.name == LOCAL_USER:
            raise Forbidden(_FOR_THE_OPERATOR)
        # By the account's own roles as well: a token of the issuer's that names none leaves the user with those.
        by_roles = self.resolver.roles.of(user.roles) | self.resolver.roles.of([*user.roles, *user.issuer_roles])
        held = by_roles | await scopes_of_keys(session, user.id)
        if more := beyond(held, maker.scopes):
            raise Forbidden(f"This user has {name_scopes(more)}, which you lack; ask somebody who has as much", more[0])

    def _begin(self, id: UUID, maker: Caller | None) -> AbstractAsyncContextManager[AsyncSession]:
        """A transaction for an act on another's account."""
        makers = () if maker is None else (maker.id,)
        return self.database.transaction(id, *makers, scopes=("users:read", "users:write"))

    async def _record_for_both(
        self, session: AsyncSession, act: Act, id: UUID, maker: Caller | None, action: str
    ) -> None:
        """Record an act for whoever did it and for whom it was done to."""
        # One entry for each of the two, because everybody can read only what is on record of themselves.
        if maker is None or maker.id != id:
            await act.record(session, id, action, kind="operator" if maker is None else "staff")
        if maker is not None:
            await act.record(session, maker.id, action, kind=maker.kind)


_FOR_THE_OPERATOR = f"The user {LOCAL_USER!r} is the operator's; `agent-server user` changes it"
_NEEDS_EMAIL = FieldError("email", "signing in takes an e-mail address and a password; give both")


def _check_new_password(user: User, password: str) -> None:
    if user.email is None:
        raise InvalidInput(f"{_NEEDS_EMAIL.field}: {_NEEDS_EMAIL.message}", [_NEEDS_EMAIL])
    check_password(password, user.email)


async def _set_password(session: AsyncSession, id: UUID, hashed: str, *, spared: UUID | None) -> None:
    user = await session.get_one(User, id, with_for_update=True)
    user.password_hash = hashed
    await end_logins(session, id, spared=spared)


def _parse_guest(token: str) -> tuple[UUID, bytes]:
    try:
        return parse_guest(token)
    except Unauthorized as error:
        raise _guest_error(error) from None


def _guest_error(error: Unauthorized) -> InvalidInput:
    """What is wrong with the guest's token."""
    # No Unauthorized: after a 401 a client would give up its own credential, which is good.
    return InvalidInput(f"guest_token: {error.message}", [FieldError("guest_token", error.message)])


async def _claim(session: AsyncSession, act: Act, guest: tuple[UUID, bytes], user_id: UUID) -> None:
    try:
        # Locked: of two users who claim one guest at the same time, the second must find it gone.
        row = await check_guest(session, *guest, lock=True)
    except Unauthorized as error:
        raise _guest_error(error) from None
    await move_rows(session, row.id, user_id)
    await session.delete(await session.get_one(Guest, row.id))
    await session.flush()
    await act.record(session, user_id, "auth.claim")
