"""The form of the tool `capture_lead` at /api/lead."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from agent_server.api.tools import REFUSED, ConversationHeader, call_by_rest, describe_operation
from agent_server.http.auth import ChatterDep, ServerDep
from agent_server.workspace import Workspace

LEAD_TOOL = "capture_lead"


def create_router(workspace: Workspace) -> APIRouter:
    """The route where the workspace has the tool."""
    router = APIRouter(tags=["tools"])
    # A route of its own beside the tool's: it makes a guest where there is no credential.
    if LEAD_TOOL not in workspace.tools:
        return router
    tool = workspace.tools[LEAD_TOOL]

    @router.post("/api/lead", summary=tool.title, responses=REFUSED, openapi_extra=describe_operation(tool))
    async def lead(
        request: Request, caller: ChatterDep, server: ServerDep, x_conversation_id: ConversationHeader = None
    ) -> JSONResponse:
        """Leave an address to be contacted at. This is the form of the tool `capture_lead`, for guests too."""
        return await call_by_rest(tool, request, caller, server, x_conversation_id)

    return router
