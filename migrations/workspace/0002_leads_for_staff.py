"""Leads are only ever added to: who leaves one does not get to read what was left before."""

from alembic import op

revision = "workspace_0002"
down_revision = "workspace_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_lead_owner_conversation_email", table_name="lead")
    op.create_index("ix_lead_owner_conversation_email", "lead", ["owner_id", "conversation_id", "email"])


def downgrade() -> None:
    # what was left with one address in a conversation is one row again: the last word on each thing
    op.execute("""
        update lead l set name = m.name, phone = m.phone, interest = m.interest, message = m.message, source = m.source,
               metadata = m.metadata, updated_at = m.updated_at
        from (select owner_id, conversation_id, email, (array_agg(id order by id))[1] as id,
                     (array_agg(name order by id desc) filter (where name is not null))[1] as name,
                     (array_agg(phone order by id desc) filter (where phone is not null))[1] as phone,
                     (array_agg(interest order by id desc) filter (where interest is not null))[1] as interest,
                     (array_agg(message order by id desc) filter (where message is not null))[1] as message,
                     (array_agg(source order by id desc))[1] as source,
                     (array_agg(metadata order by id desc))[1] as metadata, max(updated_at) as updated_at
              from lead where conversation_id is not null group by 1, 2, 3) m
        where l.owner_id = m.owner_id and l.id = m.id""")
    op.execute("""
        delete from lead l using lead e
        where e.owner_id = l.owner_id and e.conversation_id = l.conversation_id and e.email = l.email and e.id < l.id""")
    op.drop_index("ix_lead_owner_conversation_email", table_name="lead")
    op.create_index("ix_lead_owner_conversation_email", "lead", ["owner_id", "conversation_id", "email"], unique=True)
