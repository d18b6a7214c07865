"""POST /api/chat and its streams: a message is answered once, and nothing of the answer is lost."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest
from dirty_equals import IsPartialDict, IsStr
from sqlalchemy import text

from agent_server.testing import Call, Cut, Refuse, Say, Stall, Step, scripted_openai
from tests.conftest import everything
from tests.server import Client, Start
from tests.sse import Frame, read_frames, text_of, types_of

QUESTION = "Which certification do I need to dive a wreck at 30 metres, and how long should I wait before flying home?"


async def test_without_a_key_the_answer_quotes_the_content_with_citations_that_open(client: Client) -> None:
    frames = await client.chat(QUESTION)
    text = text_of(frames)
    assert "Advanced Open Water" in text
    assert "hours" in text
    sources = [f.data for f in frames if f.data != "[DONE]" and f.data["type"] == "source-document"]
    assert {s["filename"] for s in sources} & {"training/wreck-diver.md", "training/which-certification.md"}
    for source in sources:
        assert f"[{source['sourceId']}]" in text
        passage = source["providerMetadata"]["agentServer"]
        opened = await client.get(f"/api/passages/{passage['passage']}")
        assert opened["text"] == passage["text"]
        whole = (client.server.workspace.content / opened["document"]).read_text()
        assert whole[opened["start"] : opened["end"]] == opened["text"]


async def test_what_the_content_does_not_hold_is_said_to_be_missing(client: Client) -> None:
    answer = await client.ask("Who won the football world cup in 1998?")
    assert answer["sources"] == []
    assert "content" in answer["text"]
    assert "[" not in answer["text"]


async def test_the_conversation_is_there_after_a_reload(client: Client) -> None:
    answer = await client.ask(QUESTION)
    conversation = answer["conversation_id"]
    listed = await client.get("/api/conversations")
    assert listed["items"] == [
        IsPartialDict(id=conversation, title=IsStr(regex="Which certification.*…"), agent=answer["agent"])
    ]
    messages = (await client.get(f"/api/conversations/{conversation}/messages", render="html"))["items"]
    assert [m["role"] for m in messages] == ["user", "assistant"]
    assert messages[0]["text"] == QUESTION
    assert messages[1] == IsPartialDict(
        text=answer["text"].strip(), status="done", sources=answer["sources"], prompt_sha=IsStr(), model="offline"
    )
    assert any('class="cite"' in block for block in messages[1]["html"])


async def test_a_guest_is_made_for_a_chat_without_a_credential_and_keeps_its_conversation(client: Client) -> None:
    first = await client.http.post("/api/chat", json={"message": QUESTION, "stream": False})
    token = first.headers["X-Guest-Token"]
    conversation = first.headers["X-Conversation-Id"]
    guest = {"Authorization": f"Bearer {token}"}
    again = await client.http.get(f"/api/conversations/{conversation}/messages", headers=guest)
    assert len(again.json()["items"]) == 2
    other = await client.http.get(f"/api/conversations/{conversation}/messages", headers=client.auth)
    assert other.status_code == 404
    refused = await client.http.get("/api/tools", headers=guest)
    assert refused.status_code == 403
    assert "API key" in refused.json()["detail"]


async def test_a_model_streams_its_words_calls_tools_and_hands_off(start: Start) -> None:
    script: list[Step] = [
        Call("transfer_to_tasks", {}),
        Call("create_task", {"title": "Buy fins"}),
        Say("I have put it on your list."),
    ]
    async with scripted_openai(script) as model, start(openai_base_url=model.url, model="scripted") as client:
        frames = await client.chat("hmm, fins")
        types = types_of(frames)
        assert types[0] == "start"
        assert types[-2:] == ["finish", "[DONE]"]
        assert types.index("tool-input-available") < types.index("tool-output-available") < types.index("text-delta")
        agents = [f.data["data"]["name"] for f in frames if f.data != "[DONE]" and f.data["type"] == "data-agent"]
        assert agents[-1] == "tasks"
        assert text_of(frames) == "I have put it on your list."
        tasks = await client.http.post("/api/tools/list_tasks", json={}, headers=client.auth)
        assert [task["title"] for task in tasks.json()["items"]] == ["Buy fins"]
        assert [r["stream"] for r in model.requests] == [True] * 3
        given = model.requests[2]["messages"]
        assert [m["role"] for m in given][-4:] == ["assistant", "tool", "assistant", "tool"]


async def test_a_conversation_goes_on_with_another_model(start: Start) -> None:
    async with start() as client:
        first = await client.ask("How long do I wait before flying after a single dive?")
        key = client.key
    async with scripted_openai([Say("As said, twelve hours.")]) as model, start(openai_base_url=model.url) as client:
        client.key = key
        again = await client.ask("And why?", id=first["conversation_id"])
    assert again["text"] == "As said, twelve hours."
    said = [(m["role"], m["content"]) for m in model.requests[0]["messages"] if m["role"] != "system"]
    assert said[0] == ("user", "How long do I wait before flying after a single dive?")
    assert said[-1] == ("user", "And why?")
    assert model.requests[0]["model"] == "scripted"  # the first that the server lists


async def test_the_same_key_and_message_are_one_turn_and_another_message_is_refused(client: Client) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    body = {"message": QUESTION}
    both = await asyncio.gather(
        *(client.http.post("/api/chat", json=body, headers={**client.auth, **key}) for _ in range(4))
    )
    assert len({r.headers["X-Turn-Id"] for r in both}) == 1
    assert len({r.content for r in both}) == 1
    assert len((await client.get("/api/conversations"))["items"]) == 1
    other = await client.http.post("/api/chat", json={"message": "another"}, headers={**client.auth, **key})
    assert other.status_code == 422
    assert "Idempotency-Key" in other.json()["detail"]


async def test_dropped_and_resumed_streams_are_the_undropped_one_byte_for_byte(start: Start) -> None:
    """200 streams, each cut somewhere and resumed from the last frame that came, up to five times."""
    words = " ".join(f"word{i} [1]" if i % 7 == 0 else f"word{i}" for i in range(120))
    chance = random.Random(7)
    unlimited = {"rate_per_caller": 0, "rate_per_address": 0}
    async with (
        scripted_openai(lambda _: Say(words)) as model,
        start(openai_base_url=model.url, model="m", **unlimited) as client,
    ):
        headers = {**client.auth, "X-Render": "html"}
        async with client.http.stream("POST", "/api/chat", json={"message": QUESTION}, headers=headers) as response:
            conversation = response.headers["X-Conversation-Id"]
            turn = response.headers["X-Turn-Id"]
            whole = [frame.raw async for frame in read_frames(response)]
        events = (await client.http.get(f"/api/turns/{turn}/events", headers=client.auth)).text
        for _ in range(100):
            path = f"/api/chat/{conversation}/stream"
            assert await _with_drops(client, path, headers, turn, chance) == whole
        for _ in range(100):
            got = await _with_drops(client, f"/api/turns/{turn}/events", headers, turn, chance)
            assert "".join(f"{raw}\n\n" for raw in got) == events


async def _with_drops(
    client: Client, path: str, headers: dict[str, str], turn: str, chance: random.Random
) -> list[str]:
    """Read a stream, dropping it after a few frames and coming back with the last id."""
    got: list[str] = []
    last = f"{turn}:0"
    for drop in range(6):
        take = chance.randint(1, 12) if drop < 5 else 10_000
        async with client.http.stream("GET", path, headers={**headers, "Last-Event-ID": last}) as response:
            async for frame in read_frames(response):
                got.append(frame.raw)
                last = frame.id or last
                take -= 1
                if frame.data == "[DONE]" or not take:
                    break
        if got and got[-1].startswith("data: [DONE]"):
            break
    return got


async def test_a_client_that_leaves_does_not_stop_the_turn_and_finds_it_running(start: Start) -> None:
    go_on = asyncio.Event()
    async with (
        scripted_openai([Say("one two three four", hold=(2, go_on))]) as model,
        start(openai_base_url=model.url, model="m") as client,
    ):
        seen: list[Frame] = []
        async with client.http.stream("POST", "/api/chat", json={"message": "hello"}, headers=client.auth) as response:
            conversation = response.headers["X-Conversation-Id"]
            async for frame in read_frames(response):
                seen.append(frame)
                if frame.data["type"] == "text-delta":
                    break
        path = f"/api/chat/{conversation}/stream"
        running = await client.get(f"/api/turns/{response.headers['X-Turn-Id']}")
        assert running["status"] == "running"
        async with client.http.stream("GET", path, headers={**client.auth, "Last-Event-ID": str(seen[-1].id)}) as rest:
            go_on.set()
            seen += [frame async for frame in read_frames(rest)]
        assert text_of(seen) == "one two three four"
        assert (await client.http.get(path, headers=client.auth)).status_code == 204


async def test_a_second_message_waits_for_the_first_and_a_full_queue_is_refused(start: Start) -> None:
    go_on = asyncio.Event()
    script = [Say("first answer", hold=(1, go_on)), Say("second answer"), Say("third answer")]
    async with (
        scripted_openai(script) as model,
        start(openai_base_url=model.url, model="m", queue_limit=2) as client,
    ):
        async with client.http.stream("POST", "/api/chat", json={"message": "one"}, headers=client.auth) as response:
            conversation = response.headers["X-Conversation-Id"]
        body = {"id": conversation, "message": "two", "stream": False}
        waiting = [asyncio.create_task(client.http.post("/api/chat", json=body, headers=client.auth))]
        await _until(lambda: _turns(client, 2))
        busy = await client.http.post("/api/chat", json={**body, "on_busy": "reject"}, headers=client.auth)
        assert busy.status_code == 409
        running = (await client.http.get(f"/api/turns/{busy.json()['turn_id']}", headers=client.auth)).json()
        assert running["status"] == "running"
        waiting.append(asyncio.create_task(client.http.post("/api/chat", json=body, headers=client.auth)))
        await _until(lambda: _turns(client, 3))
        full = await client.http.post("/api/chat", json=body, headers=client.auth)
        assert full.status_code == 429
        assert full.headers["Retry-After"]
        go_on.set()
        answers = [(await task).json()["text"] for task in waiting]
        assert answers == ["second answer", "third answer"]
        texts = [m["text"] for m in (await client.get(f"/api/conversations/{conversation}/messages"))["items"]]
        assert texts == ["one", "first answer", "two", "second answer", "two", "third answer"]


async def test_a_message_for_the_running_turn_is_answered_in_it_or_right_after_it(start: Start) -> None:
    go_on = asyncio.Event()
    script = [Say("first answer", hold=(1, go_on)), Say("second answer")]
    async with scripted_openai(script) as model, start(openai_base_url=model.url, model="m") as client:
        first = asyncio.create_task(client.ask("one"))
        await _until(lambda: _turns(client, 1))
        conversation = (await client.get("/api/conversations"))["items"][0]["id"]
        body = {"message": "two", "id": conversation, "on_busy": "steer", "stream": False}
        steers = [
            asyncio.create_task(
                client.http.post("/api/chat", json=body, headers={**client.auth, "Idempotency-Key": "k"})
            )
            for _ in range(3)
        ]

        async def stored() -> bool:
            return await _rows(client, "steer") == 1

        await _until(stored)
        go_on.set()
        turn = (await first)["turn_id"]
        assert {(await steer).json()["turn_id"] for steer in steers} == {turn}

        async def both_ended() -> bool:
            return await _rows(client, "turn where status = 'done'") == 2

        await _until(both_ended)
        texts = [m["text"] for m in (await client.get(f"/api/conversations/{conversation}/messages"))["items"]]
        assert texts == ["one", "first answer", "two", "second answer"]


async def test_an_interruption_stops_the_answer_and_is_answered_itself(start: Start) -> None:
    never = asyncio.Event()
    script = [Say("first answer", hold=(1, never)), Say("second answer")]
    async with scripted_openai(script) as model, start(openai_base_url=model.url, model="m") as client:
        first = asyncio.create_task(client.ask("one"))

        async def said_something() -> bool:
            return await _rows(client, "event where body::text like '%first%'") > 0

        await _until(said_something)
        conversation = (await client.get("/api/conversations"))["items"][0]["id"]
        body = {"message": "two", "id": conversation, "on_busy": "interrupt", "stream": False}
        second = await client.http.post("/api/chat", json=body, headers=client.auth)
        assert second.json()["text"] == "second answer"
        assert (await first)["status"] == "cancelled"
        texts = [m["text"] for m in (await client.get(f"/api/conversations/{conversation}/messages"))["items"]]
        assert texts == ["one", "first", "two", "second answer"]


async def test_stop_ends_the_turn_and_keeps_what_was_said(start: Start) -> None:
    never = asyncio.Event()
    async with (
        scripted_openai([Say("one two three", hold=(2, never))]) as model,
        start(openai_base_url=model.url, model="m") as client,
    ):
        seen: list[Frame] = []
        async with client.http.stream("POST", "/api/chat", json={"message": "hello"}, headers=client.auth) as response:
            conversation = response.headers["X-Conversation-Id"]
            async for frame in read_frames(response):
                seen.append(frame)
                if frame.data != "[DONE]" and frame.data["type"] == "text-delta" and len(seen) < 100:
                    stopped = await client.http.post(f"/api/chat/{conversation}/stop", headers=client.auth)
                    assert stopped.json() == {"stopped": True}
        assert types_of(seen)[-2:] == ["abort", "[DONE]"]
        last = (await client.get(f"/api/conversations/{conversation}/messages"))["items"][-1]
        assert last["status"] == "cancelled"
        assert last["text"].startswith("one")
        assert (await client.http.post(f"/api/chat/{conversation}/stop", headers=client.auth)).json() == {
            "stopped": False
        }


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([Refuse(401)], "refused the key"),
        ([Refuse(429, {"Retry-After": "0"})] * 3, "over its limit"),
        ([Refuse(500)] * 3, "status 500"),
        ([Cut("half a sen")] * 3, ""),
        ([Stall()] * 3, "said nothing"),
        ([Call("no_such_tool", {})] * 20, "kept calling tools"),
    ],
)
async def test_a_model_that_fails_ends_the_turn_with_a_reason_and_loses_no_message(
    start: Start, steps: list[Step], says: str
) -> None:
    async with (
        scripted_openai(steps) as model,
        start(openai_base_url=model.url, model="m", model_first_token_timeout=0.3) as client,
    ):
        frames = await client.chat("hello")
        types = types_of(frames)
        assert types[-3:] == ["error", "finish", "[DONE]"]
        error = frames[-3].data["errorText"]
        assert says in error
        assert "sk-secret" not in "".join(f.raw for f in frames)
        conversation = frames[0].data["messageMetadata"]["conversationId"]
        items = (await client.get(f"/api/conversations/{conversation}/messages"))["items"]
        assert items[0]["text"] == "hello"
        assert items[1] == IsPartialDict(status="failed", error={"code": "model_failed", "message": error})


async def test_a_stream_that_breaks_off_is_taken_back_and_asked_for_again(start: Start) -> None:
    async with (
        scripted_openai([Cut("wrong begin"), Say("the right answer")]) as model,
        start(openai_base_url=model.url, model="m") as client,
    ):
        frames = await client.chat("hello")
        types = types_of(frames)
        assert types.index("data-reset") > types.index("text-delta")
        after = frames[types.index("data-reset") :]
        assert text_of(after) == "the right answer"
        answer = await client.get(f"/api/conversations/{frames[0].data['messageMetadata']['conversationId']}/messages")
        assert answer["items"][1]["text"] == "the right answer"


async def test_malformed_tool_arguments_are_told_to_the_model_which_may_correct_them(start: Start) -> None:
    script: list[Step] = [
        Call("create_task", '{"title": "Buy'),
        Call("create_task", {"title": 7}),
        Call("create_task", {"title": "Buy fins"}),
        Say("Done."),
    ]
    async with scripted_openai(script) as model, start(openai_base_url=model.url, model="m") as client:
        await client.http.post(
            "/api/chat", json={"message": "x", "agent": "tasks", "stream": False}, headers=client.auth
        )
        told = [m["content"] for m in model.requests[-1]["messages"] if m["role"] == "tool"]
        assert told[0].startswith("invalid_input: The arguments of create_task are not JSON")
        assert told[1].startswith("invalid_input: title:")
        assert '"Buy fins"' in told[2]


async def test_an_emergency_gets_the_emergency_answer_first_whoever_answers(start: Start) -> None:
    async with scripted_openai([Say("Also rest.")]) as model, start(openai_base_url=model.url, model="m") as client:
        answer = await client.ask("My buddy is unconscious after the dive!")
        assert answer["text"].startswith("In a diving emergency, call the local emergency number first")
        assert answer["text"].endswith("Also rest.")
        assert answer["sources"][0]["document"] == "safety/emergency.md"
        assert "do not repeat it" in model.requests[0]["messages"][0]["content"]


async def test_an_emergency_typed_in_haste_gets_it_as_well_from_the_offline_model(start: Start) -> None:
    async with start() as client:
        for message in (
            "my buddy isnt breathing",
            "CANT BREATH",
            "diver unconcious",
            "ｓｈｅ　ｄｉｄｎ＇ｔ　ｃｏｍｅ　ｕｐ",
            "breathing he isn´t",
        ):
            answer = await client.ask(message)
            assert answer["text"].startswith("In a diving emergency, call the local emergency number first"), message
        assert "emergency number" not in (await client.ask("The view was breathtaking."))["text"]


@pytest.mark.parametrize(
    ("body", "status", "names"),
    [
        ({"message": ""}, 422, "message"),
        ({"message": "   \n"}, 422, "message"),
        ({"message": "x" * 2001}, 422, "2000"),
        ({"message": "a\x00b"}, 422, "NUL"),
        ({"message": "\ud800"}, 422, "Unicode"),
        ({}, 422, "message"),
        ({"message": "a", "messages": []}, 422, "either"),
        ({"message": "a", "mesage": "b"}, 422, "mesage"),
        ({"message": 7}, 422, "message"),
        ({"message": "a", "id": "not-an-id"}, 404, "conversation"),
        ({"message": "a", "id": str(uuid4())}, 404, "conversation"),
        ({"message": "a", "agent": "nobody"}, 422, "agent"),
        ({"message": "a", "on_busy": "shout"}, 422, "on_busy"),
        ({"messages": [{"role": "assistant", "parts": []}]}, 422, "user"),
        ({"messages": [{"role": "user", "parts": [{"type": "file", "url": "x"}]}]}, 422, "files"),
    ],
)
async def test_a_bad_message_is_refused_by_name_and_nothing_is_stored(
    start: Start, body: dict[str, object], status: int, names: str
) -> None:
    async with start() as client:
        headers = {**client.auth, "Content-Type": "application/json"}
        response = await client.http.post("/api/chat", content=json.dumps(body), headers=headers)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        assert names in response.json()["detail"]
        assert response.json()["request_id"] == response.headers["X-Request-Id"]
        assert (await client.get("/api/conversations"))["items"] == []


async def test_a_body_that_is_not_json_or_not_utf8_is_refused(start: Start) -> None:
    async with start() as client:
        headers = {**client.auth, "Content-Type": "application/json"}
        for content in (b"{", b'{"message": "\xff"}', b"", b"[]", b'"text"'):
            response = await client.http.post("/api/chat", content=content, headers=headers)
            assert response.status_code == 422, (content, response.text)
        large = await client.http.post("/api/chat", content=b"x" * 1_048_577, headers=headers)
        assert large.status_code == 413


async def test_use_chat_clients_keep_their_own_chat_id(client: Client) -> None:
    body = {
        "id": "chat-Zk3",
        "messages": [
            {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "How deep may I dive on nitrox 32?"}]}
        ],
        "trigger": "submit-message",
    }
    first = await client.http.post("/api/chat", json=body, headers=client.auth)
    assert first.headers["x-vercel-ai-ui-message-stream"] == "v1"
    again = await client.http.post("/api/chat", json=body, headers=client.auth)
    assert again.headers["X-Turn-Id"] == first.headers["X-Turn-Id"]
    messages = await client.get("/api/conversations/chat-Zk3/messages")
    assert len(messages["items"]) == 2
    running = await client.http.get("/api/chat/chat-Zk3/stream", headers=client.auth)
    assert running.status_code == 204


@pytest.mark.parametrize("id", ["x:1", "{turn}:-1", "{turn}:1:2", "{turn}", "{turn}:99999999999999999999999"])
async def test_a_cursor_that_is_not_of_this_stream_is_refused(client: Client, id: str) -> None:
    answer = await client.ask("How deep may I dive on nitrox 32?")
    headers = {**client.auth, "Last-Event-ID": id.format(turn=answer["turn_id"])}
    response = await client.http.get(f"/api/turns/{answer['turn_id']}/events", headers=headers)
    assert response.status_code == 422
    assert "Last-Event-ID" in response.json()["detail"]


async def _turns(client: Client, count: int) -> bool:
    return await _rows(client, "turn") >= count


async def _rows(client: Client, table: str) -> int:
    async with everything(client.server.database) as session:
        return int((await session.execute(text(f"select count(*) from {table}"))).scalar_one())


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110  # a row of another connection has no event
            await asyncio.sleep(0.02)
