"""Lists in pages: a cursor says after which key a page begins, so that what is added or removed meanwhile moves nothing."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import mcp_types as types
from mcp.shared.exceptions import MCPError

PAGE = 500
"""Entries of a page."""
_MARK = b"after:"
"""What a cursor of ours begins with, before it is encoded."""


def write_cursor(key: str) -> str:
    """The cursor of the page after the entry with this key."""
    return urlsafe_b64encode(_MARK + key.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> str | None:
    """The key of a cursor. None where there is no cursor, which is the first page.

    Raises MCPError for a text that is no cursor of this server.
    """
    if cursor is None:
        return None
    try:
        read = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        key = read.removeprefix(_MARK).decode()
    except ValueError:
        raise _unknown() from None
    # Written anew: base64 is read also where it holds other characters, or bits that are lost.
    if write_cursor(key) != cursor or "\x00" in key:
        raise _unknown()
    return key


def refuse_cursor(params: types.PaginatedRequestParams | None) -> None:
    """Raises MCPError where a cursor is sent for a list that has one page."""
    if params is not None and params.cursor is not None:
        raise _unknown()


def _unknown() -> MCPError:
    return MCPError(types.INVALID_PARAMS, "cursor: none of this list's; ask without it for the first page")
