"""An agent whose model says quotes in its own words: the quote is the answer, whatever the model does."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agent_server.offline.rephrase import find_problem
from agent_server.testing import Call, Refuse, Say, ScriptedOpenAI, Step, scripted_openai
from agent_server.workspace import Workspace, load_workspace
from tests.conftest import ROOT
from tests.server import Start

FLYING = "How long should I wait before flying after a single dive?"


@pytest.fixture
def workspace() -> Workspace:
    reference = load_workspace(ROOT)
    agents = {name: replace(agent, rephrase=True) for name, agent in reference.agents.items()}
    return replace(reference, agents=agents)


@pytest.fixture
async def model() -> AsyncIterator[ScriptedOpenAI]:
    async with scripted_openai([]) as model:
        yield model


async def test_a_model_is_given_the_question_and_the_quote_and_says_it_in_its_words(
    start: Start, workspace: Workspace, model: ScriptedOpenAI
) -> None:
    model.script = [Say("Do not fly at once 【1†source】.")]
    async with start() as client:
        quoted = await client.ask(FLYING)
    async with start(workspace=workspace, openai_base_url=model.url, model="m") as client:
        answer = await client.ask(FLYING)
        assert answer["text"] == "Do not fly at once [1]."
        assert [source["n"] for source in answer["sources"]] == [1]
        assert answer["usage"]["total_tokens"] == 15
        (request,) = model.requests
        assert not request.get("tools")
        assert json.loads(request["messages"][-1]["content"]) == {"question": FLYING, "text": quoted["text"]}


@pytest.mark.parametrize(
    "step",
    [
        Say("Wait 99 hours, and do not fly before [1]."),
        Say("You should not fly at once."),
        Say("Not before [97]."),
        Say("Not now [1]. " + "And there is more to say of this. " * 100),
        Call("create_task", {"title": "x"}),
        Refuse(500),
        Refuse(400),
    ],
)
async def test_what_does_not_hold_to_the_quote_leaves_the_quote_as_it_is(
    start: Start, workspace: Workspace, model: ScriptedOpenAI, step: Step
) -> None:
    model.script = [step]
    async with start() as client:
        quoted = await client.ask(FLYING)
    async with start(workspace=workspace, openai_base_url=model.url, model="m") as client:
        answer = await client.ask(FLYING)
        assert answer["text"] == quoted["text"]
        assert answer["status"] == "done"
        assert answer["tools"] == []


async def test_the_model_is_not_asked_where_nothing_answers(
    start: Start, workspace: Workspace, model: ScriptedOpenAI
) -> None:
    async with start(workspace=workspace, openai_base_url=model.url, model="m") as client:
        answer = await client.ask("Who won the football world cup in 1990?")
        assert answer["text"].startswith("The content has nothing about this, and I answer only with what")
        assert model.requests == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("You may dive with a pass [1].", "negation"),
        ("Never dive without it, 3 times over [1].", "numbers"),
        ("Never dive without it [1].", None),
        ("Du darfst nicht tauchen [1].", None),
    ],
)
def test_a_text_is_compared_with_its_quote(text: str, problem: str | None) -> None:
    found = find_problem("You must not dive without a pass. [1]", "May I dive?", text)
    assert (found is None) if problem is None else (found is not None and problem in found)
