"""How results of tools are served: in the stream, after a reload, and when a question was answered."""

import asyncio
import json
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

from dirty_equals import IsPartialDict

from agent_server.testing import Call, Say, Step, scripted_openai
from agent_server.workspace import load_workspace
from tests.conftest import ROOT
from tests.server import Client, Start
from tests.sse import read_frames

RENDERED = {"X-Render": "html"}


async def ask(client: Client, message: str, agent: str) -> tuple[str, list[dict[str, Any]], list[str]]:
    """The conversation, the chunks of the answer, and its frames as they came."""
    body = {"message": message, "agent": agent}
    async with client.http.stream("POST", "/api/chat", json=body, headers={**client.auth, **RENDERED}) as response:
        assert response.status_code == 200
        frames = [frame async for frame in read_frames(response)]
        chunks = [frame.data for frame in frames if frame.data != "[DONE]"]
        return response.headers["X-Conversation-Id"], chunks, [frame.raw for frame in frames]


def told(chunks: list[dict[str, Any]]) -> dict[str, str]:
    """What the stream says of each call, in HTML. Each comes right after the outcome that it is of."""
    found = {}
    for before, chunk in pairwise(chunks):
        if chunk["type"] == "data-tool":
            assert chunk == {"type": "data-tool", "data": chunk["data"], "transient": True}
            assert before["type"] in ("tool-output-available", "tool-output-error")
            assert before["toolCallId"] == chunk["data"]["id"]
            found[chunk["data"]["id"]] = chunk["data"]["html"]
    return found


async def test_each_outcome_reads_in_words_in_the_stream_and_the_same_after_a_reload(start: Start) -> None:
    steps: list[Step] = [
        Call("create_task", {"title": "Service the *regulator* <b>", "due": "2026-03-12"}),
        Call("list_tasks", {}),
        Call("get_task", {"task": "nothing of the kind"}),
        Call("delete_task", {"task": "Service the *regulator* <b>"}),
        Say("There you are."),
    ]
    async with scripted_openai(steps) as model, start(openai_base_url=model.url, model="m") as client:
        conversation, chunks, raw = await ask(client, "Please", "tasks")
        live = told(chunks)
        path = f"/api/conversations/{conversation}/messages"
        (_, answer) = (await client.get(path, render="html"))["items"]
        created, listed, missing, deleted = answer["tools"]
        assert {use["call_id"]: use["html"] for use in answer["tools"]} == live

        title = r"Service the \*regulator\* \<b>"
        assert created["text"] == f"On your list: **{title}**, by 12 March 2026"
        assert "<strong>Service the *regulator* &lt;b&gt;</strong>, by 12 March 2026" in created["html"]
        assert listed["text"] == f"- **{title}**, by 12 March 2026"
        assert missing["text"] == "That did not work. There is no task called 'nothing of the kind'."
        assert missing["output"] is None
        assert re.fullmatch(r"Delete.*Service the .*\? Nothing has been done yet\.", deleted["text"])

        (_, plain) = (await client.get(path))["items"]
        assert plain["tools"] == [{k: v for k, v in use.items() if k != "html"} for use in answer["tools"]]

        # A client that was cut off before or after it gets the rest, byte for byte.
        places = [n for n, frame in enumerate(raw) if '"type":"data-tool"' in frame]
        for n in (*places, *(place + 1 for place in places)):
            headers = {**client.auth, **RENDERED, "Last-Event-ID": raw[n - 1].splitlines()[0].removeprefix("id: ")}
            async with client.http.stream("GET", f"/api/chat/{conversation}/stream", headers=headers) as response:
                assert [frame.raw async for frame in read_frames(response)] == raw[n:]
        assert len(places) == 4

        question = deleted["output"]["confirmation"]
        decided = await client.http.post(
            f"/api/confirmations/{question}", params={"render": "html"}, json={"confirm": True}, headers=client.auth
        )
        assert decided.json() == IsPartialDict(status="confirmed", text=f"Deleted: **{title}**")
        assert decided.json()["html"] == "<p>Deleted: <strong>Service the *regulator* &lt;b&gt;</strong></p>"


async def test_a_question_that_is_answered_with_no_says_that_nothing_was_done(start: Start) -> None:
    steps: list[Step] = [Call("create_task", {"title": "A"}), Call("delete_task", {"task": "A"}), Say("Asked.")]
    async with scripted_openai(steps) as model, start(openai_base_url=model.url, model="m") as client:
        _, chunks, _ = await ask(client, "Please", "tasks")
        (asked,) = (chunk for chunk in chunks if chunk["type"] == "data-confirmation")
        path = f"/api/confirmations/{asked['id']}"
        decided = await client.http.post(path, json={"confirm": False}, headers=client.auth)
        assert decided.json() == IsPartialDict(status="declined", text="Nothing was done.", html=None)


async def test_results_of_tools_that_are_gone_and_of_searches_read_the_same_live_and_later(start: Start) -> None:
    steps: list[Step] = [
        Call("search_knowledge", {"query": "flying after diving", "limit": 2}),
        Call("list_destinations", {"month": 2}),
        Say("There you are."),
    ]
    workspace = load_workspace(ROOT)
    fewer = {name: tool for name, tool in workspace.tools.items() if name != "list_destinations"}
    agents = {name: replace(agent, tools=()) for name, agent in workspace.agents.items()}
    async with scripted_openai(steps) as model, start(openai_base_url=model.url, model="m") as client:
        conversation, chunks, _ = await ask(client, "Please", "trip")
        live, key = told(chunks), client.key
        path = f"/api/conversations/{conversation}/messages"
        before = (await client.get(path, render="html"))["items"][-1]["tools"]
        assert {use["call_id"]: use["html"] for use in before} == live
        assert "<table>" in before[1]["html"]
        assert "November to April" in before[1]["text"]
    async with start(workspace=replace(workspace, tools=fewer, agents=agents)) as client:
        client.key = key
        after = (await client.get(path, render="html"))["items"][-1]["tools"]
    assert after[0] == before[0]
    assert "Maldives" in after[1]["text"]
    assert "{" not in after[1]["text"]


async def test_a_huge_result_is_told_in_bounded_work_and_length(start: Start) -> None:
    steps: list[Step] = [Call("list_tasks", {"limit": 100}), Say("There you are.")]
    async with scripted_openai(steps) as model, start(openai_base_url=model.url, model="m") as client:
        calls = [
            client.http.post("/api/tools/create_task", json={"title": "[" * 200}, headers=client.auth)
            for _ in range(100)
        ]
        assert {response.status_code for response in await asyncio.gather(*calls)} == {200}
        _, chunks, _ = await ask(client, "Please", "tasks")
        (html,) = told(chunks).values()
        output = next(chunk["output"] for chunk in chunks if chunk["type"] == "tool-output-available")
        assert len(output["items"]) == 100
        assert len(html) < 10_000 < len(json.dumps(output))
        assert html.endswith("<p>…</p>")
