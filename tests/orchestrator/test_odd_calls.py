"""Whatever a model writes as a call of a tool: the turn ends, can be read, and is sent back as any provider takes it."""

import json
import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from agent_server.db import storable
from agent_server.model_calls import clean_arguments, clean_name, refused_arguments
from agent_server.testing import Call, Calls, Say, ScriptedOpenAI, Step, scripted_openai
from tests.conftest import everything
from tests.server import Client, Start

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def refuse_constant(name: str) -> Any:
    raise ValueError(name)


def check_strictly(request: Mapping[str, Any]) -> None:
    """What the strictest of the providers demand of the calls in a request."""
    open_calls: set[str] = set()
    seen: set[str] = set()
    for message in request["messages"]:
        json.dumps(message, ensure_ascii=False, allow_nan=False).encode()
        if message["role"] == "tool":
            open_calls.remove(message["tool_call_id"])
            continue
        assert not open_calls, "a call is followed by its result"
        for call in message.get("tool_calls") or ():
            assert NAME.fullmatch(call["id"])
            assert NAME.fullmatch(call["function"]["name"])
            assert isinstance(json.loads(call["function"]["arguments"], parse_constant=refuse_constant), dict)
            assert storable(json.loads(call["function"]["arguments"])) == json.loads(call["function"]["arguments"])
            assert call["id"] not in seen
            seen.add(call["id"])
            open_calls.add(call["id"])
    assert not open_calls


ODD = [
    '{"title": "Buy fi',
    '["Buy fins"]',
    '{"title": "a"}{"title": "b"}',
    '{"title": NaN}',
    '{"title": 1e999}',
    '{"title": "\\ud83d"}',
    '{"title": "nul \\u0000"}',
    '{"title": ' + "[" * 2_000 + "]" * 2_000 + "}",
    "[" * 60_000,
    "null",
    '"title"',
    "title=Buy fins",
    "",
    " ",
    '{"n": ' + "9" * 5_000 + "}",
    '{"you_wrote": "x", "which_is_wrong": "y"}',
]
TEXTS = st.text(st.characters(), max_size=12) | st.text(st.characters(categories=["Cs", "Cc", "Cf"]), max_size=4)
CALLS = st.builds(
    Call,
    st.sampled_from(["create_task", "list_tasks", "transfer_to_trip", "no such tool", ""]) | TEXTS,
    st.sampled_from(ODD) | TEXTS | st.dictionaries(TEXTS, TEXTS | st.floats() | st.none(), max_size=2).map(json.dumps),
    st.sampled_from(["call.1.0", "call_1", "x" * 100]) | TEXTS,
)


async def read(client: Client, conversation: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.get(f"/api/conversations/{conversation}/messages"))["items"]
    return items


async def test_the_turn_ends_can_be_read_and_goes_on_with_any_provider(start: Start) -> None:
    async with scripted_openai([]) as model, start(openai_base_url=model.url, model="scripted") as client:

        @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
        @given(st.lists(CALLS, min_size=1, max_size=3))
        def check(calls: list[Call]) -> None:
            portal.append(calls)

        portal: list[list[Call]] = []
        check()
        portal += [[Call("create_task", arguments)] for arguments in ODD]
        for calls in portal:
            await _talk(client, model, calls)


async def _talk(client: Client, model: ScriptedOpenAI, calls: list[Call]) -> None:
    steps: list[Step] = [Calls(tuple(calls)), Say("Done."), Say("Once more.")]
    # A hand-off to another agent is one more call, and both answer.
    model.script = steps
    first = await client.ask("Put it on my list")
    assert first["status"] == "done", (calls, first)
    messages = await read(client, first["conversation_id"])
    assert [message["role"] for message in messages] == ["user", "assistant"]
    model.requests.clear()
    model.script = [Say("Again.")]
    again = await client.ask("And now?", id=first["conversation_id"])
    assert again["status"] == "done", (calls, again)
    for request in model.requests:
        check_strictly(request)


async def test_within_a_turn_too_a_provider_is_given_what_it_takes(start: Start) -> None:
    async with scripted_openai([]) as model, start(openai_base_url=model.url, model="scripted") as client:
        for arguments in ODD:
            model.requests.clear()
            model.script = [Call("create_task", arguments, id="odd id."), Say("Done.")]
            await client.ask("Put it on my list")
            assert len(model.requests) == 2
            for request in model.requests:
                check_strictly(request)


