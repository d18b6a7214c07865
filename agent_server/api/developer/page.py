"""The developer page and its files at /dev."""

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import FileResponse

from agent_server.api.local import DEVELOPER
from agent_server.errors import NotFound

router = APIRouter(include_in_schema=False)

_FOLDER = files("agent_server.web") / "developer"
_TYPES = {"css": "text/css", "js": "text/javascript"}


@router.get(DEVELOPER)
async def show_page() -> FileResponse:
    """The page."""
    return FileResponse(str(_FOLDER / "index.html"))


@router.get(f"{DEVELOPER}/static/{{name}}")
async def read_file(name: str) -> FileResponse:
    """A file of the page."""
    there = {file.name: file for file in _FOLDER.iterdir()}
    kind = _TYPES.get(name.rpartition(".")[2])
    if name not in there or kind is None:
        raise NotFound("There is nothing at this address; see /docs")
    return FileResponse(str(there[name]), media_type=kind)
