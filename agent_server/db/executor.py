"""What runs statements in a transaction, apart from how: who only names the type imports no driver."""

from typing import Any, Protocol

from sqlalchemy import TextClause


class Executor(Protocol):
    """A transaction that runs statements: SQLAlchemy's session or a `QuickSession`."""

    async def execute(self, statement: TextClause, params: Any = ..., /) -> Any:
        """Run a statement with named parameters. Raises Unavailable."""
