"""A form that was sent is known as sent to every device of whoever sent it, and to nobody else."""

from typing import Any

import pytest

from agent_server.testing import Call, Say, scripted_openai
from tests.server import Client, Start

ASK = "I would like to talk to somebody about nitrox"
LEAD = "/api/tools/capture_lead"


async def sent_of(client: Client, conversation: str) -> list[bool | None]:
    """What is said of each call of the conversation's answers."""
    page = await client.get(f"/api/conversations/{conversation}/messages")
    return [tool.get("sent") for message in page["items"] for tool in message["tools"]]


async def send(client: Client, email: str, **headers: str) -> int:
    response = await client.http.post(LEAD, json={"email": email}, headers={**client.auth, **headers})
    return response.status_code


async def test_a_form_is_open_until_it_is_sent_from_its_conversation(client: Client) -> None:
    first, second = await client.ask(ASK), await client.ask(ASK)
    here, there = first["conversation_id"], second["conversation_id"]
    assert await sent_of(client, here) == [False]

    assert await send(client, "ada@example.org") == 200  # from no conversation
    assert await send(client, "nobody", **{"X-Conversation-Id": here}) == 422  # refused
    assert await send(client, "ada@example.org", **{"X-Conversation-Id": there}) == 200
    assert (await sent_of(client, here), await sent_of(client, there)) == ([False], [True])

    assert await send(client, "ada@example.org", **{"X-Conversation-Id": here}) == 200
    await client.ask(ASK, id=here)
    assert await sent_of(client, here) == [True, False]  # the second form was given after that


async def test_sending_into_a_strangers_conversation_is_refused_and_changes_nothing_there(client: Client) -> None:
    here = (await client.ask(ASK))["conversation_id"]
    stranger = {"Authorization": f"Bearer {await client.new_key()}", "X-Conversation-Id": here}
    assert await send(client, "ada@example.org", **stranger) == 404
    assert await sent_of(client, here) == [False]


@pytest.mark.parametrize(
    "call",
    [
        Call("list_tasks", {}),
        Call("offer_form", {"tool": "no_such_tool"}),
        Call("offer_form", {"tool": "capture_lead"}),
    ],
)
async def test_only_a_call_that_gives_a_form_can_be_one_that_was_sent(start: Start, call: Call) -> None:
    async with scripted_openai([call, Say("There.")]) as model, start(openai_base_url=model.url, model="m") as client:
        answer: dict[str, Any] = await client.ask("Do it")
        expected = {"list_tasks": None}.get(call.name, False)
        assert await sent_of(client, answer["conversation_id"]) == [expected]
        assert "sent" not in answer["tools"][0]
