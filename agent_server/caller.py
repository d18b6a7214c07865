"""The caller: resolved once at the edge, passed down, never taken from arguments."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who is calling. `scopes` are `resource:verb`, `resource:*` or `*`.

    `roles`, `login_id`, `key_id`, `grant_id` and `expires_at` say of the credential where it is from; they are no part of who it
    is. `by_roles` says that the scopes follow from the roles of the account, and `network` is a keyed hash of where the
    request came from.
    """

    id: UUID
    kind: Literal["user", "guest", "service"]
    scopes: frozenset[str] = frozenset()
    # Not compared: the same caller with another credential is the same caller.
    roles: frozenset[str] = field(default=frozenset(), compare=False)
    login_id: UUID | None = field(default=None, compare=False)
    key_id: UUID | None = field(default=None, compare=False)
    grant_id: UUID | None = field(default=None, compare=False)
    by_roles: bool = field(default=False, compare=False)
    expires_at: datetime | None = field(default=None, compare=False)
    network: str | None = field(default=None, compare=False)

    def may(self, scope: str) -> bool:
        return covers(self.scopes, scope)


def covers(held: Collection[str], scope: str) -> bool:
    """Whether these scopes allow all that `scope` does. That may be `resource:*` or `*`."""
    return not {scope, f"{scope.partition(':')[0]}:*", "*"}.isdisjoint(held)


def beyond(scopes: Iterable[str], held: Collection[str]) -> list[str]:
    """Those of `scopes` that go beyond the ones that are held."""
    return sorted(scope for scope in scopes if not covers(held, scope))
