"""A statement that is sent together with a commit: one round trip for both."""

# Apart from `db.database`: who records what was done is loaded also where there is no way to a database.
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

DRIVER = "driver"
"""The key of the driver's connection in the `info` of a session that has begun."""


def send_with_commit(session: "AsyncSession", statement: str) -> bool:
    """Have a statement sent together with the commit of `session`. False where that cannot be, because nothing has begun
    or something is to be sent already."""
    driver: Any = session.info.get(DRIVER)
    if driver is None or driver.last or not driver.is_in_transaction():
        return False
    driver.last = statement
    return True
