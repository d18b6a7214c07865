"""The caller's own documents at /api/documents.

    curl --data-binary @plan.pdf -H "Authorization: Bearer $KEY" "$SERVER/api/documents?name=plan.pdf"

The body is the file itself. It is read after the caller is known, since it may be larger than other bodies.
"""

import asyncio
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from agent_server.api.parameters import Cursor, Limit
from agent_server.caller import Caller
from agent_server.documents.models import READ, WRITE, OwnDocument
from agent_server.documents.repository import OwnDocuments, Put
from agent_server.documents.shelf import LONGEST_NAME, NAME_PATTERN, Shelf, check_name, list_kinds
from agent_server.documents.tools import MyDocument
from agent_server.errors import TooLarge
from agent_server.http.auth import ServerDep, caller_with
from agent_server.http.statuses import BadRequest, RequestTimedOut, UnsupportedMediaType
from agent_server.identity.credentials import keep_credential
from agent_server.server import Server

FILES = ("/api/documents",)
"""The paths whose bodies are files."""

router = APIRouter(tags=["documents"])
DocumentReaderDep = Annotated[Caller, caller_with(READ)]
DocumentWriterDep = Annotated[Caller, caller_with(WRITE)]
Name = Annotated[
    str,
    Query(
        min_length=1,
        max_length=LONGEST_NAME,
        description="The file's name, as in plan.pdf.",
        # Checked by `check_name`, which says what would be right.
        json_schema_extra={"pattern": NAME_PATTERN},
    ),
]


class AddedDocument(MyDocument):
    """A document as it was stored. `remarks` say what was guessed or repaired in the file."""

    remarks: list[str] = Field(default_factory=list)


class DocumentWithText(MyDocument):
    """A document with what was read of its file, as Markdown."""

    text: str


class Room(BaseModel):
    """What the caller's documents take and may take, and what a file may be."""

    documents: int
    most_documents: int
    size: int
    most_size: int
    largest: int
    kinds: list[str]


class DocumentPage(BaseModel):
    """Documents, the last added first."""

    model_config = ConfigDict(from_attributes=True)

    items: list[MyDocument]
    next_cursor: str | None
    room: Room


@router.get("/api/documents")
async def list_own_documents(
    caller: DocumentReaderDep, server: ServerDep, limit: Limit = 50, cursor: Cursor = None
) -> DocumentPage:
    """The caller's own documents, the last added first."""
    async with server.database.transaction(caller.id) as session:
        documents = OwnDocuments(session, caller)
        page = await documents.page_latest(limit, cursor)
        used = await documents.measure()
    quota = _shelf(server).quota
    room = Room(
        documents=used.documents,
        most_documents=quota.documents,
        size=used.size,
        most_size=quota.size,
        largest=server.settings.document_limit,
        kinds=list_kinds(),
    )
    items = [MyDocument.model_validate(row) for row in page.items]
    return DocumentPage(items=items, next_cursor=page.next_cursor, room=room)


@router.post(
    "/api/documents",
    status_code=201,
    responses={200: {"model": AddedDocument}, 409: {}, 415: {}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def add_document(
    name: Name, request: Request, response: Response, caller: DocumentWriterDep, server: ServerDep
) -> AddedDocument:
    """Add a file, which only the caller's questions find. It takes the place of the one of its name (200); to send the
    same again changes nothing."""
    check_name(name)
    with _shelf(server).admit(caller):
        content = await _receive(request, server)
        put, remarks = await _add(name, content, caller, server)
    response.status_code = 201 if put.is_new else 200
    view = MyDocument.model_validate(put.document)
    return AddedDocument(**view.model_dump(), remarks=remarks)


@router.get("/api/documents/{document}")
async def read_own_document(document: UUID, caller: DocumentReaderDep, server: ServerDep) -> DocumentWithText:
    """One document with its text."""
    async with server.database.transaction(caller.id) as session:
        row = await OwnDocuments(session, caller).get(document)
    return DocumentWithText.model_validate(row)


@router.delete("/api/documents/{document}", status_code=204)
async def delete_own_document(document: UUID, caller: DocumentWriterDep, server: ServerDep) -> None:
    """Delete it. No question finds it any more."""
    async with server.database.transaction(caller.id) as session:
        documents = OwnDocuments(session, caller)
        await documents.remove(await documents.get(document, lock=True))


def _shelf(server: Server) -> Shelf:
    shelf: Shelf = server.runtime.resources[Shelf]
    return shelf


async def _add(name: str, content: bytes, caller: Caller, server: Server) -> tuple[Put, list[str]]:
    shelf = _shelf(server)
    sha = await asyncio.to_thread(shelf.sign, name, content)
    async with server.database.transaction(caller.id) as session:
        documents = OwnDocuments(session, caller)
        row: OwnDocument | None = await documents.find_latest(name)
        if row is not None and row.sha == sha:
            return Put(row, is_new=False), []
        # Before the file is read: that takes a second.
        documents.refuse_beyond(await documents.measure(but=row.id if row else None), shelf.quota, len(content))
    # Between two transactions, so that none waits while the file is read and embedded.
    indexed = await shelf.index(name, content)
    async with server.database.transaction(caller.id, patient=True) as session:
        await keep_credential(session, caller)
        return await OwnDocuments(session, caller).put(name, indexed, shelf.quota), indexed.read.remarks


async def _receive(request: Request, server: Server) -> bytes:
    """The file. Raises TooLarge, RequestTimedOut and UnsupportedMediaType."""
    limit, timeout = server.settings.document_limit, server.settings.body_timeout
    # A body that is small while packed can be huge in memory.
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("Content-Encoding: compressed bodies are not read; send it uncompressed")
    if request.headers.get("content-type", "").strip().lower().startswith("multipart/"):
        raise UnsupportedMediaType(
            "Content-Type: forms are not read; send the file itself as the body, and its name in ?name="
        )
    too_large = TooLarge(f"The file is larger than {limit} bytes; split it")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    try:
        # For all of it together: a limit for each read would let a sender of single bytes go on for ever.
        async with asyncio.timeout(timeout):
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise RequestTimedOut(f"The file did not arrive within {timeout:g} seconds") from None
    except ClientDisconnect:
        raise BadRequest("The file did not arrive whole; send it again") from None
    return bytes(body)
