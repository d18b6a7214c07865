"""Rows of the to-do list."""

from datetime import date
from typing import Literal

from sqlalchemy import Index, String
from sqlmodel import Field

from agent_server import Owned, Timestamps

Status = Literal["open", "done"]


class Task(Owned, Timestamps, table=True):
    """`due` is the last day to do it, in the owner's own calendar: a date without a time zone."""

    __tablename__ = "task"
    __table_args__ = (Index("ix_task_owner_status", "owner_id", "status", "id"),)

    title: str = Field(max_length=200)
    description: str = Field(default="", max_length=2000)
    due: date | None = None
    status: Status = Field(default="open", sa_type=String)
