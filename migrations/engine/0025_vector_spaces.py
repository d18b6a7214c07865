"""Vectors stand by the embedder that made them, and what a search reads stands in narrow tables.

What is stored keeps its vectors, under the name in its document's hash. Going back keeps those that are searched; where a
passage has none, the content is emptied and read again at the next start.
"""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC, SPARSEVEC
from sqlalchemy.dialects import postgresql

revision = "engine_0025"
down_revision = "engine_0024"
branch_labels = None
depends_on = None

# The same hash as in `lexvec`.
LEXWORDS = """
create function lexwords(v tsvector) returns int[] language sql immutable parallel safe as $$
  select coalesce(array_agg(distinct ((hashtextextended(lexeme, 0) & 536870911) + 1)::int), '{}') from unnest(v) $$
"""
# A hash is page/chunker (three numbers)/words/embedder/pivot, and a name may have slashes.
NAME = "coalesce(substring(d.sha from '^[^/]+/[^/]+/[^/]+/[^/]+/[^/]+/(.*)/[^/]+$'), 'unknown')"
WORDLLAMA = "wordllama-l2-supercat-256/log-tf"
_GUARDED = ("chunk", "document", "corpus")


def upgrade() -> None:
    op.execute(LEXWORDS)
    op.add_column("document", sa.Column("tags", postgresql.ARRAY(sa.TEXT()), nullable=False, server_default="{}"))
    op.add_column("corpus", sa.Column("spaces", sa.Uuid(), nullable=True))
    _create_tables()
    # Row-level security is forced on the owner too: without this it would find no passage.
    for table in _GUARDED:
        op.execute(f"alter table {table} no force row level security")
    op.execute("insert into passage_words select owner_id, id, collection, lexwords(tsv), lex from chunk")
    op.execute(f"""
        insert into vector_space (owner_id, id, name, dimensions, made_by)
        select owner_id, row_number() over (partition by owner_id order by name), name, dimensions,
               case when name = '{WORDLLAMA}' then '{{"name": "wordllama"}}' else '{{}}' end::jsonb
        from (select d.owner_id, {NAME} as name, max(vector_dims(c.emb)) as dimensions
              from document d join chunk c on c.owner_id = d.owner_id and c.document_id = d.id group by 1, 2) s""")
    # A collection in the middle of a change is searched by what most of its passages have.
    op.execute(f"""
        insert into collection_space (owner_id, collection, space, wanted, passages)
        select owner_id, collection, (array_agg(space order by n desc))[1],
               case when count(*) > 1 then (array_agg(space order by n desc))[1] end, sum(n)
        from (select c.owner_id, c.collection, s.id as space, count(*) as n
              from chunk c join document d on d.owner_id = c.owner_id and d.id = c.document_id
              join vector_space s on s.owner_id = c.owner_id and s.name = {NAME} group by 1, 2, 3) n
        group by 1, 2""")
    op.execute(f"""
        insert into passage_vector (owner_id, space, chunk_id, collection, emb)
        select c.owner_id, s.id, c.id, c.collection, c.emb
        from chunk c join document d on d.owner_id = c.owner_id and d.id = c.document_id
        join vector_space s on s.owner_id = c.owner_id and s.name = {NAME} and s.dimensions = vector_dims(c.emb)
        join collection_space o on o.owner_id = c.owner_id and o.collection = c.collection and o.space = s.id""")
    op.execute("update corpus set spaces = gen_random_uuid()")
    for table in _GUARDED:
        op.execute(f"alter table {table} force row level security")
    op.drop_index("ix_chunk_tsv", "chunk")
    op.drop_column("chunk", "lex")
    op.drop_column("chunk", "emb")


def _create_tables() -> None:
    op.create_table(
        "passage_words",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("chunk_id", sa.Uuid(), nullable=False),
        sa.Column("collection", sa.String(), nullable=False),
        sa.Column("words", postgresql.ARRAY(sa.INTEGER()), nullable=False),
        sa.Column("lex", SPARSEVEC(1_000_000_000), nullable=True),
        sa.PrimaryKeyConstraint("owner_id", "chunk_id"),
    )
    op.create_index("ix_passage_words_collection", "passage_words", ["owner_id", "collection"])
    op.create_index(
        "ix_passage_words", "passage_words", ["words"], postgresql_using="gin", postgresql_with={"fastupdate": "off"}
    )
    op.create_table(
        "vector_space",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("made_by", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "id"),
        sa.UniqueConstraint("owner_id", "name"),
    )
    op.create_table(
        "collection_space",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("collection", sa.String(), nullable=False),
        sa.Column("space", sa.Integer(), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=True),
        sa.Column("weight", sa.Float(), nullable=True),
        sa.Column("wanted_weight", sa.Float(), nullable=True),
        sa.Column("passages", sa.Integer(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("owner_id", "collection"),
    )
    op.create_table(
        "passage_vector",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("space", sa.Integer(), nullable=False),
        sa.Column("collection", sa.String(), nullable=False),
        sa.Column("chunk_id", sa.Uuid(), nullable=False),
        sa.Column("emb", HALFVEC(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "space", "collection", "chunk_id"),
    )


def downgrade() -> None:
    op.add_column("chunk", sa.Column("lex", SPARSEVEC(1_000_000_000), nullable=True))
    op.add_column("chunk", sa.Column("emb", HALFVEC(), nullable=True))
    tables = (*_GUARDED, "term", "compound", "passage_words", "passage_vector", "vector_space", "collection_space")
    for table in tables:
        op.execute(f"alter table {table} no force row level security")
    op.execute("""
        update chunk c set lex = w.lex, emb = v.emb
        from passage_words w, collection_space s, passage_vector v
        where w.owner_id = c.owner_id and w.chunk_id = c.id
          and s.owner_id = c.owner_id and s.collection = c.collection
          and v.owner_id = c.owner_id and v.space = s.space and v.collection = c.collection and v.chunk_id = c.id""")
    op.execute("""
        do $$ begin
          if exists (select from chunk where emb is null) then
            truncate document, chunk, term, corpus, compound;
          end if;
        end $$""")
    for table in tables:
        op.execute(f"alter table {table} force row level security")
    op.alter_column("chunk", "emb", nullable=False)
    op.create_index("ix_chunk_tsv", "chunk", ["tsv"], postgresql_using="gin", postgresql_with={"fastupdate": "off"})
    for table in ("passage_vector", "collection_space", "vector_space", "passage_words"):
        op.drop_table(table)
    op.drop_column("corpus", "spaces")
    op.drop_column("document", "tags")
    op.execute("drop function lexwords(tsvector)")
