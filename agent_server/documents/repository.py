"""Own documents as their owner may see them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import defer
from sqlmodel import col, delete

from agent_server.db import new_id
from agent_server.documents.models import OwnDocument, OwnPassage, OwnWord
from agent_server.errors import Conflict, NotFound, quote_value
from agent_server.repository import Page, Repository
from agent_server.wording import count

if TYPE_CHECKING:
    from agent_server.documents.child import ReadDocument
    from agent_server.documents.shelf import Indexed

PIVOT = 110.0
"""As of the content (knowledge/ingest.py)."""
MOST_PASSAGES = 10_000
"""Passages of all documents of a caller: a search looks at each of them."""

# One writer of an owner's at a time: two that look at once would both find room for the last document.
_LOCK = text("select pg_advisory_xact_lock(7300423, hashtext(cast(cast(:owner_id as uuid) as text)))")
_USED = text("""
    select count(*), coalesce(sum(size), 0), coalesce(sum(passages), 0) from own_document
    where owner_id = :owner_id and (cast(:but as uuid) is null or id <> :but)""")
# A word of `about` counts twice, one of `words` once. Without the `offset 0` each text would be parsed twice.
_PASSAGES = text("""
    with r as materialized (
        select r.*, v.tsv
        from jsonb_to_recordset(cast(:rows as jsonb)) as r(id uuid, ordinal int, passage text, heading text, text text,
             start int, "end" int, about text, words text, emb text)
        cross join lateral (select setweight(to_tsvector(cast(:config as regconfig), r.about), 'A')
                                || setweight(to_tsvector(cast(:config as regconfig), r.words), 'D') as tsv offset 0) v),
    stored as (
        insert into own_passage (owner_id, id, document_id, ordinal, passage, heading, text, start_offset, end_offset,
                                 lex, emb)
        select cast(:owner_id as uuid), r.id, cast(:document_id as uuid), r.ordinal, r.passage, r.heading, r.text,
               r.start, r."end", lexvec(r.tsv, cast(:pivot as real)), cast(r.emb as halfvec) from r)
    insert into own_word (owner_id, lexeme, document_id, n)
    select cast(:owner_id as uuid), lexeme, cast(:document_id as uuid), count(*)
    from r cross join unnest(tsvector_to_array(r.tsv)) lexeme group by lexeme""")


@dataclass(frozen=True)
class Used:
    """What a caller's documents take."""

    documents: int
    size: int
    passages: int


@dataclass(frozen=True)
class Quota:
    """What they may take: how many there may be, and their bytes together."""

    documents: int
    size: int


@dataclass(frozen=True)
class Put:
    """A document as it is stored, and whether there was none of its name before."""

    document: OwnDocument
    is_new: bool


