"""What a tool is given beside its arguments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.audit import Surface
from agent_server.caller import Caller
from agent_server.db import new_id
from agent_server.repository import Repository

T = TypeVar("T")
Repo = TypeVar("Repo", bound=Repository[Any])


@dataclass(frozen=True)
class Loss:
    """Something that a call would lose for good, as the database has it."""

    id: UUID | str
    title: str


@dataclass(frozen=True, kw_only=True)
class ToolContext:
    """What a call runs against. It comes from the server, never from the model.

    `session` is the call's one transaction: what a tool writes commits with the record of the call, or not at all. It
    holds one of the server's few connections from its first statement on. `idempotency_key` is for a service that makes
    the same request only once: it is the same however often a turn has to make this call. `collections` are those of the
    content that the calling agent answers from; None is all of them.
    """

    caller: Caller
    session: AsyncSession
    surface: Surface
    conversation_id: UUID | None = None
    turn_id: UUID | None = None
    collections: tuple[str, ...] | None = None
    idempotency_key: str = field(default_factory=lambda: str(new_id()))
    resources: Mapping[type[Any], Any] = field(default_factory=dict)

    def repository(self, cls: type[Repo]) -> Repo:
        """`cls` on this call's transaction, as this caller may see it."""
        return cls(self.session, self.caller)

    def resource(self, cls: type[T]) -> T:
        """The process's `cls` (an embedder, a client). Raises LookupError when the server was built without one."""
        found = self.resources[cls]
        assert isinstance(found, cls)
        return found
