"""The authorisation server at /oauth: where MCP clients send their users, and get tokens."""

import asyncio
from importlib import import_module
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from agent_server.api.parameters import ActDep
from agent_server.errors import InvalidInput
from agent_server.http.auth import count_address
from agent_server.oauth.authority import AUTHORIZE, CONSENT, REGISTER, REVOKE, TOKEN, WELL_KNOWN, Authority
from agent_server.oauth.consent import ask, decide
from agent_server.oauth.pages import FOLDER

# The document is public and the same for everybody, so pages of any origin may read it.
_OPEN = {"Access-Control-Allow-Origin": "*", "Cache-Control": "max-age=300"}
_PREFLIGHT = {**_OPEN, "Access-Control-Allow-Methods": "GET", "Access-Control-Allow-Headers": "*"}
_FILES = {"style.css": "text/css", "clients.js": "text/javascript"}


async def _load() -> Any:
    """The endpoints, in a thread: the import takes seconds."""
    return await asyncio.to_thread(import_module, "agent_server.oauth.endpoints")


def create_oauth_router(authority: Authority) -> APIRouter:
    """The addresses of `authority`. None of them is in the description of the API: clients find them by the document."""
    router = APIRouter(include_in_schema=False)
    counted = APIRouter(include_in_schema=False, dependencies=[Depends(count_address)])

    @router.get(WELL_KNOWN)
    async def read_metadata() -> JSONResponse:
        return JSONResponse(dict(authority.metadata), headers=_OPEN)

    @router.options(WELL_KNOWN)
    async def preflight() -> Response:
        return Response(status_code=204, headers=_PREFLIGHT)

    @counted.get(AUTHORIZE)
    async def authorise(request: Request, act: ActDep) -> Any:
        return await (await _load()).authorise(authority, act, request)

    @counted.post(TOKEN)
    async def exchange(request: Request, act: ActDep) -> Any:
        try:
            return await (await _load()).exchange(authority, act, request)
        except InvalidInput as error:
            return _refuse(error)

    @counted.post(REVOKE)
    async def revoke(request: Request, act: ActDep) -> Any:
        try:
            return await (await _load()).revoke(authority, act, request)
        except InvalidInput as error:
            return _refuse(error)

    @counted.post(REGISTER)
    async def register(request: Request, act: ActDep) -> Any:
        return await (await _load()).register(authority, act, request)

    @counted.get(CONSENT)
    async def show(request: Request) -> Any:
        return await ask(authority, request)

    @counted.post(CONSENT)
    async def choose(request: Request, act: ActDep) -> Any:
        return await decide(authority, act, request)

    @router.get("/oauth/clients")
    async def show_clients() -> FileResponse:
        return FileResponse(str(FOLDER / "clients.html"))

    for name, kind in _FILES.items():
        router.add_api_route(f"/oauth/{name}", _send_file(name, kind), methods=["GET"])
    # As the app does it: an inclusion builds each route anew.
    router.routes.extend(counted.routes)
    return router


def _send_file(name: str, kind: str) -> Any:
    async def send() -> FileResponse:
        return FileResponse(str(FOLDER / name), media_type=kind)

    return send


def _refuse(error: InvalidInput) -> JSONResponse:
    """What is wrong with a form, as OAuth says it."""
    body = {"error": "invalid_request", "error_description": error.message}
    return JSONResponse(body, 400, {"Cache-Control": "no-store", "Pragma": "no-cache"})
