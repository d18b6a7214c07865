"""A destructive call over MCP: the user of a client that can ask is asked first, and the answer counts once."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import mcp_types as types
import pytest

from agent_server.db import new_id
from agent_server.identity.credentials import issue_key
from tests.conftest import everything, execute, fetch
from tests.mcp.conftest import Mode, Notebook

DROP: dict[str, Any] = {"name": "drop_note", "arguments": {"text": "fins"}}
FORM: dict[str, Any] = {"elicitation": {"form": {}}}
YES: dict[str, Any] = {"confirm": {"action": "accept", "content": {"confirm": True}}}


async def call(notebook: Notebook, key: str | None = None, **params: Any) -> httpx.Response:
    headers: dict[str, str | None] = {"Authorization": f"Bearer {key or notebook.key}"}
    return await notebook.post("modern", "tools/call", {**DROP, **params}, headers, FORM)


async def ask(notebook: Notebook) -> str:
    """The state of a question that was just asked."""
    result = (await call(notebook)).json()["result"]
    assert result["resultType"] == "input_required"
    state: str = result["requestState"]
    return state


async def test_a_destructive_call_is_answered_with_a_form_and_does_nothing(notebook: Notebook) -> None:
    result = (await call(notebook)).json()["result"]
    assert result["inputRequests"] == {
        "confirm": {
            "method": "elicitation/create",
            "params": {
                "mode": "form",
                "message": 'Drop note (text: "fins")? This cannot be undone.',
                "requestedSchema": {
                    "type": "object",
                    "properties": {"confirm": {"type": "boolean", "title": "Drop note", "default": False}},
                    "required": ["confirm"],
                },
            },
        }
    }
    assert await notebook.notes() == []


@pytest.mark.parametrize(
    ("action", "content", "dropped"),
    [
        ("accept", {"confirm": True}, ["dropped: fins"]),
        ("accept", {"confirm": False}, []),
        ("accept", {}, []),
        ("accept", {"confirm": "true"}, []),
        ("accept", {"confirm": 1}, []),
        ("decline", None, []),
        ("cancel", None, []),
    ],
)
async def test_only_a_plain_yes_makes_the_call(
    notebook: Notebook, action: Any, content: dict[str, Any] | None, dropped: list[str]
) -> None:
    async def answer(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        assert params.message.startswith('Drop note (text: "fins")?')
        return types.ElicitResult(action=action, content=content)

    async with notebook.client("modern", elicitation_callback=answer) as client:
        result = await client.call_tool(DROP["name"], DROP["arguments"])

    assert result.is_error == (not dropped)
    assert await notebook.notes() == dropped


async def test_a_state_that_was_used_has_no_second_effect(notebook: Notebook) -> None:
    state = await ask(notebook)
    first = await call(notebook, requestState=state, inputResponses=YES)
    assert first.json()["result"]["structuredContent"] == {"text": "dropped: fins", "topic": None}
    again = await call(notebook, requestState=state, inputResponses=YES)
    assert (again.status_code, again.json()["error"]["data"]) == (400, {"code": "conflict"})
    assert await notebook.notes() == ["dropped: fins"]


async def test_of_retries_at_once_one_has_an_effect(notebook: Notebook) -> None:
    state = await ask(notebook)
    await asyncio.gather(*(call(notebook, requestState=state, inputResponses=YES) for _ in range(5)))
    assert await notebook.notes() == ["dropped: fins"]


@pytest.mark.parametrize(
    "change",
    [
        {"arguments": {"text": "mask"}},
        {"arguments": {}},
        {"arguments": {"text": "fins", "more": 1}},
        {"name": "drop_notes", "arguments": {}},
        {"name": "add_note", "arguments": {"text": "fins"}},
        {"requestState": "00000000-0000-7000-8000-000000000000"},
        {"requestState": "yes"},
        {"requestState": ""},
        {"inputResponses": {}},
        {"inputResponses": {"other": YES["confirm"]}},
    ],
    ids=str,
)
async def test_a_retry_that_is_not_of_the_same_call_is_refused(notebook: Notebook, change: dict[str, Any]) -> None:
    state = await ask(notebook)
    refused = await call(notebook, **({"requestState": state, "inputResponses": YES} | change))
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, types.INVALID_PARAMS)
    assert await notebook.notes() == []
    await call(notebook, requestState=state, inputResponses=YES)
    assert await notebook.notes() == ["dropped: fins"]


async def test_the_state_of_another_caller_is_refused(notebook: Notebook) -> None:
    state = await ask(notebook)
    async with everything(notebook.database) as session:
        stranger = (await issue_key(session, new_id(), name="other", scopes=["*"])).text
    refused = await call(notebook, stranger, requestState=state, inputResponses=YES)
    invented = await call(notebook, stranger, requestState=str(uuid4()), inputResponses=YES)
    assert refused.status_code == invented.status_code == 400
    assert refused.json()["error"]["data"] == invented.json()["error"]["data"] == {"code": "not_found"}
    assert await fetch(notebook.database.url, "select used_at from confirmation") == [(None,)]
    assert await notebook.notes() == []


async def test_a_state_that_has_expired_is_refused(notebook: Notebook) -> None:
    state = await ask(notebook)
    await execute(notebook.database.url, "update confirmation set expires_at = now()")
    assert (await call(notebook, requestState=state, inputResponses=YES)).status_code == 400
    assert await notebook.notes() == []


async def test_a_key_that_lost_the_scope_is_refused_the_retry_as_the_call(notebook: Notebook) -> None:
    state = await ask(notebook)
    key = await notebook.issue_key("notes:read")
    refused = await call(notebook, key, requestState=state, inputResponses=YES)
    assert refused.status_code == 403
    assert 'scope="notes:read notes:write"' in refused.headers["www-authenticate"]
    assert await notebook.notes() == []


async def test_arguments_that_the_tool_does_not_take_are_refused_without_a_question(notebook: Notebook) -> None:
    result = (await call(notebook, arguments={"text": 7})).json()["result"]
    assert result["isError"]
    assert await fetch(notebook.database.url, "select count(*) from confirmation") == [(0,)]


@pytest.mark.parametrize(
    ("mode", "capabilities"),
    [("legacy", {}), ("legacy", FORM), ("modern", {}), ("modern", {"elicitation": {"url": {}}})],
)
async def test_a_client_that_cannot_be_asked_asks_by_itself_and_its_call_is_made(
    notebook: Notebook, mode: Mode, capabilities: dict[str, Any]
) -> None:
    answer = await notebook.post(mode, "tools/call", DROP, None, capabilities)
    assert answer.status_code == 200
    assert await notebook.notes() == ["dropped: fins"]


async def test_a_call_that_loses_nothing_asks_nothing(notebook: Notebook) -> None:
    done = await call(notebook, name="add_note", arguments={"text": "fins"})
    assert done.json()["result"]["structuredContent"]["text"] == "fins"


async def test_a_yes_to_what_has_changed_is_answered_with_a_new_question(notebook: Notebook) -> None:
    await call(notebook, name="add_note", arguments={"text": "fins\u202e"})
    drop: dict[str, Any] = {"name": "drop_notes", "arguments": {}}
    first = (await call(notebook, **drop)).json()["result"]
    assert first["inputRequests"]["confirm"]["params"]["message"].startswith('Drop the notes "fins\\u202e"?')
    await call(notebook, name="add_note", arguments={"text": "mask"})
    again = (await call(notebook, **drop, requestState=first["requestState"], inputResponses=YES)).json()["result"]
    assert again["resultType"] == "input_required"
    assert again["requestState"] != first["requestState"]
    message = again["inputRequests"]["confirm"]["params"]["message"]
    assert "fins" in message
    assert "mask" in message
    assert "dropped all" not in await notebook.notes()
    late = await call(notebook, **drop, requestState=first["requestState"], inputResponses=YES)
    assert (late.status_code, late.json()["error"]["data"]) == (400, {"code": "conflict"})
    done = await call(notebook, **drop, requestState=again["requestState"], inputResponses=YES)
    assert not done.json()["result"].get("isError")
    assert "dropped all" in await notebook.notes()
