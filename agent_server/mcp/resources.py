"""Knowledge documents as MCP resources: `content://safety/flying.md` is the file `safety/flying.md` under content/."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, unquote

import mcp_types as types
from mcp.shared.exceptions import MCPError

from agent_server.caller import Caller
from agent_server.errors import LONGEST_VALUE, Forbidden, NotFound, cut
from agent_server.log import without_secrets
from agent_server.mcp.errors import error_data

_SCHEME = "content://"
_MARKDOWN = "text/markdown"
_LONGEST_URI = 8_000


class Document(Protocol):
    """What a list says of a document. `path` is its file, relative to content/."""

    @property
    def path(self) -> str: ...

    @property
    def title(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Where documents come from and the scope that a caller must hold to see them.

    `read_document` returns the Markdown of the document at a path, and raises NotFound.
    """

    scope: str
    list_documents: Callable[[], Awaitable[Sequence[Document]]]
    read_document: Callable[[str], Awaitable[str]]

    async def resources(self, caller: Caller) -> list[types.Resource]:
        """What `caller` may read in the order of the paths."""
        if not caller.may(self.scope):
            return []
        documents = sorted(await self.list_documents(), key=lambda document: document.path)
        return [
            types.Resource(uri=_SCHEME + quote(d.path), name=d.path, title=d.title, mime_type=_MARKDOWN)
            for d in documents
        ]

    def templates(self, caller: Caller) -> list[types.ResourceTemplate]:
        if not caller.may(self.scope):
            return []
        return [
            types.ResourceTemplate(
                uri_template=_SCHEME + "{+path}",
                name="document",
                title="Knowledge document",
                description="A Markdown document of the knowledge base, by its path.",
                mime_type=_MARKDOWN,
            )
        ]

    async def read(self, caller: Caller, uri: str) -> types.TextResourceContents:
        """The text of a document. Raises Forbidden, and MCPError with the address for one that is not there."""
        self.authorise(caller)
        path = unquote(uri[:_LONGEST_URI].removeprefix(_SCHEME))
        try:
            # Postgres takes no NUL, and would fail on it.
            if len(uri) > _LONGEST_URI or not uri.startswith(_SCHEME) or "\x00" in path:
                raise NotFound(f"There is no document at this address; one looks like {_SCHEME}folder/file.md")
            text = await self.read_document(path)
        except NotFound as error:
            raise MCPError.from_error_data(error_data(error, uri=without_secrets(cut(uri, LONGEST_VALUE)))) from None
        return types.TextResourceContents(uri=uri, mime_type=_MARKDOWN, text=text)

    def authorise(self, caller: Caller) -> None:
        """Raises Forbidden."""
        if not caller.may(self.scope):
            raise Forbidden(f"Documents need the scope {self.scope}, which this caller lacks", self.scope)
