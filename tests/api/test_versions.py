"""A message that is edited, or answered anew, stands in the place of its earlier versions."""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from agent_server.testing import Refuse, Say, ScriptedOpenAI, Step, scripted_openai
from tests.server import Client, Start


def user(id: str, text: str) -> dict[str, Any]:
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}


async def send(client: Client, chat: str, *messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Send messages as `useChat` does."""
    body = {"id": chat, "messages": list(messages), "agent": "tasks", "stream": False, **more}
    response = await client.http.post("/api/chat", json=body, headers=client.auth)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def regenerate(answer: dict[str, Any]) -> dict[str, str]:
    return {"trigger": "regenerate-message", "messageId": answer["turn_id"]}


async def said(client: Client, chat: str, **query: Any) -> list[tuple[str, str]]:
    listed = await client.get(f"/api/conversations/{chat}/messages", **query)
    return [(item["role"], item["text"]) for item in listed["items"]]


def given_to(model: ScriptedOpenAI) -> list[str]:
    """What the model was given last of the user and of itself."""
    return [m["content"] for m in model.requests[-1]["messages"] if m["role"] in ("user", "assistant")]


async def test_another_answer_takes_the_place_of_the_first_which_stays_readable(start: Start) -> None:
    async with (
        scripted_openai([Say("first"), Say("second"), Say("third")]) as model,
        start(openai_base_url=model.url, model="m") as client,
    ):
        first = await send(client, "c1", user("u1", "What is a parrot?"))
        second = await send(client, "c1", user("u1", "What is a parrot?"), **regenerate(first))
        assert (second["text"], given_to(model)) == ("second", ["What is a parrot?"])
        assert await said(client, "c1") == [("user", "What is a parrot?"), ("assistant", "second")]
        # Sent twice, as after a lost connection, it is answered anew once; asked for once more, it is once more.
        assert await send(client, "c1", user("u1", "What is a parrot?"), **regenerate(first)) == second
        third = await send(client, "c1", user("u1", "What is a parrot?"), **regenerate(second))
        assert (third["text"], len(model.requests)) == ("third", 3)
        every = await client.get("/api/conversations/c1/messages", replaced=True)
        assert [(m["text"], m["replaced_by"]) for m in every["items"] if m["role"] == "assistant"] == [
            ("first", 2),
            ("second", 3),
            ("third", None),
        ]


async def test_an_edit_takes_the_place_of_its_message_and_of_all_that_came_after_it(start: Start) -> None:
    script = [Say("cats"), Say("more"), Say("dogs"), Say("dogs too"), Say("fish")]
    async with scripted_openai(script) as model, start(openai_base_url=model.url, model="m") as client:
        first = await send(client, "c1", user("u1", "Tell me of cats"))
        await send(client, "c1", user("u2", "More"))
        edited = await send(client, "c1", user("u1", "Tell me of dogs"), messageId="u1")
        assert (edited["text"], given_to(model)) == ("dogs", ["Tell me of dogs"])
        assert await said(client, "c1") == [("user", "Tell me of dogs"), ("assistant", "dogs")]
        assert await send(client, "c1", user("u1", "Tell me of dogs"), messageId="u1") == edited  # sent again
        await send(client, "c1", user("u3", "And?"))
        assert given_to(model) == ["Tell me of dogs", "dogs", "And?"]
        # As a page names it that has read the conversation from here.
        await send(client, "c1", user(f"{edited['turn_id']}.1", "Tell me of fish"), messageId=f"{edited['turn_id']}.1")
        assert await said(client, "c1") == [("user", "Tell me of fish"), ("assistant", "fish")]
        assert len(await said(client, "c1", replaced=True)) == 10
        assert (await client.get(f"/api/turns/{first['turn_id']}"))["status"] == "done"


async def test_an_answer_that_is_still_written_is_stopped_by_the_edit_of_its_question(start: Start) -> None:
    held = asyncio.Event()
    script = [Say("about cats", hold=(1, held)), Say("about dogs")]
    async with scripted_openai(script) as model, start(openai_base_url=model.url, model="m") as client:
        body = {"id": "c1", "messages": [user("u1", "cats")], "agent": "tasks"}
        async with client.http.stream("POST", "/api/chat", json=body, headers=client.auth) as response:
            await anext(response.aiter_bytes())
            edited = await send(client, "c1", user("u1", "dogs"))
            turn = response.headers["X-Turn-Id"]
        assert edited["text"] == "about dogs"
        assert (await client.get(f"/api/turns/{turn}"))["status"] == "cancelled"
        assert await said(client, "c1") == [("user", "dogs"), ("assistant", "about dogs")]


async def test_nobody_replaces_a_message_of_another_caller(start: Start) -> None:
    async with (
        scripted_openai([Say("mine"), Say("theirs")]) as model,
        start(openai_base_url=model.url, model="m") as client,
        start(openai_base_url=model.url, model="m") as other,
    ):
        mine = await send(client, "c1", user("u1", "cats"))
        theirs = await send(other, "c1", user("u1", "dogs"), **regenerate(mine))
        assert theirs["conversation_id"] != mine["conversation_id"]
        assert await said(client, "c1") == [("user", "cats"), ("assistant", "mine")]


async def test_a_turn_that_failed_leaves_no_two_messages_of_the_user_beside_each_other(start: Start) -> None:
    script: list[Step] = [Refuse(400), Say("one"), Refuse(400), Refuse(400), Say("two")]
    async with scripted_openai(script) as model, start(openai_base_url=model.url, model="m") as client:
        chat = str(uuid4())
        for text in ("a", "a", "b", "c", "d"):
            await send(client, chat, user(str(uuid4()), text))
        # What failed and was asked again is there once.
        assert given_to(model) == ["a", "one", "b", "(interrupted)", "c", "(interrupted)", "d"]


ACTS = st.lists(st.tuples(st.sampled_from(["say", "edit", "again", "resend"]), st.integers(0, 3)), max_size=7)


async def test_the_conversation_is_what_its_user_sees_whatever_was_edited_and_asked_again(start: Start) -> None:
    drawn: list[list[tuple[str, int]]] = []

    @settings(max_examples=20)
    @given(ACTS)
    def draw(acts: list[tuple[str, int]]) -> None:
        drawn.append(acts)

    draw()
    texts = itertools.count()
    async with (
        scripted_openai(lambda _: Say(f"answer {next(texts)}")) as model,
        start(openai_base_url=model.url, model="m") as client,
    ):
        for acts in drawn:
            await _act(client, model, texts, acts)


async def _act(client: Client, model: ScriptedOpenAI, texts: Iterator[int], acts: list[tuple[str, int]]) -> None:
    chat, seen = str(uuid4()), list[tuple[dict[str, Any], dict[str, Any]]]()
    for act, place in acts:
        message, more = user(str(uuid4()), f"question {next(texts)}"), dict[str, str]()
        place = min(place, len(seen) - 1) if seen and act != "say" else len(seen)
        if place < len(seen):
            earlier, answer = seen[place]
            if act == "resend":
                assert await send(client, chat, earlier) == answer
                continue
            if act == "edit":
                message["id"] = earlier["id"]
            else:
                message, more = earlier, regenerate(answer)
        seen[place:] = [(message, await send(client, chat, message, **more))]
        there = [text for message, answer in seen for text in (message["parts"][0]["text"], answer["text"])]
        assert given_to(model) == there[:-1], acts
        assert [text for _, text in await said(client, chat)] == there, acts