class OwnDocuments(Repository[OwnDocument]):
    """The caller's documents. Its lists leave out the texts."""

    model = OwnDocument

    async def find_latest(self, name: str) -> OwnDocument | None:
        """The document of a name; of several, the one that was added last."""
        statement = self.visible().where(col(OwnDocument.name) == name).options(defer(OwnDocument.text))  # type: ignore[arg-type]  # a column, typed as its value
        rows = await self.session.execute(statement.order_by(col(OwnDocument.id).desc()).limit(1))
        return rows.scalar_one_or_none()

    async def get_named(self, reference: str, *, lock: bool = False) -> OwnDocument:
        """The document of an id or a name. Raises NotFound, and Conflict where the name is that of several."""
        id = _read_id(reference)
        key = col(OwnDocument.name) == reference if id is None else col(OwnDocument.id) == id
        statement = self.visible().where(key).order_by(col(OwnDocument.id)).limit(20)
        found = await self.session.execute(statement.with_for_update() if lock else statement)
        rows = found.scalars().all()
        if not rows:
            raise NotFound(f"You have no document {quote_value(reference)}; list them to see which there are")
        if len(rows) > 1:
            ids = ", ".join(str(row.id) for row in rows)
            raise Conflict(f"You have several documents {quote_value(reference)}; give the id of one: {ids}")
        return rows[0]

    async def get(self, id: UUID, *, lock: bool = False) -> OwnDocument:
        """The document of an id. Raises NotFound."""
        return await self.get_named(str(id), lock=lock)

    async def page_latest(self, limit: int, cursor: str | None = None) -> Page[OwnDocument]:
        """The documents, the last added first. Raises InvalidInput."""
        return await self.page(limit, cursor, self.visible().options(defer(OwnDocument.text)))  # type: ignore[arg-type]  # a column, typed as its value

    async def measure(self, *, but: UUID | None = None) -> Used:
        """What the documents take, without one of them."""
        return Used(*(await self.session.execute(_USED, {"owner_id": self.owner, "but": but})).one())

    async def put(self, name: str, indexed: "Indexed", quota: Quota) -> Put:
        """Store a document in place of the one of its name. Raises Conflict where there is no room for it."""
        await self.session.execute(_LOCK, {"owner_id": self.owner})
        row, is_new = await self.find_latest(name), False
        if row is not None and row.sha == indexed.sha:
            return Put(row, is_new)  # the same was stored by another request meanwhile
        read = indexed.read
        used = await self.measure(but=row.id if row else None)
        self.refuse_beyond(used, quota, indexed.size, len(read.passages))
        values: dict[str, Any] = {
            "title": read.title,
            "size": indexed.size,
            "passages": len(read.passages),
            "config": read.config,
            "embedder": indexed.embedder,
            "sha": indexed.sha,
            "text": read.text,
        }
        if row is None:
            row, is_new = await self.add(OwnDocument(name=name, **values)), True
        else:
            for table in (OwnWord, OwnPassage):
                mine = (col(table.owner_id) == self.owner, col(table.document_id) == row.id)
                await self.session.execute(delete(table).where(*mine))
            for key, value in values.items():
                setattr(row, key, value)
            await self.session.flush()
        await self._index(row.id, read, indexed.vectors)
        return Put(row, is_new)

    @staticmethod
    def refuse_beyond(used: Used, quota: Quota, size: int, passages: int = 0) -> None:
        """Raises Conflict where a document of so many bytes and passages has no room."""
        if quota.documents == 0:
            raise Conflict(
                "This server takes no documents of users; AGENT_SERVER_DOCUMENTS_PER_USER says how many it takes"
            )
        if used.documents >= quota.documents:
            raise Conflict(
                f"You have {count(used.documents, 'document')}, and {quota.documents} are the most; delete one first"
            )
        if used.size + size > quota.size:
            raise Conflict(
                f"Your documents have {used.size} bytes, and {quota.size} are the most: there is no room for {size} more; "
                "delete one first"
            )
        if used.passages + passages > MOST_PASSAGES:
            raise Conflict(
                f"Your documents have {used.passages} passages, and {MOST_PASSAGES} are the most: there is no room for "
                f"{passages} more; delete one first"
            )

    async def _index(self, document_id: UUID, read: "ReadDocument", vectors: Sequence[str]) -> None:
        rows = [
            {
                **{key: value for key, value in asdict(piece).items() if key not in ("id", "meaning")},
                "id": str(new_id()),
                "ordinal": ordinal,
                "passage": _name_passage(document_id, piece.id),
                "emb": vector,
            }
            for ordinal, (piece, vector) in enumerate(zip(read.passages, vectors, strict=True))
        ]
        values = {"owner_id": self.owner, "document_id": document_id, "config": read.config, "pivot": PIVOT}
        await self.session.execute(_PASSAGES, {**values, "rows": json.dumps(rows)})


def _name_passage(document_id: UUID, id: str) -> str:
    # With the document in it: of two documents with the same text, a guest's and a user's, each has its own.
    return hashlib.sha256(f"{document_id}\n{id}".encode()).hexdigest()[:32]


def _read_id(reference: str) -> UUID | None:
    try:
        return UUID(reference)
    except ValueError:
        return None
