"""Runs migrations on the connection that `agent_server.db.migrate` hands over."""

from alembic import context
from sqlmodel import SQLModel

from agent_server.db.migrate import included

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    include_object=included,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
