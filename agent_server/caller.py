"""The caller: resolved once at the edge, passed down, never taken from arguments."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who is calling. `scopes` are `resource:verb`, `resource:*` or `*`.

    `roles`, `login_id` and `expires_at` say of the credential where it is from, and of a user who signed in by which
    login; they are no part of who it is.
    """

    id: UUID
    kind: Literal["user", "guest", "service"]
    scopes: frozenset[str] = frozenset()
    # Not compared: the same caller with another credential is the same caller.
    roles: frozenset[str] = field(default=frozenset(), compare=False)
    login_id: UUID | None = field(default=None, compare=False)
    expires_at: datetime | None = field(default=None, compare=False)

    def may(self, scope: str) -> bool:
        resource = scope.partition(":")[0]
        return not self.scopes.isdisjoint({scope, f"{resource}:*", "*"})