@pytest.mark.parametrize("arguments", [a for a in ODD if a.strip()][:13])
async def test_no_tool_is_called_with_arguments_that_are_none_and_the_model_is_told(
    start: Start, arguments: str
) -> None:
    script: list[Step] = [Call("list_tasks", arguments), Say("I see.")]
    async with scripted_openai(script) as model, start(openai_base_url=model.url, model="scripted") as client:
        answer = await client.ask("Show my list")
        (told,) = [message["content"] for message in model.requests[1]["messages"] if message["role"] == "tool"]
    assert told.startswith("invalid_input: ")
    assert answer["tools"][0]["error"]
    assert answer["tools"][0]["output"] is None


@pytest.mark.edits_items
async def test_conversations_of_before_can_be_read_and_gone_on_with(start: Start) -> None:
    async with scripted_openai([]) as model, start(openai_base_url=model.url, model="scripted") as client:
        for arguments in ('{"title": "a', "[1]", "", '{"a": 1}{"b": 2}'):
            model.script = [Call("create_task", {"title": "x"}), Say("Done.")]
            first = await client.ask("Put it on my list")
            odd = {"arguments": arguments, "name": "create task!", "call_id": "call.1"}
            async with everything(client.server.database) as session:
                await session.execute(
                    text("""
                        update item set body = body || cast(:odd as jsonb)
                        where conversation_id = :id and body ->> 'type' = 'function_call'"""),
                    {"odd": json.dumps(odd), "id": UUID(first["conversation_id"])},
                )
                await session.execute(
                    text("""
                        update item set body = body || '{"call_id": "call.1"}'
                        where conversation_id = :id and body ->> 'type' = 'function_call_output'"""),
                    {"id": UUID(first["conversation_id"])},
                )
            assert len(await read(client, first["conversation_id"])) == 2
            model.requests.clear()
            model.script = [Say("Again.")]
            assert (await client.ask("And now?", id=first["conversation_id"]))["status"] == "done"
            (request,) = model.requests
            check_strictly(request)
            assert [m["role"] for m in request["messages"]].count("tool") == 1


@given(TEXTS | st.sampled_from(ODD) | st.dictionaries(TEXTS, TEXTS | st.floats(), max_size=3), st.booleans())
def test_what_is_kept_of_arguments_is_one_object_and_is_kept_once_more_as_it_is(written: Any, cut_off: bool) -> None:
    kept = clean_arguments("t", written, cut_off=cut_off)
    value = json.loads(kept, parse_constant=refuse_constant)
    assert isinstance(value, dict)
    kept.encode()
    assert clean_arguments("t", kept) == kept
    if cut_off and isinstance(written, str):
        assert "were cut off" in (refused_arguments(value) or "")


@given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.integers() | st.booleans()))
def test_arguments_that_are_right_are_kept_as_they_were_written(arguments: dict[str, Any]) -> None:
    for written in (json.dumps(arguments), json.dumps(arguments, indent=1, ensure_ascii=False)):
        assert clean_arguments("t", written) == written


@given(TEXTS)
def test_a_name_is_one_that_every_provider_takes(name: str) -> None:
    assert NAME.fullmatch(clean_name(name))
    assert clean_name(clean_name(name)) == clean_name(name)


async def test_calls_of_one_answer_stand_before_all_of_their_results(start: Start) -> None:
    script: list[Step] = [
        Calls((Call("list_tasks", {}), Call("no_such_tool", {}), Call("list_tasks", {}), Call("nor_this", {}))),
        Call("list_tasks", {}),
        Say("Done."),
        Say("Again."),
    ]
    async with scripted_openai(script) as model, start(openai_base_url=model.url, model="scripted") as client:
        first = await client.ask("Show my list")
        await client.ask("And now?", id=first["conversation_id"])
    check_strictly(model.requests[-1])
    kinds = [len(m.get("tool_calls") or ()) or m["role"] for m in model.requests[-1]["messages"][1:]]
    assert kinds == ["user", 4, "tool", "tool", "tool", "tool", 1, "tool", "assistant", "user"]
