"""What a model was sent is known to the byte, whatever has changed since; to its owner alone, and for as long as calls are
kept. Every other test that has a scripted model asks the same of each of its requests (tests/sent.py)."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from agent_server.db import new_id
from agent_server.errors import NotFound
from agent_server.identity.own_data import erase_rows
from agent_server.requests.rebuild import SentRequest, rebuild_requests
from agent_server.testing import AgentServer, Call, Say, ScriptedOpenAI, Step
from agent_server.testing.server import run_agent_server
from agent_server.timeline import read_timeline
from agent_server.turns.prune import prune_turns
from agent_server.turns.requests import KnownTexts, Recipe, SentRequests, expand, spell
from agent_server.workspace import Workspace, load_workspace
from tests.conftest import ROOT, everything

SCRIPT: list[Step] = [Call("search_knowledge", {"query": "flying"}), Say("Wait [1]."), Say("As I said."), Say("(more)")]


async def rebuild(server: AgentServer, owner: UUID, turn: UUID) -> list[SentRequest]:
    async with server.database.transaction(owner) as session:
        return await rebuild_requests(session, owner, turn)


async def list_turns(server: AgentServer) -> list[tuple[UUID, UUID]]:
    async with everything(server.database) as session:
        return [tuple(row) for row in await session.execute(text("select owner_id, id from turn order by created_at"))]


async def count(server: AgentServer, query: str) -> int:
    async with everything(server.database) as session:
        return int((await session.execute(text(query))).scalar_one())


@pytest.fixture
async def served(
    agent_workspace: Workspace, stocked_url: str, bodies: list[bytes]
) -> AsyncIterator[tuple[AgentServer, list[bytes]]]:
    """A server, and the bodies that its provider was sent."""
    async with run_agent_server(agent_workspace, stocked_url, model=ScriptedOpenAI(SCRIPT)) as server:
        yield server, bodies


async def test_only_its_owner_is_shown_what_was_sent_and_to_the_byte_after_all_has_changed(
    served: tuple[AgentServer, list[bytes]],
) -> None:
    server, bodies = served
    caller, other = server.as_caller("*"), server.as_caller("*")
    await caller.call("update_profile", dives=12)
    answer = await caller.chat("How long must I wait before flying after diving?", agent="safety")
    await caller.chat("Why?", conversation=answer.conversation, agent="safety")
    (owner, turn), (_, second) = await list_turns(server)

    for who in (other.id, new_id()):
        with pytest.raises(NotFound):
            await rebuild(server, who, turn)
    with pytest.raises(NotFound):
        await read_timeline(server.database, other.caller, turn)

    # Everything that it was made from becomes something else.
    await caller.call("update_profile", dives=99)
    async with everything(server.database) as session:
        await session.execute(text("update chunk set text = 'changed', heading = 'changed'"))
    sent = [*await rebuild(server, owner, turn), *await rebuild(server, owner, second)]
    assert [request.body for request in sent] == bodies
    assert all(request.is_exact for request in sent)
    assert [request.no for request in sent] == [1, 2, 1]
    assert '"dives": 12' in sent[0].instructions
    assert sent[0].prompt_sha == server.workspace.agents["safety"].sha

    timeline = await read_timeline(server.database, caller.caller, turn)
    assert timeline.turn.message.startswith("How long")
    assert timeline.routing is not None
    assert (timeline.routing.agent, timeline.routing.decided_by) == ("safety", "request")
    first, last = timeline.model_calls
    assert first.request is not None
    assert first.request.instructions == sent[0].instructions
    assert [tool["function"]["name"] for tool in first.request.tools][:1] == ["search_knowledge"]
    assert [body["type"] for body in first.output] == ["function_call"]
    assert [body["content"] for body in last.output] == ["Wait [1]."]
    assert (last.input_tokens, last.output_tokens) == (10, 5)
    assert last.seconds is not None and last.started_at is not None
    (call,) = timeline.tool_calls
    assert (call.name, call.arguments, call.error) == ("search_knowledge", {"query": "flying"}, None)
    assert call.seconds is not None
    assert timeline.passages[0].citation == 1 and timeline.passages[0].score is not None


async def test_a_turn_grows_by_little_and_texts_are_kept_once_and_go_with_what_they_are_for(
    served: tuple[AgentServer, list[bytes]],
) -> None:
    server, _ = served
    caller = server.as_caller("*")
    await caller.call("update_profile", dives=12)
    answer = await caller.chat("How long must I wait before flying after diving?", agent="safety")
    shared, own = "select count(*) from shared_text", "select count(*) from conversation_text"
    texts = await count(server, shared)
    assert await count(server, own) == 1  # the profile
    await caller.chat(
        "How long must I wait before flying after diving?", conversation=answer.conversation, agent="safety"
    )
    assert await count(server, own) == 1
    assert await count(server, shared) == texts
    async with everything(server.database) as session:
        stored = (await session.execute(text("select requests from turn order by turn_no"))).scalars().all()
    assert [len(recipes) for recipes in stored] == [pytest.approx(150, abs=35), pytest.approx(105, abs=35)]

    async with everything(server.database) as session:
        await session.execute(text("update turn set finished_at = now() - interval '2 days' where turn_no = 1"))
    await prune_turns(server.database, event_hours=24, call_hours=24)
    (_, first), (_, second) = await list_turns(server)
    with pytest.raises(NotFound, match="AGENT_SERVER_CALL_HOURS"):
        await rebuild(server, caller.id, first)
    assert all(request.is_exact for request in await rebuild(server, caller.id, second))
    async with everything(server.database) as session:
        await session.execute(text("update turn set finished_at = now() - interval '2 days'"))
        await session.execute(text("update shared_text set used_at = now() - interval '4 days'"))
    await prune_turns(server.database, event_hours=24, call_hours=24)
    assert await count(server, own) == await count(server, shared) == 0


async def test_what_was_sent_is_erased_with_its_owner_and_its_conversation(
    served: tuple[AgentServer, list[bytes]],
) -> None:
    server, _ = served
    caller = server.as_caller("*")
    await caller.call("update_profile", dives=12)
    await caller.chat("Can I fly?", agent="safety")
    assert await count(server, "select count(*) from conversation_text") == 1
    async with server.database.transaction(caller.id, scopes=("own_data:all",)) as session:
        await erase_rows(session, caller.id)
    assert await count(server, "select count(*) from conversation_text") == 0
    assert await count(server, "select count(*) from turn") == 0


async def test_what_another_prompt_says_now_is_not_what_was_sent(stocked_url: str) -> None:
    workspace = load_workspace(ROOT)
    model = ScriptedOpenAI([Say("One."), Say("Two.")])
    async with run_agent_server(workspace, stocked_url, model=model) as server:
        caller = server.as_caller("*")
        await caller.chat("Can I fly?", agent="safety")
        safety = workspace.agents["safety"]
        edited = replace(safety, body="You are edited. {{ today }}", sha="0" * 16)
        await server.server.change(replace(workspace, agents={**workspace.agents, "safety": edited}))
        await caller.chat("Can I fly?", agent="safety")
        before, after = [(await rebuild(server, *turn))[0] for turn in await list_turns(server)]
    assert (before.prompt_sha, after.prompt_sha) == (safety.sha, "0" * 16)
    assert "You are edited" not in before.instructions and "You are edited" in after.instructions


SHORT = st.sampled_from(["a", "b-_0", "12", ""])
LISTS = st.sampled_from([[], [1], [3, [4, 6]], [["shop", 0.25], ["größe_2", 1.0]], [12, None]])
FIELDS = st.fixed_dictionaries({}, optional=dict.fromkeys("fdpsvealco", SHORT) | dict.fromkeys("ihbtur", LISTS))


@given(st.lists(st.tuples(st.integers(1, 6), FIELDS, st.booleans()), max_size=12))
def test_a_recipe_is_read_as_it_was_written_whatever_stood_before_it(noted: list[tuple[int, Any, bool]]) -> None:
    requests = SentRequests(None, new_id(), new_id(), KnownTexts())  # type: ignore[arg-type]  # it has no text to store
    stored: list[dict[str, Any]] = []
    meant: dict[int, dict[str, Any]] = {}
    for n, fields, _ in noted:
        recipe = Recipe(fields={"n": n, "f": "1", **fields, "x": str(n)})
        meant[n] = recipe.fields
        requests.note(recipe)
        stored += requests.shorten({n: recipe})
        requests.forget({n: recipe}, {})
    assert expand(spell(stored)) == meant
