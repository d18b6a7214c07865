"""A replica dies in the middle of an answer: the real run loop, on another replica, goes on from the log."""

import asyncio

from sqlalchemy import text

from agent_server.testing import Call, Calls, Say, Step, scripted_openai
from tests.conftest import everything
from tests.server import Client, Start
from tests.sse import Frame, read_frames, text_of, types_of


async def _read_until(client: Client, message: str, chunk: str) -> tuple[str, str, list[Frame]]:
    """Send a message and leave when a chunk of this type has come."""
    seen: list[Frame] = []
    async with client.http.stream("POST", "/api/chat", json={"message": message}, headers=client.auth) as response:
        async for frame in read_frames(response):
            seen.append(frame)
            if frame.data["type"] == chunk:
                break
    return response.headers["X-Conversation-Id"], response.headers["X-Turn-Id"], seen


async def _dies(client: Client, turn: str) -> None:
    async with everything(client.server.database) as session:
        owner = text("update turn set owner = gen_random_uuid() where id = :id")
        await session.execute(owner, {"id": turn})


async def test_another_replica_asks_for_nothing_again_and_repeats_no_effect(start: Start) -> None:
    never = asyncio.Event()
    first: list[Step] = [
        Call("transfer_to_tasks", {}),
        Calls((Call("create_task", {"title": "Buy fins"}), Call("create_task", {"title": "Buy a mask"}))),
        Say("I have put both on your list.", hold=(3, never)),
    ]
    async with (
        scripted_openai(first) as asked_first,
        scripted_openai([Say("Both are on your list now.")]) as asked_then,
        start(openai_base_url=asked_first.url, model="m") as here,
        start(openai_base_url=asked_then.url, model="m") as there,
    ):
        there.key = here.key
        conversation, turn, seen = await _read_until(here, "two things for later", "text-delta")
        await _dies(here, turn)
        headers = {**here.auth, "Last-Event-ID": str(seen[-1].id)}
        path = f"/api/chat/{conversation}/stream"
        async with there.http.stream("GET", path, headers=headers) as response:
            seen += [frame async for frame in read_frames(response)]
        types = types_of(seen)
        assert text_of(seen[types.index("data-reset") :]) == "Both are on your list now."
        assert types.count("tool-input-available") == types.count("tool-output-available") == 2
        assert types[-2:] == ["finish", "[DONE]"]
        assert (len(asked_first.requests), len(asked_then.requests)) == (3, 1)
        given = asked_then.requests[0]["messages"]
        assert [m["role"] for m in given if m["role"] != "system"] == [
            "user",
            "assistant",
            "tool",
            "assistant",
            "tool",
            "tool",
        ]
        tasks = (await there.http.post("/api/tools/list_tasks", json={}, headers=there.auth)).json()["items"]
        assert sorted(task["title"] for task in tasks) == ["Buy a mask", "Buy fins"]
        messages = (await there.get(f"/api/conversations/{conversation}/messages"))["items"]
        assert [message["text"] for message in messages] == ["two things for later", "Both are on your list now."]
        assert (await there.get(f"/api/turns/{turn}"))["attempts"] == 2


async def test_a_server_that_is_stopped_in_mid_answer_goes_on_when_it_is_started_again(start: Start) -> None:
    never = asyncio.Event()
    async with scripted_openai([Say("one two three", hold=(2, never)), Say("one two three four")]) as model:
        async with start(openai_base_url=model.url, model="m") as client:
            conversation, turn, _ = await _read_until(client, "count", "text-delta")
            auth = client.auth
        async with start(openai_base_url=model.url, model="m") as again:
            answer = await again.http.get(f"/api/turns/{turn}/events", headers=auth)
            kinds = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
            assert kinds[-1] == "done"
            assert kinds.count("reset") == 1
            messages = await again.http.get(f"/api/conversations/{conversation}/messages", headers=auth)
            assert [m["text"] for m in messages.json()["items"]] == ["count", "one two three four"]


async def test_a_stop_on_another_replica_ends_the_turn_as_stopped_whatever_it_does(start: Start) -> None:
    go_on = asyncio.Event()
    script = [Say("Let me see.", hold=(2, go_on))]
    async with (
        scripted_openai(script) as model,
        start(openai_base_url=model.url, model="m") as here,
        start(model="offline") as there,
    ):
        conversation, turn, _ = await _read_until(here, "please", "text-delta")
        stopped = await there.http.post(f"/api/chat/{conversation}/stop", headers=here.auth)
        assert stopped.json() == {"stopped": True}
        go_on.set()
        await there.http.get(f"/api/turns/{turn}/events", headers=here.auth)
        assert (await there.http.get(f"/api/turns/{turn}", headers=here.auth)).json()["status"] == "cancelled"


async def test_a_stop_that_a_tool_notices_is_a_stop_and_no_failure(start: Start) -> None:
    """The run loop wraps what a tool raises in an error of its own."""
    async with scripted_openai([]) as model, start(openai_base_url=model.url, model="m") as client:

        def script(_: object) -> Call:
            return Call("create_task", {"title": "Buy fins"})

        async with everything(client.server.database) as session:
            # The flag is set the moment the model's response is in the journal: the tool's write is the next one.
            await session.execute(
                text("""
                create function stop_it() returns trigger language plpgsql as $$ begin
                  update turn set cancel = true where owner_id = new.owner_id and id = new.turn_id; return new; end $$""")
            )
            await session.execute(
                text("create trigger stop_it after insert on model_call for each row execute function stop_it()")
            )
        model.script = script
        frames = await client.chat("fins")
        assert types_of(frames)[-2:] == ["abort", "[DONE]"]
        tasks = await client.http.post("/api/tools/list_tasks", json={}, headers=client.auth)
        assert tasks.json()["items"] == []
