"""The caller: resolved once at the edge, passed down, never taken from arguments."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who is calling. `scopes` are `resource:verb`, `resource:*` or `*`."""

    id: UUID
    kind: Literal["user", "guest", "service"]
    scopes: frozenset[str] = frozenset()

    def may(self, scope: str) -> bool:
        resource = scope.partition(":")[0]
        return not self.scopes.isdisjoint({scope, f"{resource}:*", "*"})
