"""The OpenAPI document as a page at /docs.

Its files are of this machine, and its content policy is the chat page's.
"""

import asyncio
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>API</title><link rel="icon" href="/static/favicon.svg"><link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="api"></div><script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script></body>
</html>"""
# A file and not a script in the page: the page's policy allows none.
_START = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null, // else the page asks a server of swagger.io for a badge
});"""
_FILES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}


def _folder() -> Path:
    spec = find_spec("fastapi_offline")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / "static"


def create_router() -> APIRouter:
    """The page and its files."""
    router = APIRouter(include_in_schema=False)
    folder = _folder()

    @router.get("/openapi.json")
    async def document(request: Request) -> JSONResponse:
        # The first time it is made, which takes a quarter of a second.
        return JSONResponse(await asyncio.to_thread(request.app.openapi))

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(_PAGE)

    @router.get("/docs/start.js")
    async def start() -> Response:
        return Response(_START, media_type="text/javascript")

    for name, media_type in _FILES.items():

        @router.get(f"/docs/{name}", name=name)
        # As defaults, which are bound here: a closure would find the last name of the loop for every file.
        async def file(request: Request, name: str = name, media_type: str = media_type) -> FileResponse:
            # They change with a release only. Without this each visit would load them: other answers are `no-store`.
            return FileResponse(folder / name, media_type=media_type, headers={"Cache-Control": "max-age=86400"})

    return router
