"""How an answer ends, what was thought before it and what it cost: the same on every surface."""

import json
from typing import Any

import pytest

from agent_server.testing import Call, Calls, Refuse, Say, Step, scripted_openai
from tests.server import Client, Start


async def frames_of(client: Client, message: str = "hello", **headers: str) -> list[dict[str, Any]]:
    return [frame.data for frame in await client.chat(message, **headers) if isinstance(frame.data, dict)]


@pytest.mark.parametrize(
    ("finish", "sdk", "note"),
    [("length", "length", "reached its longest answer"), ("content_filter", "content-filter", "has filtered")],
)
async def test_a_text_that_is_cut_says_so_on_every_surface(start: Start, finish: str, sdk: str, note: str) -> None:
    async with (
        scripted_openai(lambda _: Say("The three steps are: first", finish=finish)) as model,
        start(openai_base_url=model.url, model="m") as client,
    ):
        answer = await client.ask("hello")
        assert (answer["status"], answer["finish_reason"]) == ("done", finish)
        assert note in answer["notes"][0]["text"]
        frames = await frames_of(client)
        assert frames[-1]["finishReason"] == sdk
        assert [frame["data"]["code"] for frame in frames if frame["type"] == "data-note"] == [finish]
        listed = await client.get(f"/api/conversations/{answer['conversation_id']}/messages")
        assert (listed["items"][1]["finish_reason"], listed["items"][1]["notes"]) == (finish, answer["notes"])


async def test_what_was_thought_comes_before_the_text_and_is_kept_beside_it(start: Start) -> None:
    said = Say("<think>It is late.</think>\n\nGood night.", thought="Hm. ")
    async with (
        scripted_openai(lambda _: said) as model,
        start(openai_base_url=model.url, model="m") as client,
    ):
        frames = await frames_of(client)
        types = [frame["type"] for frame in frames]
        assert types.index("reasoning-start") < types.index("reasoning-end") < types.index("text-start")
        thought = "".join(frame["delta"] for frame in frames if frame["type"] == "reasoning-delta")
        assert thought == "Hm. It is late."
        assert "".join(frame["delta"] for frame in frames if frame["type"] == "text-delta") == "Good night."
        answer = await client.ask("hello")
        assert (answer["text"], answer["reasoning"]) == ("Good night.", thought)
        again = await client.ask("more", id=answer["conversation_id"])
        assert again["text"] == "Good night."
        assert "It is late" not in json.dumps(model.requests[-1])


async def test_a_thought_that_was_never_opened_is_taken_out_of_the_text(start: Start) -> None:
    async with (
        scripted_openai(lambda _: Say("It is late.\n</think>\n\nGood night.")) as model,
        start(openai_base_url=model.url, model="m") as client,
    ):
        answer = await client.ask("hello")
        assert (answer["text"], answer["reasoning"]) == ("Good night.", "It is late.")
        frames = await frames_of(client)
        after = max(n for n, frame in enumerate(frames) if frame["type"] == "data-reset")
        assert "".join(f["delta"] for f in frames[after:] if f["type"] == "text-delta") == "Good night."


async def test_what_a_failed_turn_used_is_stored_with_the_agent(start: Start) -> None:
    script: list[Step] = [Call("list_tasks", {}), Refuse(400)]
    async with scripted_openai(script) as model, start(openai_base_url=model.url, model="m") as client:
        body = {"message": "tasks", "agent": "tasks", "stream": False}
        answer = (await client.http.post("/api/chat", json=body, headers=client.auth)).json()
    assert (answer["status"], answer["agent"]) == ("failed", "tasks")
    assert answer["usage"] == {
        "model": "openai/m", "requests": 1, "input_tokens": 10, "output_tokens": 5, "total_tokens": 15,
    }  # fmt: skip


async def test_the_same_call_is_made_twice_in_a_turn_and_the_model_is_told(start: Start) -> None:
    same = [Call("create_task", text) for text in ('{"title": "A"}', '{ "title" : "A" }', '{"title": "A"}')]
    script: list[Step] = [
        same[0],
        Calls((same[1], same[2], Call("create_task", {"title": "B"}))),
        same[0],
        Say("Done."),
        same[0],
        Say("Once more."),
    ]
    async with scripted_openai(script) as model, start(openai_base_url=model.url, model="m") as client:
        body = {"message": "A", "agent": "tasks", "stream": False}
        answer = (await client.http.post("/api/chat", json=body, headers=client.auth)).json()
        assert (answer["status"], answer["text"]) == ("done", "Done.")
        errors = [tool["error"] for tool in answer["tools"]]
        refused = "conflict: create_task was called 2 times with these arguments in this turn"
        assert [bool(error) and error.startswith(refused) for error in errors] == [False, False, True, False, True]
        told = [m["content"] for m in model.requests[3]["messages"] if m["role"] == "tool"]
        assert sum(text.startswith(refused) for text in told) == 2
        # Another turn begins anew.
        again = await client.http.post("/api/chat", json={**body, "id": answer["conversation_id"]}, headers=client.auth)
        assert [tool["error"] for tool in again.json()["tools"]] == [None]
        listed = await client.http.post("/api/tools/list_tasks", json={}, headers=client.auth)
        assert sorted(task["title"] for task in listed.json()["items"]) == ["A", "A", "A", "B"]


async def test_the_offline_fallback_says_that_the_model_is_not_available(start: Start) -> None:
    async with (
        scripted_openai(lambda _: Refuse(401)) as model,
        start(openai_base_url=model.url, model="m", model_fallback="offline") as client,
    ):
        answer = await client.ask("Who won the chess olympiad of 1924?")
    assert "not available just now" in answer["text"]
    assert "configured" not in answer["text"]
