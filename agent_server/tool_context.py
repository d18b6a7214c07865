"""What a tool is given beside its arguments."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any, Literal, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.audit import Surface
from agent_server.caller import Caller
from agent_server.db import new_id, storable
from agent_server.errors import Conflict
from agent_server.questions import (
    Accepted,
    Answers,
    Ask,
    Declined,
    Dismissed,
    Inquiry,
    ListRoots,
    Need,
    Question,
    Reply,
    Root,
    Sample,
    Sampled,
)
from agent_server.repository import Repository

T = TypeVar("T")
Repo = TypeVar("Repo", bound=Repository[Any])
Form = TypeVar("Form", bound=BaseModel)

Level = Literal["debug", "info", "warning", "error"]


class Listener(Protocol):
    """Whoever hears of a call while it runs."""

    async def report_progress(self, done: float, total: float | None, message: str | None) -> None: ...

    async def log(self, level: Level, message: str) -> None: ...


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
    content that the calling agent answers from; None is all of them. `listener` is who hears of its progress, and
    `answers` are those of its user; None where nobody can be asked.
    """

    caller: Caller
    session: AsyncSession
    surface: Surface
    conversation_id: UUID | None = None
    turn_id: UUID | None = None
    collections: tuple[str, ...] | None = None
    idempotency_key: str = field(default_factory=lambda: str(new_id()))
    resources: Mapping[type[Any], Any] = field(default_factory=dict)
    listener: Listener | None = None
    answers: Answers | None = None
    _numbers: Iterator[int] = field(default_factory=count, repr=False)

    async def report_progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Tell whoever waits for the call how far it is. `done` grows, and `total` is what it will be at the end."""
        if self.listener is not None:
            await self.listener.report_progress(done, total, message)

    async def log(self, message: str, level: Level = "info") -> None:
        """Tell whoever waits for the call what it does."""
        if self.listener is not None:
            await self.listener.log(level, message)

    async def ask(
        self, message: str, form: type[Form], *, name: str | None = None
    ) -> Accepted[Form] | Declined | Dismissed:
        """Ask the caller to fill in a form. `name` is what clients know the question by.

        The call is rolled back until there is an answer, and then the tool runs again from its first line: ask before
        anything is done outside the database. Raises Conflict where nobody can be asked, and InvalidInput for an answer
        that the form does not take.
        """
        return (await self.ask_all(Ask(message, form, name)))[0]  # type: ignore[no-any-return]  # what `Ask` reads

    async def sample(
        self, prompt: str, *, max_tokens: int = 1000, system: str | None = None, name: str | None = None
    ) -> Sampled | Dismissed:
        """Ask the model of the caller's client, whose user may refuse. Otherwise as `ask`."""
        return (await self.ask_all(Sample(prompt, max_tokens, system, name)))[0]  # type: ignore[no-any-return]  # as above

    async def roots(self, *, name: str | None = None) -> Sequence[Root] | Dismissed:
        """The folders that the caller's client works in. Otherwise as `ask`."""
        return (await self.ask_all(ListRoots(name)))[0]  # type: ignore[no-any-return]  # as above

    async def ask_all(self, *questions: Question[Any]) -> Sequence[Any]:
        """Ask several things at once, and get an answer to each in their order. Otherwise as `ask`."""
        replies = self._find_replies([_store(question.inquiry) for question in questions])
        return [question.read(reply) for question, reply in zip(questions, replies, strict=True)]

    def can_ask(self, what: Need) -> bool:
        """Whether the caller can be asked: `forms`, `urls` to open, `samples` of its client's model, or `roots`."""
        return self.answers is not None and what in self.answers.can

    async def ask_to_open(self, message: str, url: str) -> Accepted[None] | Declined | Dismissed:
        """Ask the caller to open an address, for what must not pass through the client: a password, a payment.

        Accepted says that they agreed, and not that they have done there what they should. Otherwise as `ask`. Raises
        ValueError for an address that is not of the web.
        """
        if not url.startswith(("https://", "http://")):
            raise ValueError(f"url: {url!r} is no address to open; write one that begins with https://")
        match self._find_replies([Inquiry(storable(message), url=url)])[0].action:
            case "accept":
                return Accepted(None)
            case "decline":
                return Declined()
            case _:
                return Dismissed()

    def _find_replies(self, inquiries: Sequence[Inquiry]) -> Sequence[Reply]:
        if self.answers is None:
            raise Conflict(
                "The tool has to ask its user something, and cannot do so here: call it over MCP with a client that "
                "can ask, or with `agent-server tool call` on a terminal"
            )
        numbers = [next(self._numbers) for _ in inquiries]
        return self.answers.find_all(min(numbers, default=0), inquiries)

    def repository(self, cls: type[Repo]) -> Repo:
        """`cls` on this call's transaction, as this caller may see it."""
        return cls(self.session, self.caller)

    def resource(self, cls: type[T]) -> T:
        """The process's `cls` (an embedder, a client). Raises LookupError when the server was built without one."""
        found = self.resources[cls]
        assert isinstance(found, cls)
        return found


def _store(inquiry: Inquiry) -> Inquiry:
    """The question as the database keeps it, so that it is the same when it is compared."""
    return Inquiry(**storable(asdict(inquiry)))
