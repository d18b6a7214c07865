"""What the resolver asks of whoever knows a token that is not of the server's own accounts and keys."""

from collections.abc import Collection
from datetime import datetime
from typing import Protocol
from uuid import UUID

from agent_server.db import Executor


class OutsideToken(Protocol):
    """What a verified token of an outside issuer says."""

    @property
    def issuer(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def scopes(self) -> frozenset[str] | None: ...
    @property
    def roles(self) -> frozenset[str]: ...
    @property
    def expires_at(self) -> datetime: ...


class Verifier(Protocol):
    """The outside issuers that are trusted. Raises Unauthorized."""

    async def verify(self, token: str, *, audience: Collection[str] = ()) -> OutsideToken: ...
    async def close(self) -> None: ...


class GrantedToken(Protocol):
    """What a verified token says that a client was given for a user, and by which grant."""

    @property
    def owner_id(self) -> UUID: ...
    @property
    def grant_id(self) -> UUID: ...
    @property
    def scopes(self) -> frozenset[str]: ...
    @property
    def expires_at(self) -> datetime: ...


class Grants(Protocol):
    """What users have let clients do. Raises Unauthorized.

    `read` looks at the token alone, which must be for one of `audience`, and `check` at whether the grant still holds.
    """

    @property
    def issuer(self) -> str: ...
    async def read(self, token: str, *, audience: Collection[str]) -> GrantedToken: ...
    async def check(self, session: Executor, owner_id: UUID, grant_id: UUID) -> None: ...
