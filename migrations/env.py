"""Runs migrations on the connection that `agent_server.db.migrate` hands over.

It imports the models of the engine: what the tables are compared with, and what their row-level security follows from.
"""

from alembic import context
from sqlmodel import SQLModel

import agent_server.audit
import agent_server.calls.confirmations
import agent_server.calls.inquiries
import agent_server.changes
import agent_server.conversations.models
import agent_server.documents.models
import agent_server.feedback.models
import agent_server.heartbeat
import agent_server.identity.models
import agent_server.jobs
import agent_server.knowledge.models
import agent_server.oauth.models
import agent_server.seed
import agent_server.tasks.models
import agent_server.turns.models  # noqa: F401
from agent_server.db.migrate import is_compared

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    include_object=is_compared,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
