"""What the resources of MCP are made of: where documents come from, and who may see them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent_server.caller import Caller
from agent_server.errors import Forbidden


class Document(Protocol):
    """What a list says of a document. `path` is its file, relative to content/."""

    @property
    def path(self) -> str: ...

    @property
    def title(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Where documents come from and the scope that a caller must hold to see them.

    `list_documents` returns those after a path (None: from the first one), so many at most, in the order of the paths.
    `read_document` returns the Markdown of the document at a path, and raises NotFound.
    """

    scope: str
    list_documents: Callable[[str | None, int], Awaitable[Sequence[Document]]]
    read_document: Callable[[str], Awaitable[str]]

    def authorise(self, caller: Caller) -> None:
        """Raises Forbidden."""
        if not caller.may(self.scope):
            raise Forbidden(f"Documents need the scope {self.scope}, which this caller lacks", self.scope)
