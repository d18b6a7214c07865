"""What another service tells a workspace: nothing happens before its signature is found, and then for one owner only."""

import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest

from agent_server import Conflict, Delivery, Forbidden, InvalidInput, ToolContext, WebhookRequest, webhook
from agent_server.conversations.models import Conversation
from agent_server.conversations.repository import ConversationRepository
from agent_server.db import new_id
from agent_server.errors import WorkspaceInvalid
from agent_server.testing import AgentServer, run_agent_server
from agent_server.webhook import collect_webhooks
from agent_server.workspace import Workspace
from tests.conftest import ROOT

SECRET = b"whsec_0123456789"
SCOPE = "conversations:write"


def sign(body: bytes) -> dict[str, str]:
    return {"X-Signature": hmac.new(SECRET, body, "sha256").hexdigest()}


def verify(request: WebhookRequest) -> Delivery | None:
    if not hmac.compare_digest(request.headers.get("x-signature", ""), sign(request.body)["X-Signature"]):
        raise Forbidden("X-Signature: is not made with the secret")
    said = json.loads(request.body)
    return None if said["owner"] is None else Delivery(owner=UUID(said.pop("owner")), arguments=said, key="1")


@webhook("shop", scope=SCOPE, verify=verify)
async def hear_shop(context: ToolContext, title: str, fails: bool = False) -> None:
    """Note what a shop says."""
    row = await context.repository(ConversationRepository).add(Conversation(title=title))
    assert (row.owner_id, context.caller.kind, context.caller.scopes) == (
        context.caller.id,
        "service",
        frozenset({SCOPE}),
    )
    if fails:
        raise Conflict("Not now; send it again")


@pytest.fixture
async def served(agent_workspace: Workspace, agent_database: str) -> AsyncIterator[AgentServer]:
    workspace = replace(agent_workspace, webhooks={"shop": hear_shop})
    async with run_agent_server(workspace, agent_database) as server:
        yield server


async def test_what_a_service_has_signed_is_done_for_the_owner_it_names_and_for_nobody_else(
    served: AgentServer,
) -> None:
    owner, other = served.as_caller("*"), served.as_caller("*")

    async def send(said: dict[str, Any], headers: dict[str, str] | None = None, name: str = "shop") -> int:
        body = json.dumps(said).encode()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(served.app), base_url="http://localhost") as http:
            return (await http.post(f"/api/hooks/{name}", content=body, headers=headers or sign(body))).status_code

    async def titles(caller: Any) -> list[str]:
        return [row["title"] for row in (await caller.call("list_conversations"))["items"]]

    said = {"owner": str(owner.id), "title": "Parcel 7"}
    assert await send(said) == 204
    assert await send({"owner": None}) == 204
    assert await send(said, {"X-Signature": "0"}) == 403
    assert await send({**said, "title": "changed on the way"}, sign(json.dumps(said).encode())) == 403
    assert await send(said, name="no-such-service") == 404
    assert await send({**said, "title": 7}) == 422  # signed, and not what the function takes
    assert await send({**said, "fails": True}) == 409  # and nothing of it is kept
    assert await send({**said, "title": "x" * 300_000}) == 413
    assert (await titles(owner), await titles(other)) == (["Parcel 7"], [])

    async with owner.http() as http:
        audit = (await http.get("/api/me/audit")).json()
        assert (await http.post("/api/tools/hear_shop", json={"title": "by hand"})).status_code == 404
        assert "hear_shop" not in [tool["name"] for tool in (await http.get("/api/tools")).json()]
    heard = [(act["outcome"], act["surface"]) for act in audit["items"] if act["action"] == "hear_shop"]
    assert sorted(heard) == [("conflict", "rest"), ("invalid_input", "rest"), ("ok", "rest")]


def test_what_cannot_work_is_named_with_its_line() -> None:
    async def asynchronous(request: WebhookRequest) -> Delivery | None:
        return Delivery(owner=new_id())

    with pytest.raises(WorkspaceInvalid) as wrong:

        @webhook("Our Shop", scope="shop", verify=asynchronous)  # type: ignore[arg-type]
        async def hear(context: ToolContext, title) -> None:  # type: ignore[no-untyped-def]
            """What it says."""

    assert [line.partition("webhook Our Shop: ")[2] for line in wrong.value.message.splitlines()] == [
        "a name is words of a-z and 0-9 with a dash between them, as in stripe or our-bank",
        "verify must be a function that is not `async`: it looks at the request alone",
        "scope 'shop' is not resource:verb, as in tasks:write",
        "title has no type; write one, as in `title: str`",
    ]
    same = replace(hear_shop)
    kept, (clash,) = collect_webhooks([hear_shop, same], ROOT)
    assert (kept, clash.message) == ({"shop": hear_shop}, "webhook shop: there is one already; rename one")
    assert clash.file == "tests/test_webhooks.py"
    with pytest.raises(InvalidInput):
        hear_shop.receiver.validate({"title": "x", "owner": "somebody"})
