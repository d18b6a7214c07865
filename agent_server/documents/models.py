"""Rows of the documents that callers have of their own.

They are in tables of their own, and not beside the content: rows of the content may be read by everybody, so that its
full-text index can be used, and these by their owner alone.
"""

from typing import Any
from uuid import UUID

from pgvector.sqlalchemy import HALFVEC, SPARSEVEC
from sqlalchemy import ForeignKeyConstraint, Index
from sqlmodel import Field, SQLModel

from agent_server.db import DERIVED, Owned, Timestamps

READ, WRITE = "documents:read", "documents:write"
"""The scopes of own documents."""
# The most dimensions that a sparsevec may have.
_LEX_SPACE = 1_000_000_000
_OF_A_DOCUMENT = (["owner_id", "document_id"], ["own_document.owner_id", "own_document.id"])


class OwnDocument(Owned, Timestamps, table=True):
    """A document of a caller's, as Markdown in `text`.

    `size` is what counts against the quota, in bytes. `sha` covers the file and all that its passages were made with, and
    `embedder` names the model of their vectors. `config` is the text-search configuration of its language.
    """

    __tablename__ = "own_document"
    # No unique name: of a guest's and a user's documents of one name, both are kept when the user takes the guest over.
    __table_args__ = (Index("ix_own_document_name", "owner_id", "name"),)

    name: str
    title: str
    size: int
    passages: int
    config: str
    embedder: str
    sha: str
    text: str


class OwnPassage(Owned, table=True):
    """A piece of an own document that can be found and cited, as `knowledge.models.Chunk` is of the content."""

    __tablename__ = "own_passage"
    __table_args__ = (
        ForeignKeyConstraint(*_OF_A_DOCUMENT, ondelete="CASCADE"),
        Index("ix_own_passage_document", "owner_id", "document_id", "ordinal"),
        Index("ix_own_passage_passage", "owner_id", "passage", unique=True),
        {"info": DERIVED},
    )

    document_id: UUID
    ordinal: int
    passage: str
    heading: str
    text: str
    # "end" is a reserved word of SQL, so the columns have other names.
    start: int = Field(sa_column_kwargs={"name": "start_offset"})
    end: int = Field(sa_column_kwargs={"name": "end_offset"})
    lex: Any = Field(default=None, sa_type=SPARSEVEC(_LEX_SPACE), nullable=True)
    emb: Any = Field(sa_type=HALFVEC())


class OwnWord(SQLModel, table=True):
    """In how many passages of a document a lexeme occurs."""

    __tablename__ = "own_word"
    # By the document, so that the counts go with it, and those of a guest can be added to a user's.
    __table_args__ = (
        ForeignKeyConstraint(*_OF_A_DOCUMENT, ondelete="CASCADE"),
        Index("ix_own_word_document", "owner_id", "document_id"),
        {"info": DERIVED},
    )

    owner_id: UUID = Field(primary_key=True)
    lexeme: str = Field(primary_key=True)
    document_id: UUID = Field(primary_key=True)
    n: int
