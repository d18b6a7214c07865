"""A workspace that changes while its server runs."""

import asyncio
from dataclasses import replace

from agent_server.testing import Say, scripted_openai
from tests.server import Start


async def test_a_turn_that_runs_keeps_the_agents_it_began_with(start: Start) -> None:
    released = asyncio.Event()
    script = [Say("One two", hold=(1, released)), Say("Three")]
    body = {"message": "Which tasks do I have?", "agent": "tasks"}
    async with scripted_openai(script) as model, start(openai_base_url=model.url, model="m") as client:
        server = client.server
        async with client.http.stream("POST", "/api/chat", json=body, headers=client.auth) as response:
            lines = response.aiter_lines()
            async for line in lines:
                if "One" in line:
                    break
            agents = dict(server.workspace.agents)
            agents["tasks"] = replace(agents["tasks"], body="You speak in rhymes.", sha="rhymes")
            await server.change(replace(server.workspace, agents=agents))
            released.set()
            assert "two" in "".join([line async for line in lines])
        answer = await client.http.post("/api/chat", json={**body, "stream": False}, headers=client.auth)
    assert answer.json()["text"] == "Three"
    told = [request["messages"][0]["content"] for request in model.requests]
    assert ["in rhymes" in text for text in told] == [False, True]
