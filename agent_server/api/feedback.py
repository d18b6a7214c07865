"""What callers think of answers, at /api/turns/{turn}/feedback and for staff at /api/feedback."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agent_server.api.parameters import Body, Cursor, Limit
from agent_server.caller import Caller
from agent_server.feedback.models import LONGEST_COMMENT, READ_SCOPE, Rating
from agent_server.feedback.repository import FeedbackRepository
from agent_server.http.auth import ReaderDep, ServerDep, WriterDep, member_with

router = APIRouter(tags=["feedback"])


class GiveFeedback(Body):
    """What the caller thinks of an answer, and in words why."""

    rating: Rating
    comment: Annotated[str | None, Field(max_length=LONGEST_COMMENT)] = None


class FeedbackView(BaseModel):
    """Feedback on the answer in a turn."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    turn_id: UUID
    rating: Rating
    comment: str | None
    created_at: datetime
    updated_at: datetime


class GivenFeedback(FeedbackView):
    """Feedback as staff sees it, with whose it is."""

    owner_id: UUID


class FeedbackPage(BaseModel):
    """Feedback of all callers with the newest first."""

    items: list[GivenFeedback]
    next_cursor: str | None


# PUT says what is meant; POST is what clients try that have no other.
@router.post("/api/turns/{turn}/feedback", operation_id="post_feedback", responses={409: {}})
@router.put("/api/turns/{turn}/feedback", responses={409: {}})
async def give_feedback(turn: UUID, body: GiveFeedback, caller: WriterDep, server: ServerDep) -> FeedbackView:
    """Rate the answer in a turn that has ended. What was given before is replaced."""
    async with server.database.transaction(caller.id) as session:
        row = await FeedbackRepository(session, caller).give(turn, body.rating, body.comment)
    return FeedbackView.model_validate(row)


@router.get("/api/turns/{turn}/feedback")
async def read_feedback(turn: UUID, caller: ReaderDep, server: ServerDep) -> FeedbackView:
    """What the caller gave."""
    async with server.database.transaction(caller.id) as session:
        row = await FeedbackRepository(session, caller).get_of(turn)
    return FeedbackView.model_validate(row)


@router.delete("/api/turns/{turn}/feedback", status_code=204)
async def take_feedback_back(turn: UUID, caller: WriterDep, server: ServerDep) -> None:
    """Take back what was given."""
    async with server.database.transaction(caller.id) as session:
        feedback = FeedbackRepository(session, caller)
        await feedback.remove(await feedback.get_of(turn))


@router.get("/api/feedback")
async def list_feedback(
    caller: Annotated[Caller, member_with(READ_SCOPE)],
    server: ServerDep,
    rating: Rating | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> FeedbackPage:
    """What all callers gave. This is for staff."""
    async with server.database.transaction(caller.id, scopes=(READ_SCOPE,)) as session:
        page = await FeedbackRepository(session, caller).page_of_all_callers(limit, cursor, rating=rating)
    return FeedbackPage.model_validate(page, from_attributes=True)
