"""Which model answers, and that other providers are reached by the real litellm, loaded only then."""

import subprocess
import sys
from typing import Any

import pytest

from agent_server.errors import ModelFailed
from agent_server.models.choice import choose_model
from agent_server.models.providers import Models
from agent_server.settings import load_settings
from agent_server.testing import Call, Say, scripted_openai
from tests.conftest import ROOT
from tests.server import Start


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "offline"),
        ({"openai_api_key": "k"}, "openai/"),
        ({"gemini_api_key": "k"}, "gemini/"),
        ({"groq_api_key": "k"}, "groq/"),
        ({"anthropic_api_key": "k"}, "anthropic/"),
        ({"openai_base_url": "http://127.0.0.1:1/v1"}, "openai/"),
        ({"model": "ollama/llama3.3"}, "ollama/llama3.3"),
        ({"model": "gpt-x", "openai_api_key": "k"}, "openai/gpt-x"),
        ({"model": "org/name", "openai_base_url": "http://127.0.0.1:1/v1"}, "openai/org/name"),
        ({"model": "offline", "openai_api_key": "k"}, "offline"),
    ],
)
def test_the_model_follows_from_the_settings(variables: dict[str, str], name: str) -> None:
    assert choose_model(load_settings(**variables)).name.startswith(name)


async def test_a_model_without_its_key_is_refused_by_name() -> None:
    with pytest.raises(ModelFailed, match="OPENAI_API_KEY"):
        await Models(load_settings()).get("openai/gpt-x")


async def test_the_first_model_of_a_server_is_known_by_name() -> None:
    async with scripted_openai([]) as model:
        models = Models(load_settings(openai_base_url=model.url))
        assert await models.find_served() == model.name
        await models.close()
    nobody = Models(load_settings(openai_base_url=f"{model.url}/gone", model_connect_timeout=0.2))
    with pytest.raises(ModelFailed, match="does not list its models"):
        await nobody.find_served()
    await nobody.close()


async def test_another_provider_answers_through_litellm_with_tools(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted_openai([Call("create_task", {"title": "Buy fins"}), Say("It is on your list.")]) as model:
        monkeypatch.setenv("GROQ_API_BASE", model.url)
        async with start(openai_base_url=None, model="groq/some-model", groq_api_key="k") as client:
            body = {"message": "fins please", "agent": "tasks", "stream": False}
            answer = (await client.http.post("/api/chat", json=body, headers=client.auth)).json()
    assert answer["error"] is None
    assert answer["text"] == "It is on your list."
    assert [tool["name"] for tool in answer["tools"]] == ["create_task"]
    assert model.requests[0]["model"] == "some-model"
    assert model.requests[0]["stream_options"] == {"include_usage": True}
    assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (20, 10)


async def test_a_server_of_ones_own_is_asked_to_count_tokens(start: Start) -> None:
    async with scripted_openai([Say("Hello.")]) as model, start(openai_base_url=model.url, model="m") as client:
        answer = await client.ask("Hello")
    assert model.requests[0]["stream_options"] == {"include_usage": True}
    assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (10, 5)


async def test_ollama_is_asked_in_the_way_that_knows_tools() -> None:
    model: Any = await Models(load_settings()).get("ollama/llama3.3")
    assert model.model == "ollama_chat/llama3.3"


def test_a_server_that_needs_no_litellm_does_not_load_it() -> None:
    code = "import sys, agent_server.asgi, agent_server.orchestrator.run; sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
