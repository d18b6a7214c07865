"""What other services tell the workspace, at an address that asks for no credential (`agent_server.webhook`)."""

from fastapi import APIRouter, Request

from agent_server.caller import Caller
from agent_server.calls.call import call_tool
from agent_server.errors import NotFound, TooLarge, quote_value
from agent_server.http.auth import ServerDep
from agent_server.webhook import WebhookRequest

router = APIRouter(tags=["hooks"])
LARGEST = 256 * 1024
"""Most bytes of a body: anybody may send one, and what services tell is small."""


@router.post("/api/hooks/{name}", status_code=204, responses={403: {}, 404: {}, 413: {}})
async def receive(name: str, request: Request, server: ServerDep) -> None:
    """Take what another service tells. It proves by its signature that it is the one, and not by a credential."""
    webhook = server.workspace.webhooks.get(name)
    if webhook is None:
        raise NotFound(f"There is no webhook {quote_value(name)}")
    body = await request.body()
    if len(body) > LARGEST:
        raise TooLarge(f"The body is larger than {LARGEST} bytes; send less at once")
    delivery = webhook.verify(WebhookRequest(headers={k.lower(): v for k, v in request.headers.items()}, body=body))
    if delivery is None:
        return
    caller = Caller(id=delivery.owner, kind="service", scopes=frozenset({webhook.receiver.scope}))
    await call_tool(
        server.runtime,
        webhook.receiver,
        delivery.arguments,
        caller=caller,
        surface="rest",
        idempotency_key=delivery.key,
    )
