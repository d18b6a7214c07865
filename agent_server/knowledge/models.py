"""Rows of the knowledge.

These are documents, their chunks, and how often each word occurs.

Content is shared: its owner is the system. A search has two halves, each in a narrow table of its own (docs/decisions/0034).
`lex` is the document side of BM25 as a sparse vector at hash(lexeme); how rare a word is comes from `term` and `corpus`,
so it is always current. The vectors of embedders are told apart by the space that they are in.

The SQL function `lexvec` (migrations/engine) makes `lex`: BM25's document side (Robertson and Zaragoza 2009, eq. 3.15)
with k1 1.2 and b 0.75, a word of the heading counted twice.
"""

from typing import Any, ClassVar
from uuid import UUID

from pgvector.sqlalchemy import HALFVEC, SPARSEVEC
from sqlalchemy import ForeignKeyConstraint, Index, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY, INTEGER, JSONB, REAL, TEXT, TSVECTOR
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
    tags: list[str] = Field(default_factory=list, sa_type=ARRAY(TEXT), sa_column_kwargs={"server_default": "{}"})
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
    # What `term` counts.
    tsv: Any = Field(sa_type=TSVECTOR)


class PassageWords(SQLModel, table=True):
    """What a search by words reads of a chunk. Beside its text, each candidate would cost 10 times as much to read.

    `words` are the hashes of its lexemes, which the index is over, `lex` their weights at the same numbers.
    """

    __tablename__ = "passage_words"
    __table_args__ = (
        Index("ix_passage_words_collection", "owner_id", "collection"),
        # without fast updates: a search would read the list of pending entries, 5 times slower at 5,000 chunks
        Index("ix_passage_words", "words", postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
    )
    row_policy: ClassVar[RowPolicy] = RowPolicy(shared=True)

    owner_id: UUID = Field(primary_key=True)
    chunk_id: UUID = Field(primary_key=True)
    collection: str
    words: list[int] = Field(sa_type=ARRAY(INTEGER))
    lex: Any = Field(default=None, sa_type=SPARSEVEC(LEX_SPACE), nullable=True)


class VectorSpace(SQLModel, table=True):
    """The vectors that one embedder makes. Two vectors are compared only within one."""

    __tablename__ = "vector_space"
    __table_args__ = (UniqueConstraint("owner_id", "name"),)
    row_policy: ClassVar[RowPolicy] = RowPolicy(shared=True)

    owner_id: UUID = Field(primary_key=True)
    # A number, because it stands in each row of vectors and in the condition of a partial index.
    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    name: str
    dimensions: int
    # How the embedder is opened again, for questions about vectors that it made before another was chosen. No key.
    made_by: dict[str, Any] = Field(sa_type=JSONB)


class CollectionSpace(SQLModel, table=True):
    """The space that a collection is searched in, and the one that is being made for it."""

    __tablename__ = "collection_space"
    row_policy: ClassVar[RowPolicy] = RowPolicy(shared=True)

    owner_id: UUID = Field(primary_key=True)
    collection: str = Field(primary_key=True)
    space: int
    wanted: int | None = None
    # What the meaning counts for; null is what the embedder says.
    weight: float | None = None
    wanted_weight: float | None = None
    # How many passages it had when an ingest last ended: a search chooses its way by it.
    passages: int = Field(default=0, sa_column_kwargs={"server_default": "0"})


class PassageVector(SQLModel, table=True):
    """The vector of a chunk in a space. The table is narrow, so that an exact search reads little."""

    __tablename__ = "passage_vector"
    row_policy: ClassVar[RowPolicy] = RowPolicy(shared=True)

    owner_id: UUID = Field(primary_key=True)
    space: int = Field(primary_key=True)
    # In the key, which so finds one vector, and the vectors of a collection beside each other.
    collection: str = Field(primary_key=True)
    chunk_id: UUID = Field(primary_key=True)
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
    # Changes with every change of what `collection_space` says is searched: who remembers that sees by it that it is past.
    spaces: UUID | None = None
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
