"""Rows of the knowledge.

These are documents, their chunks, and how often each word occurs.

Content is shared: its owner is the system. A chunk carries both halves of the search: `lex`, the document side of BM25
as a sparse vector at hash(lexeme), and `emb`, its embedding. The query side (how rare a word is) comes from `term` and
`corpus`, so it is always current.

The SQL function `lexvec` (migrations/engine) makes `lex`: BM25's document side (Robertson and Zaragoza 2009, eq. 3.15)
with k1 1.2 and b 0.75, a word of the heading counted twice.
"""

from typing import Any, ClassVar
from uuid import UUID

from pgvector.sqlalchemy import HALFVEC, SPARSEVEC
from sqlalchemy import ForeignKeyConstraint, Index, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY, REAL, TEXT, TSVECTOR
from sqlmodel import Field, SQLModel

from agent_server.db import RowPolicy, Shared, Timestamps

# The most dimensions that a sparsevec may have.
LEX_SPACE = 1_000_000_000


class Document(Shared, Timestamps, table=True):
    """A page of content/. `sha` covers its text and everything that its chunks were made with."""

    __tablename__ = "document"
    __table_args__ = (UniqueConstraint("owner_id", "path"),)

    path: str
    collection: str
    title: str
    description: str = ""
    language: str = Field(default="en", sa_column_kwargs={"server_default": "en"})
    urgent: list[str] = Field(default_factory=list, sa_type=ARRAY(TEXT))
    text: str
    sha: str


class Chunk(Shared, table=True):
    """A piece of a document that can be found and cited.

    `text` is the file's characters `start` to `end`; `passage` names it in citations.
    """

    __tablename__ = "chunk"
    __table_args__ = (
        ForeignKeyConstraint(["owner_id", "document_id"], ["document.owner_id", "document.id"], ondelete="CASCADE"),
        Index("ix_chunk_document", "owner_id", "document_id", "ordinal"),
        Index("ix_chunk_passage", "owner_id", "passage", unique=True),
        # without fast updates: a search would read the list of pending entries, 5 times slower at 5,000 chunks
        Index("ix_chunk_tsv", "tsv", postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
    )

    document_id: UUID
    ordinal: int
    passage: str
    collection: str
    heading: str
    text: str
    # "end" is a reserved word of SQL, so the columns have other names.
    start: int = Field(sa_column_kwargs={"name": "start_offset"})
    end: int = Field(sa_column_kwargs={"name": "end_offset"})
    tsv: Any = Field(sa_type=TSVECTOR)
    lex: Any = Field(default=None, sa_type=SPARSEVEC(LEX_SPACE), nullable=True)
    # Without a size: an embedder may have any (docs/decisions/0015).
    emb: Any = Field(sa_type=HALFVEC())


class Term(SQLModel, table=True):
    """In how many chunks of the owner's a lexeme occurs."""

    __tablename__ = "term"
    row_policy: ClassVar[RowPolicy] = RowPolicy(shared=True)

    # Counted over the whole content, also for a search in some collections: this keeps scores comparable between them.
    owner_id: UUID = Field(primary_key=True)
    lexeme: str = Field(primary_key=True)
    n: int


class Corpus(SQLModel, table=True):
    """How many chunks an owner has."""

    __tablename__ = "corpus"
    row_policy: ClassVar[RowPolicy] = RowPolicy(shared=True)

    owner_id: UUID = Field(primary_key=True)
    n_chunks: int
    pivot: float = Field(sa_type=REAL)
    # The text-search configurations of its pages; that of most pages first.
    configs: list[str] = Field(
        default_factory=lambda: ["english"], sa_type=ARRAY(TEXT), sa_column_kwargs={"server_default": "{english}"}
    )
    # Whether chunks have changed since `configs` and `compound` were made of them.
    stale: bool = Field(default=True, sa_column_kwargs={"server_default": "true"})


class Compound(SQLModel, table=True):
    """A lexeme of the owner's that is made of others, with each of its two parts."""

    __tablename__ = "compound"
    __table_args__ = (Index("ix_compound_lexeme", "owner_id", "lexeme"),)
    row_policy: ClassVar[RowPolicy] = RowPolicy(shared=True)

    owner_id: UUID = Field(primary_key=True)
    part: str = Field(primary_key=True)
    lexeme: str = Field(primary_key=True)


class Embedding(SQLModel, table=True):
    """The vector that an embedder elsewhere made of a text, by the text's hash."""

    __tablename__ = "embedding"
    row_policy: ClassVar[RowPolicy] = RowPolicy(shared=True)

    owner_id: UUID = Field(primary_key=True)
    embedder: str = Field(primary_key=True)
    sha: str = Field(primary_key=True)
    emb: Any = Field(sa_type=HALFVEC())
