"""What a model is told of a call is what is stored of it: in the turn, in later turns, after a takeover, for clients."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from agent_server import Passage, Passages, ToolContext, tool
from agent_server.calls.ledger import RecordedFailure, failure_text
from agent_server.errors import AgentServerError, Conflict, Internal, InvalidInput, NotFound, TimedOut
from agent_server.testing import Call, Calls, Say, ScriptedOpenAI, Step, scripted_openai
from agent_server.workspace import Workspace, load_workspace
from tests.conftest import ROOT, everything
from tests.server import Client, Start


@tool(scope="shelf:read", effect="read")
async def look_up(context: ToolContext, title: str) -> Passages:
    """Look a page up that is not in the content."""
    page = Passage("", f"{title}.md", "shelf", title, title, "", start=0, end=9, score=0.5)
    hits = [replace(page, id=f"{title}-{n}", text=f"Page {n} of {title}.") for n in (1, 2)]
    return Passages(hits=hits)


@tool(scope="shelf:read", effect="read")
async def refuse(context: ToolContext) -> str:
    """Refuse."""
    raise Conflict("no, not with sk-proj-0123456789abcdefghijklmnop")


@tool(scope="shelf:read", effect="read")
async def break_down(context: ToolContext) -> str:
    """Break down."""
    raise RuntimeError("a bug")


@pytest.fixture
def workspace() -> Workspace:
    """One agent with these tools and no content of its own."""
    reference = load_workspace(ROOT)
    tools = {tool.name: tool for tool in (look_up, refuse, break_down)}
    agent = replace(reference.agents["knowledge"], tools=tuple(tools), handoffs=(), knowledge=())
    return replace(reference, tools={**reference.tools, **tools}, agents={agent.name: agent}, entry=agent.name)


@pytest.fixture
async def model() -> AsyncIterator[ScriptedOpenAI]:
    async with scripted_openai([]) as model:
        yield model


def _told(request: dict[str, Any]) -> dict[str, str]:
    """What a request to the model has as outputs, by call."""
    return {m["tool_call_id"]: m["content"] for m in request["messages"] if m["role"] == "tool"}


async def _stored(client: Client) -> dict[str, str]:
    async with everything(client.server.database) as session:
        rows = await session.execute(text("select body from item where body ->> 'type' = 'function_call_output'"))
        return {body["call_id"]: body["output"] for body in rows.scalars()}


CALLS = Calls((Call("refuse", {}), Call("break_down", {}), Call("look_up", {"title": "Tides"}), Call("nothing", {})))


async def test_a_model_reads_of_each_call_what_is_stored_of_it(
    start: Start, workspace: Workspace, model: ScriptedOpenAI
) -> None:
    model.script = [CALLS, Say("Well."), Say("Again.")]
    async with start(workspace=workspace, openai_base_url=model.url, model="m") as client:
        answer = await client.ask("Look it up")
        told = _told(model.requests[1])
        assert told == await _stored(client)
        refused, broken, found, unknown = told.values()
        assert refused.startswith("conflict: no, not with ")
        assert "0123456789" not in refused
        assert broken.startswith("internal: break_down failed")
        assert [hit["citation"] for hit in json.loads(found)["hits"]] == [1, 2]
        assert unknown == "not_found: There is no tool 'nothing' here"
        await client.ask("And again?", id=answer["conversation_id"])
        assert _told(model.requests[2]) == told


async def test_a_failed_call_carries_its_error_wherever_a_client_reads_it(
    start: Start, workspace: Workspace, model: ScriptedOpenAI
) -> None:
    model.script = [CALLS, Say("Well.")]
    async with start(workspace=workspace, openai_base_url=model.url, model="m") as client:
        answer = await client.ask("Look it up")
        page = await client.get(f"/api/conversations/{answer['conversation_id']}/messages")
        told = list(_told(model.requests[1]).values())
        for tools in (answer["tools"], page["items"][1]["tools"]):
            assert [tool["error"] for tool in tools] == [told[0], told[1], None, told[3]]
            assert [tool["output"] is None for tool in tools] == [True, True, False, True]


async def test_passages_are_numbered_and_cited_whichever_tool_has_returned_them(
    start: Start, workspace: Workspace, model: ScriptedOpenAI
) -> None:
    both = Calls((Call("look_up", {"title": "Tides"}), Call("look_up", {"title": "Moon"})))
    model.script = [both, Say("The moon does it [4], see also [1].")]
    async with start(workspace=workspace, openai_base_url=model.url, model="m") as client:
        answer = await client.ask("Why are there tides?")
        numbers = [[hit["citation"] for hit in json.loads(t)["hits"]] for t in _told(model.requests[1]).values()]
        assert sorted(numbers) == [[1, 2], [3, 4]]
        titles = {source["n"]: source["text"] for source in answer["sources"]}
        assert set(titles) == {1, 4}
        assert all(text.startswith("Page ") for text in titles.values())


async def test_after_a_takeover_the_model_is_told_the_same_of_each_call(start: Start, workspace: Workspace) -> None:
    first: list[Step] = [CALLS, Say("It says here", hold=(2, asyncio.Event()))]
    async with (
        scripted_openai(first) as asked_first,
        scripted_openai([Say("Well.")]) as asked_then,
        start(workspace=workspace, openai_base_url=asked_first.url, model="m") as here,
        start(workspace=workspace, openai_base_url=asked_then.url, model="m") as there,
    ):
        turn = await leave_when_text_comes(here, "Look it up")
        await take_over(here, turn)
        await there.http.get(f"/api/turns/{turn}/events", headers=here.auth)
        assert asked_then.requests[0]["messages"] == asked_first.requests[1]["messages"]
        assert _told(asked_then.requests[0]) == await _stored(there)


async def test_after_a_takeover_of_an_emergency_the_model_gets_the_same_request(start: Start) -> None:
    async with (
        scripted_openai([Say("Zebra one", hold=(1, asyncio.Event()))]) as asked_first,
        scripted_openai([Say("Zebra two.")]) as asked_then,
        start(openai_base_url=asked_first.url, model="m", history_limit=2) as here,
        start(openai_base_url=asked_then.url, model="m", history_limit=2) as there,
    ):
        turn = await leave_when_text_comes(here, "My buddy is not breathing", text="Zebra")
        await take_over(here, turn)
        answer = await there.http.get(f"/api/turns/{turn}/events", headers=here.auth)
        assert answer.text.count("event: reset") == 1
        assert asked_then.requests[0]["messages"] == asked_first.requests[0]["messages"]
        assert asked_then.requests[0]["tools"] == asked_first.requests[0]["tools"]


async def leave_when_text_comes(client: Client, message: str, *, text: str = "") -> str:
    """Send a message, and leave when a model's text has begun. Returns the turn."""
    body = {"message": message}
    async with client.http.stream("POST", "/api/chat", json=body, headers=client.auth) as response:
        async for line in response.aiter_lines():
            if '"text-delta"' in line and text in line:
                break
    return str(response.headers["X-Turn-Id"])


async def take_over(client: Client, turn: str) -> None:
    """Let the turn's replica be dead for the others."""
    async with everything(client.server.database) as session:
        await session.execute(text("update turn set owner = gen_random_uuid() where id = :id"), {"id": turn})


failures = st.one_of(
    st.builds(InvalidInput, st.text()),
    st.builds(NotFound, st.text()),
    st.builds(Conflict, st.text()),
    st.builds(TimedOut, st.text()),
    st.builds(Internal, st.text(), st.text("0123456789abcdef", min_size=12, max_size=12)),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(failures)
def test_a_failure_that_is_read_back_from_the_ledger_reads_as_before(failure: AgentServerError) -> None:
    once = failure_text(failure)
    assert failure_text(RecordedFailure(once)) == once
    assert once.startswith(f"{failure.code}: ")
    once.encode()
    assert "\x00" not in once
