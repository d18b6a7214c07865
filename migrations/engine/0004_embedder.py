"""Vectors of any size: how long a chunk's vector is follows from the embedder that made it.

The version before stores vectors of 256 numbers alone. Going back empties the index where it holds others; the content
is ingested again at the next start.
"""

from alembic import op

revision = "engine_0004"
down_revision = "engine_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table chunk alter column emb type halfvec")


def downgrade() -> None:
    # row-level security is forced on the owner too: without this it would find no vector to remove
    op.execute("alter table chunk no force row level security")
    op.execute("""
        do $$ begin
          if exists (select from chunk where vector_dims(emb) <> 256) then
            truncate document, chunk, term, corpus;
          end if;
        end $$""")
    op.execute("alter table chunk alter column emb type halfvec(256)")
    op.execute("alter table chunk force row level security")
