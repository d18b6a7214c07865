"""What callers read by an address: the pages of content/ and the resources of functions.

MCP, REST and the command line list and read here, so that what one of them may read is the same on each.
`content://safety/flying.md` is the file `safety/flying.md` under content/; any other address is that of a function.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

from agent_server.audit import Surface
from agent_server.caller import Caller
from agent_server.calls.call import call_tool
from agent_server.calls.runtime import Runtime
from agent_server.db import Database
from agent_server.errors import Forbidden, InvalidInput, NotFound
from agent_server.knowledge.resources import SCHEME, document_uri
from agent_server.knowledge.search import DocumentSummary, list_documents, read_document
from agent_server.resource import Contents, Resource, find_resource

DOCUMENT_TEMPLATE = SCHEME + "{+path}"
MARKDOWN = "text/markdown"
LONGEST_URI = 8_000


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


def create_documents(database: Database) -> Documents:
    """The content as documents."""

    async def list_some(after: str | None, most: int) -> Sequence[DocumentSummary]:
        async with database.transaction() as session:
            # Nobody is named: content is readable by all, and who may ask for it is decided by the scope below.
            return await list_documents(session, after=after, most=most)

    async def read(path: str) -> str:
        async with database.transaction() as session:
            return await read_document(session, path)

    return Documents(scope="knowledge:read", list_documents=list_some, read_document=read)


async def read_contents(
    runtime: Runtime,
    documents: Documents | None,
    resources: Sequence[Resource],
    uri: str,
    *,
    caller: Caller,
    surface: Surface,
) -> Contents:
    """What is at an address. Raises Forbidden, NotFound and InvalidInput, and otherwise as `call_tool`."""
    if len(uri) > LONGEST_URI:
        raise NotFound("There is no resource at this address")
    if documents is not None and uri.startswith(SCHEME):
        return Contents(mime_type=MARKDOWN, text=await _read_document(documents, caller, uri))
    found = find_resource(resources, uri)
    if found is None:
        raise NotFound(
            "There is no resource at this address; the list of resources and their templates show which there are"
        )
    resource, arguments = found
    return Contents.model_validate(await call_tool(runtime, resource.reader, arguments, caller=caller, surface=surface))


async def _read_document(documents: Documents, caller: Caller, uri: str) -> str:
    documents.authorise(caller)
    path = unquote(uri.removeprefix(SCHEME))
    # Postgres takes no NUL, and would fail on it.
    if "\x00" in path:
        raise NotFound(f"There is no document at this address; one looks like {SCHEME}folder/file.md")
    return await documents.read_document(path)


@dataclass(frozen=True, kw_only=True)
class Readable:
    """Something to read. `uri` is its address, or the template of some."""

    uri: str
    name: str
    title: str
    description: str | None
    mime_type: str


@dataclass(frozen=True)
class ReadablePage:
    """A part of a list. `next_cursor` is None after the last one."""

    items: Sequence[Readable]
    next_cursor: str | None


async def page_readable(
    documents: Documents, resources: Sequence[Resource], caller: Caller, limit: int, cursor: str | None = None
) -> ReadablePage:
    """`limit` of what a caller may read: resources by their addresses, then documents by their paths. Raises
    InvalidInput for a cursor that is none of ours."""
    kind, after = _read_cursor(cursor)
    found: list[tuple[str, str, Readable]] = []
    if kind == _OF_FUNCTION:
        mine = sorted((each for each in resources if caller.may(each.scope)), key=lambda each: each.uri)
        found = [(_OF_FUNCTION, each.uri, _describe(each)) for each in mine if not each.parameters and each.uri > after]
    if len(found) <= limit and caller.may(documents.scope):
        last = after if kind == _OF_DOCUMENT else None
        listed = await documents.list_documents(last, limit + 1 - len(found))
        found += [(_OF_DOCUMENT, each.path, _describe_document(each)) for each in listed]
    items = [item for _, _, item in found[:limit]]
    return ReadablePage(items, _write_cursor(*found[limit - 1][:2]) if len(found) > limit else None)


def list_templates(documents: Documents, resources: Sequence[Resource], caller: Caller) -> Sequence[Readable]:
    """The templates of addresses that a caller may read."""
    mine = sorted((each for each in resources if caller.may(each.scope)), key=lambda each: each.uri)
    document = Readable(
        uri=DOCUMENT_TEMPLATE,
        name="document",
        title="Knowledge document",
        description="A Markdown document of the knowledge base, by its path.",
        mime_type=MARKDOWN,
    )
    of_documents = [document] if caller.may(documents.scope) else []
    return [*of_documents, *[_describe(each) for each in mine if each.parameters]]


def _describe(resource: Resource) -> Readable:
    return Readable(
        uri=resource.uri,
        name=resource.name,
        title=resource.reader.title,
        description=resource.reader.description,
        mime_type=resource.mime_type,
    )


def _describe_document(document: Document) -> Readable:
    uri = document_uri(document.path)
    return Readable(uri=uri, name=document.path, title=document.title, description=None, mime_type=MARKDOWN)


_OF_FUNCTION, _OF_DOCUMENT = "r", "d"


def _write_cursor(kind: str, key: str) -> str:
    return urlsafe_b64encode(f"{kind}:{key}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str | None) -> tuple[str, str]:
    if cursor is None:
        return _OF_FUNCTION, ""
    try:
        kind, sign, key = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(":")
    except ValueError:
        kind = sign = key = ""
    # Written anew: base64 is read also where it holds other characters, or bits that are lost.
    if kind not in (_OF_FUNCTION, _OF_DOCUMENT) or not sign or "\x00" in key or _write_cursor(kind, key) != cursor:
        raise InvalidInput("cursor: not one of ours; pass next_cursor of the page before, or leave it out")
    return kind, key
