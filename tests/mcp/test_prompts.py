"""Prompts over MCP: what a workspace offers, to whom, and what comes of the arguments."""

from typing import Any

import mcp_types as types
import pytest
from inline_snapshot import snapshot
from mcp.shared.exceptions import MCPError

from agent_server.db import Database
from agent_server.identity.profiles import update_profile
from tests.conftest import everything
from tests.mcp.conftest import Mode, Notebook

FORM: dict[str, Any] = {"elicitation": {"form": {}}}


async def test_prompts_are_listed_with_their_arguments(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        prompts = (await client.list_prompts()).prompts

    assert [prompt.model_dump(exclude_none=True) for prompt in prompts] == snapshot(
        [
            {
                "name": "look",
                "title": "Look",
                "description": "Look at the map.",
                "arguments": [{"name": "page", "required": False}],
            },
            {
                "name": "plan",
                "title": "Plan",
                "description": "Plan a dive.",
                "arguments": [
                    {"name": "site", "description": "Where to dive.", "required": True},
                    {"name": "depth", "required": False},
                    {
                        "name": "mood",
                        "description": "How it should feel. One of calm, wild, wild and calm.",
                        "required": False,
                    },
                    {"name": "month", "required": False},
                ],
            },
            {"name": "tidy", "title": "Tidy", "description": "Tidy the notes."},
        ]
    )


async def test_a_caller_is_offered_only_prompts_whose_tools_it_may_use(notebook: Notebook, mode: Mode) -> None:
    key = await notebook.issue_key("notes:read")
    async with notebook.client(mode, key) as client:
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["look", "plan"]

    refused = await notebook.post(mode, "prompts/get", {"name": "tidy"}, {"Authorization": f"Bearer {key}"})
    assert refused.status_code == 403
    assert 'scope="notes:read notes:write"' in refused.headers["www-authenticate"]
    async with notebook.client(mode) as client:
        assert (await client.get_prompt("tidy")).messages[0].content == types.TextContent(text="Tidy my notes.")


async def test_an_agent_that_is_not_marked_is_no_prompt(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        with pytest.raises(MCPError) as missing:
            await client.get_prompt("secret")
    assert missing.value.code == types.INVALID_PARAMS
    assert missing.value.message == "There is no prompt 'secret'; there are look, plan, tidy"


async def test_the_body_is_rendered_with_the_arguments_the_profile_and_defaults(
    notebook: Notebook, mode: Mode, database: Database
) -> None:
    async with everything(database) as session:
        await update_profile(session, notebook.me, {"month": "June"})
    async with notebook.client(mode) as client:
        result = await client.get_prompt("plan", {"site": 'The "Wall"', "depth": "30", "mood": "wild"})
    assert result.description == "Plan a dive."
    assert result.messages == [
        types.PromptMessage(
            role="user",
            content=types.TextContent(text='Plan a "wild" dive at "The \\"Wall\\"" in "June", to 30 m.'),
        )
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "The arguments of plan are not complete: site: is missing; it is a text"),
        (
            {"depth": "deep", "mood": "wet"},
            "The arguments of plan are not complete: site: is missing; it is a text; depth: must be a whole number, not "
            "'deep'; mood: must be one of 'calm', 'wild', 'wild and calm', not 'wet'",
        ),
        (
            {"site": "x", "dept": "3"},
            "'dept' is no argument of plan; did you mean 'depth'? There are depth, month, mood, site",
        ),
    ],
)
async def test_all_arguments_that_are_wrong_are_named_at_once(
    notebook: Notebook, mode: Mode, arguments: dict[str, str], message: str
) -> None:
    async with notebook.client(mode) as client:
        with pytest.raises(MCPError) as wrong:
            await client.get_prompt("plan", arguments)
    assert (wrong.value.code, wrong.value.message) == (types.INVALID_PARAMS, message)


async def test_a_client_that_can_ask_its_user_is_asked_for_what_is_missing(notebook: Notebook) -> None:
    asked = (await notebook.post("modern", "prompts/get", {"name": "plan"}, capabilities=FORM)).json()["result"]
    assert asked["resultType"] == "input_required"
    (form,) = asked["inputRequests"].values()
    assert form["params"]["requestedSchema"] == {
        "type": "object",
        "properties": {"site": {"type": "string", "description": "Where to dive."}},
        "required": ["site"],
    }
    answer = {"inputs": {"action": "accept", "content": {"site": "the wall"}}}
    params = {"name": "plan", "arguments": {"depth": "5"}, "inputResponses": answer}
    result = (await notebook.post("modern", "prompts/get", params, capabilities=FORM)).json()["result"]
    assert result["messages"][0]["content"]["text"] == 'Plan a "calm" dive at "the wall" in "May", to 5 m.'

    no = {"name": "plan", "inputResponses": {"inputs": {"action": "decline"}}}
    refused = await notebook.post("modern", "prompts/get", no, capabilities=FORM)
    assert refused.json()["error"]["code"] == types.INVALID_PARAMS


async def test_a_line_that_is_a_resource_stands_for_it(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        messages = (await client.get_prompt("look")).messages
    assert [message.content.model_dump(exclude_none=True) for message in messages] == snapshot(
        [
            {"type": "text", "text": "Look at the map."},
            {
                "type": "image",
                "data": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==",
                "mime_type": "image/png",
            },
            {
                "type": "resource",
                "resource": {
                    "uri": "content://safety/flying.md",
                    "mime_type": "text/markdown",
                    "text": """\
# Flying

Wait 18 hours.\
""",
                },
            },
            {
                "type": "text",
                "text": """\
![A picture of somebody else's](https://example.com/a.png)

What is on it?\
""",
            },
        ]
    )


async def test_a_resource_in_a_prompt_is_read_with_the_callers_rights(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode, await notebook.issue_key("notes:read")) as client:
        with pytest.raises(MCPError, match="knowledge:read"):
            await client.get_prompt("look")


async def test_an_argument_is_completed_by_its_enum_or_its_examples(notebook: Notebook, mode: Mode) -> None:
    async def complete(name: str, value: str) -> list[str]:
        ref = types.PromptReference(name="plan")
        return (await client.complete(ref, {"name": name, "value": value})).completion.values

    async with notebook.client(mode) as client:
        assert await complete("mood", "WI") == ["wild", "wild and calm"]
        assert await complete("month", "ju") == ["June", "July"]
        assert await complete("site", "x") == []
        with pytest.raises(MCPError, match="'moood' is no argument of it; did you mean 'mood'"):
            await complete("moood", "")


async def test_what_a_caller_is_not_offered_is_not_completed_for_it(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode, await notebook.issue_key("notes:read")) as client:
        with pytest.raises(MCPError, match="notes:write"):
            await client.complete(types.PromptReference(name="tidy"), {"name": "x", "value": ""})
