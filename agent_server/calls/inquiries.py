"""Questions of tools that wait for the answer of a client, which may reach another process than the one that asked.

A row is removed by whoever takes its answer, in one statement: of two that answer, one finds it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from agent_server.db import Owned, now, storable
from agent_server.questions import Answers, Inquiry, Reply
from agent_server.repository import Repository

_MORE = "more"
LASTS = timedelta(minutes=15)
"""How long a question can be answered."""


class ClientQuestion(Owned, table=True):
    """A question that a client was asked in a call of `tool`, until `expires_at`.

    `given` are the answers that the call has already, with their questions. `answer` is the client's, while the process
    that asked has not taken it.
    """

    __tablename__ = "client_question"

    tool: str
    arguments: dict[str, Any] = Field(sa_type=JSONB)
    key: str
    given: list[list[dict[str, Any]]] = Field(sa_type=JSONB)
    inquiry: dict[str, Any] = Field(sa_type=JSONB)
    answer: dict[str, Any] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    expires_at: datetime = Field(sa_type=DateTime(timezone=True))


_FORGET = text("delete from client_question where owner_id = :owner_id and expires_at < now()")
_ANSWER = text("""
    update client_question set answer = cast(:answer as jsonb)
    where owner_id = :owner_id and id = :id and answer is null and expires_at > now() returning 1""")
_TAKE_ANSWER = text("""
    delete from client_question where owner_id = :owner_id and id = :id and answer is not null returning answer""")
_TAKE = text("""
    delete from client_question where owner_id = :owner_id and id = :id and expires_at > now() returning 1""")


class ClientQuestionRepository(Repository[ClientQuestion]):
    model = ClientQuestion

    async def put(
        self, tool: str, arguments: Mapping[str, Any], inquiries: Sequence[Inquiry], answers: Answers
    ) -> ClientQuestion:
        """Keep questions that are put together until they are answered. Those of the caller that nobody can answer any more are removed."""
        await self.session.execute(_FORGET, {"owner_id": self.owner})
        row = ClientQuestion(
            tool=tool,
            arguments=storable(dict(arguments)),
            key=answers.key,
            given=storable([[_write(asked), asdict(reply)] for asked, reply in answers.given]),
            inquiry=storable(
                _write(inquiries[0]) | ({_MORE: [_write(each) for each in inquiries[1:]]} if inquiries[1:] else {})
            ),
            expires_at=now() + LASTS,
        )
        return await self.add(row)

    async def answer(self, id: UUID, answer: str) -> bool:
        """Keep the answer, JSON text, for the process that asked. Returns whether the question waited for it."""
        values = {"owner_id": self.owner, "id": id, "answer": answer}
        return (await self.session.execute(_ANSWER, values)).first() is not None

    async def take_answer(self, id: UUID) -> Mapping[str, Any] | None:
        """The answer, which is then gone with its question. None where there is none yet."""
        row = (await self.session.execute(_TAKE_ANSWER, {"owner_id": self.owner, "id": id})).first()
        return None if row is None else dict(row[0])

    async def take(self, id: UUID) -> bool:
        """Use the question up. Returns whether it could still be answered."""
        return (await self.session.execute(_TAKE, {"owner_id": self.owner, "id": id})).first() is not None


def inquiries_of(row: ClientQuestion) -> Sequence[Inquiry]:
    """The questions that were put together."""
    first = {name: value for name, value in row.inquiry.items() if name != _MORE}
    return [Inquiry(**each) for each in (first, *row.inquiry.get(_MORE, ()))]


def given_of(row: ClientQuestion, replies: Sequence[Reply]) -> Sequence[tuple[Inquiry, Reply]]:
    """The answers that its call has, with those to these questions."""
    given = [(Inquiry(**asked), Reply(**said)) for asked, said in row.given]
    return [*given, *zip(inquiries_of(row), replies, strict=True)]


def _write(inquiry: Inquiry) -> dict[str, Any]:
    # What is not said is left out: a process of an older version may read it that does not know all of it.
    return {name: value for name, value in asdict(inquiry).items() if value is not None and value is not False}
