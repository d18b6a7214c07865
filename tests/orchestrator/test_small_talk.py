"""Small talk in a turn: nobody looks anything up for it, and what the assistant is comes from the workspace."""

import json
from collections.abc import AsyncIterator

import pytest

from agent_server.offline.model import NOTHING_FOUND
from agent_server.testing import Say, ScriptedOpenAI, scripted_openai
from tests.server import Client, Start


@pytest.fixture
async def model() -> AsyncIterator[ScriptedOpenAI]:
    async with scripted_openai([]) as model:
        yield model


async def test_small_talk_gets_an_answer_without_a_search_and_without_a_model(client: Client) -> None:
    for message, agent in {
        "Hellooo 👋": "triage",
        "Who are you?": "triage",
        "what can you do for me": "triage",
        "are you a robot?": "triage",
    }.items():
        answer = await client.ask(message)
        assert (answer["agent"], answer["sources"]) == (agent, []), answer
        assert "[1]" not in answer["text"]
        assert "Try one of these:\n\n- " in answer["text"]
        events = await client.http.get(f"/api/turns/{answer['turn_id']}/events", headers=client.auth)
        assert "event: passages" not in events.text and '"passages"' not in events.text
    assert "**Safety**: Dive safety" in (await client.ask("hi"))["text"]
    assert "- **Destinations**: " in (await client.ask("hi"))["text"]
    assert (await client.ask("you are so stupid"))["text"].startswith("I am sorry")


async def test_thanks_do_not_end_the_subject_and_a_question_behind_them_is_answered(client: Client) -> None:
    asked = await client.ask("How long must I wait before flying after diving?")
    thanked = await client.ask("thanks a lot!", id=asked["conversation_id"])
    assert (thanked["text"], thanked["sources"]) == ("You are welcome. Ask me whenever there is more.", [])
    assert thanked["agent"] == asked["agent"]
    assert (await client.ask("thank you very much"))["agent"] == "triage"
    greeted = await client.ask("Hi, how long must I wait before flying after diving?")
    assert (greeted["agent"], greeted["text"]) == (asked["agent"], asked["text"])
    assert greeted["text"] != NOTHING_FOUND


async def test_an_emergency_goes_before_a_greeting(client: Client) -> None:
    answer = await client.ask("Hello, my buddy is unconscious")
    assert answer["sources"] and not answer["text"].startswith("Hello")


async def test_a_model_is_told_what_the_assistant_is_and_speaks_for_itself(start: Start, model: ScriptedOpenAI) -> None:
    model.script = [Say("I help divers."), Say("At least 18 hours [1].")]
    async with start(openai_base_url=model.url, model="m", title="Reef desk") as client:
        answer = await client.ask("What can you do?")
        assert (answer["agent"], answer["text"]) == ("triage", "I help divers.")
        told = model.requests[0]["messages"][0]["content"]
        (facts,) = [
            json.loads(line)["name"] and json.loads(line) for line in told.splitlines() if '"specialists"' in line
        ]
        assert facts["name"] == "Reef desk"
        assert facts["specialists"]["Trip"].startswith("Takes travel")
        assert facts["content"]["Safety"][0].endswith(" pages")
        assert len(facts["examples_of_questions"]) == 3
        await client.ask("How long must I wait before flying after diving?")
        assert '"specialists"' not in model.requests[1]["messages"][0]["content"]
