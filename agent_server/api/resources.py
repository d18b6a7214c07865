"""What MCP clients read by an address, at /api/resources."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from agent_server.api.parameters import Limit
from agent_server.http.auth import MemberDep, ServerDep
from agent_server.readable import create_documents, list_templates, page_readable, read_contents

router = APIRouter(tags=["resources"])

LONGEST = 600
"""Characters of an address of a resource. In the address of a request each takes up to 12 of the 8,192 bytes."""


class ResourceView(BaseModel):
    """Something to read. `uri` is its address; in a template, names in braces stand for a part of it."""

    model_config = ConfigDict(from_attributes=True)

    uri: str
    name: str
    title: str
    description: str | None
    mime_type: str


class ResourcePage(BaseModel):
    """Resources of functions by their addresses, then documents by their paths."""

    items: list[ResourceView]
    next_cursor: str | None


class ContentsView(BaseModel):
    """What is at an address: a `text`, or bytes in base64 as `blob`."""

    uri: str
    mime_type: str
    text: str | None
    blob: str | None


@router.get("/api/resources")
async def list_resources(
    caller: MemberDep,
    server: ServerDep,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=LONGEST)] = None,
) -> ResourcePage:
    """What the caller may read by an address."""
    documents = create_documents(server.database)
    page = await page_readable(documents, server.workspace.resources, caller, limit, cursor)
    return ResourcePage(items=_view(page.items), next_cursor=page.next_cursor)


@router.get("/api/resources/templates")
async def list_resource_templates(caller: MemberDep, server: ServerDep) -> list[ResourceView]:
    """The templates of addresses that the caller may read."""
    return _view(list_templates(create_documents(server.database), server.workspace.resources, caller))


@router.get("/api/resources/read", responses={404: {}})
async def read_resource(
    caller: MemberDep, server: ServerDep, uri: Annotated[str, Query(min_length=1, max_length=LONGEST)]
) -> ContentsView:
    """What is at an address. It is recorded as a call of a tool, but for a page of the content."""
    documents = create_documents(server.database)
    found = await read_contents(
        server.runtime, documents, server.workspace.resources, uri, caller=caller, surface="rest"
    )
    return ContentsView(uri=uri, mime_type=found.mime_type, text=found.text, blob=found.blob)


def _view(items: Sequence[object]) -> list[ResourceView]:
    return [ResourceView.model_validate(item) for item in items]
