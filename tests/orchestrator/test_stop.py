"""A stop in the middle of a tool's call, through the run loop."""

import asyncio
from dataclasses import replace

import httpx
from sqlalchemy import text

from agent_server.app import create_server
from agent_server.asgi import create_app
from agent_server.db import Database, new_id
from agent_server.identity.credentials import issue_key
from agent_server.settings import load_settings
from agent_server.testing import Call, Say, scripted_openai
from agent_server.testing.serving import serving
from agent_server.tool import ToolContext, tool
from agent_server.workspace import load_workspace
from tests.conftest import ROOT, everything
from tests.server import Client


async def test_a_stop_keeps_the_outcome_of_a_call_outside_that_it_found_under_way(stocked_url: str) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    @tool(scope="tasks:write", effect="once")
    async def create_task(context: ToolContext, title: str) -> str:
        """Print a label."""
        begun.set()
        await go_on.wait()
        return "printed"

    workspace = load_workspace(ROOT)
    workspace = replace(workspace, tools={**workspace.tools, "create_task": create_task})
    database = Database(stocked_url)
    async with scripted_openai([Call("create_task", {"title": "x"}), Say("done")]) as model:
        settings = load_settings(environment="test", openai_base_url=model.url, model="m", workspace=ROOT)
        server = create_server(settings, workspace, database)
        async with everything(database) as session:
            key = (await issue_key(session, new_id(), name="t", scopes=["*"])).text
        async with serving(create_app(server)) as base, httpx.AsyncClient(base_url=base, timeout=30) as http:
            client = Client(server, http, key)
            body = {"message": "x", "agent": "tasks", "stream": False}
            asking = asyncio.create_task(http.post("/api/chat", json=body, headers=client.auth))
            await begun.wait()
            async with everything(database) as session:
                turn = (await session.execute(text("select id from turn"))).scalar_one()
            await http.post(f"/api/turns/{turn}/cancel", headers=client.auth)
            go_on.set()
            answer = (await asking).json()
    await database.close()
    assert answer["status"] == "cancelled"
    assert answer["tools"][0]["output"] == "printed"
