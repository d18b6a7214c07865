"""How many leads callers may leave, whatever way they come."""

from agent_server.testing import Call, Say, scripted_openai
from tests.server import Start


async def test_guests_of_one_address_share_what_may_be_left_from_there(start: Start) -> None:
    async with start(rate_guests_per_address=0) as client:
        sent = [await client.http.post("/api/lead", json={"email": f"{n}@example.org"}) for n in range(22)]
    assert [answer.status_code for answer in sent] == [200] * 20 + [429] * 2
    assert int(sent[-1].headers["Retry-After"]) > 0


async def test_agents_of_guests_of_one_address_share_it_too(start: Start) -> None:
    steps = [step for n in range(22) for step in (Call("capture_lead", {"email": f"{n}@example.org"}), Say("Done."))]
    async with (
        scripted_openai(steps) as model,
        start(openai_base_url=model.url, model="scripted", rate_guests_per_address=0, rate_per_address=0) as client,
    ):
        errors = []
        for _ in range(22):
            said = {"message": "Have somebody write to me", "agent": "trip", "stream": False}
            sent = await client.http.post("/api/chat", json=said)
            errors += [tool["error"] for tool in sent.json()["tools"]]
    assert errors[:20] == [None] * 20
    assert len(errors) == 22
    assert all("Too many" in error for error in errors[20:])


async def test_members_of_one_address_share_it_over_mcp(start: Start) -> None:
    async with start(rate_per_address=0) as client:
        errors = []
        for n in range(22):
            key = await client.new_key("leads:write")
            call = {"name": "capture_lead", "arguments": {"email": f"anna{n}@example.org"}}
            sent = await client.http.post(
                "/mcp",
                json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call},
                headers={
                    "Authorization": f"Bearer {key}",
                    "Accept": "application/json, text/event-stream",
                    "MCP-Protocol-Version": "2025-11-25",
                },
            )
            errors.append("Too many" in sent.text)
    assert errors == [False] * 20 + [True] * 2
