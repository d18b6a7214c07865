"""What the assistant and its tools do. `agent_server` is a server of this workspace on an empty database of each test."""

import pytest

from agent_server import Forbidden, InvalidInput
from agent_server.testing import AgentServer, Call, Say, ScriptedOpenAI


async def test_a_note_is_kept_for_whoever_added_it(agent_server: AgentServer) -> None:
    me = agent_server.as_caller("notes:read", "notes:write")
    await me.call("add_note", text="Buy fins")
    assert [note["text"] for note in (await me.call("list_notes"))["items"]] == ["Buy fins"]

    somebody_else = agent_server.as_caller("notes:read")
    assert (await somebody_else.call("list_notes"))["items"] == []


async def test_a_note_is_refused_without_the_scope_and_without_a_text(agent_server: AgentServer) -> None:
    with pytest.raises(Forbidden):
        await agent_server.as_caller("notes:read").call("add_note", text="Buy fins")
    with pytest.raises(InvalidInput):
        await agent_server.as_caller("notes:write").call("add_note", text="")


async def test_without_a_model_the_answer_is_quoted_from_the_content(agent_server: AgentServer) -> None:
    answer = await agent_server.as_caller("*").chat("How do I write a tool?")
    assert "`@tool`" in answer.text
    assert "guide/tools.md" in [citation.document for citation in answer.citations]


async def test_the_assistant_keeps_a_note_that_the_model_asks_for(
    agent_server: AgentServer, scripted_model: ScriptedOpenAI
) -> None:
    scripted_model.script = [Call("add_note", {"text": "Buy fins"}), Say("I wrote down: Buy fins.")]
    me = agent_server.as_caller("*")

    answer = await me.chat("Remind me to buy fins")

    assert answer.text == "I wrote down: Buy fins."
    assert [call.name for call in answer.calls] == ["add_note"]
    assert [note["text"] for note in (await me.call("list_notes"))["items"]] == ["Buy fins"]


async def test_the_model_is_told_how_to_keep_notes(agent_server: AgentServer, scripted_model: ScriptedOpenAI) -> None:
    scripted_model.script = [Say("Hello.")]
    await agent_server.as_caller("*").chat("Hello")
    (request,) = scripted_model.requests
    assert "Write a note down with `add_note`" in request["messages"][0]["content"]
    assert {tool["function"]["name"] for tool in request["tools"]} >= {"add_note", "list_notes"}
