"""`agent_server.testing`, used as a workspace's own tests use it."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mcp import MCPError

from agent_server import Forbidden, InvalidInput, NotFound
from agent_server.testing import (
    AgentCaller,
    AgentServer,
    Answer,
    Call,
    Calls,
    Cut,
    RecordedOpenAI,
    Refuse,
    Say,
    ScriptedOpenAI,
    Stall,
    Step,
    TurnFailed,
    copy_database,
    mcp_client,
    recorded_openai,
    run_agent_server,
    run_postgres,
    scripted_openai,
)
from agent_server.testing.recorded import hash_request
from agent_server.workspace import Workspace
from tests.conftest import fetch

QUESTION = "What is on my list?"


@pytest.fixture
def me(agent_server: AgentServer) -> AgentCaller:
    return agent_server.as_caller("*")


async def test_a_caller_calls_tools_and_sees_its_own_rows_only(agent_server: AgentServer) -> None:
    me = agent_server.as_caller("tasks:read", "tasks:write")
    task = await me.call("create_task", title="Buy fins")
    assert [each["id"] for each in (await me.call("list_tasks"))["items"]] == [task["id"]]
    assert (await agent_server.as_caller("tasks:read").call("list_tasks"))["items"] == []


async def test_a_call_is_authorised_checked_and_on_record(agent_server: AgentServer, agent_database: str) -> None:
    reader = agent_server.as_caller("tasks:read")
    with pytest.raises(Forbidden):
        await reader.call("create_task", title="Buy fins")
    with pytest.raises(InvalidInput):
        await reader.call("list_tasks", colour="red")
    with pytest.raises(NotFound, match="there are create_task"):
        await reader.call("creat_task", title="Buy fins")
    rows = await fetch(agent_database, "select action, outcome from audit order by at")
    assert rows == [("create_task", "forbidden"), ("list_tasks", "invalid_input")]


async def test_an_answer_without_a_model_cites_the_content(me: AgentCaller) -> None:
    answer = await me.chat("How long do I wait before flying after a single dive?")
    assert (answer.agent, "12 hours" in answer.text) == ("safety", True)
    assert answer.citations[0].document.startswith("safety/")


async def test_a_scripted_model_calls_tools_and_is_told_what_they_gave(
    me: AgentCaller, scripted_model: ScriptedOpenAI
) -> None:
    scripted_model.script = [
        Calls((Call("create_task", {"title": "Buy fins"}), Call("create_task", {"title": ""}))),
        Say("One is on your list."),
    ]
    answer = await me.chat("Put two tasks on my list", agent="tasks")
    assert answer.text == "One is on your list."
    done, refused = answer.calls
    assert (done.name, done.arguments, done.output["title"]) == ("create_task", {"title": "Buy fins"}, "Buy fins")
    assert (refused.output, (refused.error or "")[:14]) == (None, "invalid_input:")
    assert [message["role"] for message in scripted_model.requests[1]["messages"][-2:]] == ["tool", "tool"]


async def test_a_conversation_goes_on(me: AgentCaller, scripted_model: ScriptedOpenAI) -> None:
    scripted_model.script = [Say("Hello."), Say("I did.")]
    first = await me.chat("Say hello", agent="tasks")
    second = await me.chat("Did you?", agent="tasks", conversation=first.conversation)
    assert second.conversation == first.conversation
    said = [message["content"] for message in scripted_model.requests[1]["messages"][1:]]
    assert said == ["Say hello", "Hello.", "Did you?"]


@pytest.mark.parametrize("first", [Cut("the wro"), Refuse(500, {"Retry-After": "0"})])
async def test_a_model_without_a_socket_fails_as_one_behind_it(
    me: AgentCaller, scripted_model: ScriptedOpenAI, first: Cut | Refuse
) -> None:
    scripted_model.script = [first, Say("The right answer.")]
    assert (await me.chat("Hello", agent="tasks")).text == "The right answer."


class TestWithLittlePatience:
    @pytest.fixture
    def agent_settings(self) -> dict[str, Any]:
        return {"model_first_token_timeout": 0.05, "model_retries": 0}

    async def test_settings_are_those_of_the_fixture(self, me: AgentCaller, scripted_model: ScriptedOpenAI) -> None:
        scripted_model.script = [Stall()]
        with pytest.raises(TurnFailed, match=r"model_failed: The model said nothing for 0.05 seconds"):
            await me.chat("Hello", agent="tasks")


async def test_no_test_reaches_a_provider(
    agent_workspace: Workspace, agent_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the environment, and not by an agent's own `model:`."""
    monkeypatch.setenv("OPENAI_API_KEY", "of-no-use")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("AGENT_SERVER_MODEL_FALLBACK", "gpt-5.4-mini")
    agents = {name: replace(agent, model="openai/gpt-5.4-mini") for name, agent in agent_workspace.agents.items()}
    workspace = replace(agent_workspace, agents=agents)
    async with run_agent_server(workspace, agent_database) as server:
        assert (await server.as_caller("*").chat("How long do I wait before flying?")).citations
    async with run_agent_server(workspace, agent_database, model=ScriptedOpenAI([Refuse(401)])) as server:
        with pytest.raises(TurnFailed, match="refused the key"):
            await server.as_caller("*").chat("How long do I wait before flying?")
    async with run_agent_server(workspace, agent_database, model=ScriptedOpenAI([Say("Hello.")])) as server:
        assert (await server.as_caller("*").chat("Hello")).text == "Hello."


async def test_an_mcp_client_acts_as_its_caller(agent_server: AgentServer) -> None:
    reader, writer = agent_server.as_caller("tasks:read"), agent_server.as_caller("tasks:*")
    async with mcp_client(writer) as client:
        result = await client.call_tool("create_task", {"title": "Buy fins"})
        assert result.structured_content is not None
        assert result.structured_content["title"] == "Buy fins"
    async with mcp_client(reader) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["get_task", "list_tasks"]
    with pytest.raises(MCPError, match="tasks:write"):
        async with mcp_client(reader) as client:
            await client.call_tool("create_task", {"title": "Buy fins"})


async def test_a_key_opens_what_its_caller_may_do_over_http(agent_server: AgentServer) -> None:
    async with agent_server.as_caller("tasks:*").http() as http:
        made = await http.post("/api/tools/create_task", json={"title": "Buy fins"})
        refused = await http.post("/api/chat", json={"message": "Hello", "stream": False})
    assert (made.status_code, made.json()["title"], refused.status_code) == (200, "Buy fins", 403)


async def test_a_guest_holds_what_the_settings_give_to_guests(agent_server: AgentServer) -> None:
    guest = agent_server.as_caller(kind="guest")
    assert guest.caller.scopes == agent_server.server.resolver.guest_scopes
    async with guest.http() as http:
        answer = await http.post("/api/chat", json={"message": "How long do I wait before flying?", "stream": False})
        assert (answer.status_code, bool(answer.json()["sources"])) == (200, True)
        assert (await http.get("/api/session/" + str(guest.id))).json()["id"] == str(guest.id)


def test_databases_are_made_and_dropped_on_a_server_of_ones_own(
    agent_postgres: str, agent_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_SERVER_TEST_DATABASE_URL", agent_postgres)
    with run_postgres() as server, copy_database(server, agent_template) as url:
        assert server == agent_postgres
        assert url != agent_template


def read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


@pytest.mark.edits_items  # a recording answers, and the double is not asked
class TestRecording:
    """A provider is asked once, with a key; from then on its answers come from the file, without one."""

    KEY = "canary-of-a-key"

    @pytest.fixture
    def file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "AGENT_SERVER_RECORD"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.chdir(tmp_path)  # away from a developer's .env
        return tmp_path / "recordings" / "one.json"

    async def record(self, file: Path, monkeypatch: pytest.MonkeyPatch, workspace: Workspace, url: str) -> Answer:
        script: list[Step] = [
            Call("create_task", {"title": "Buy fins"}),
            Call("list_tasks", {}),
            Say("Fins are on it."),
        ]
        async with scripted_openai(script) as provider:
            with monkeypatch.context() as only:
                only.setenv("AGENT_SERVER_RECORD", "1")
                only.setenv("OPENAI_API_KEY", self.KEY)
                only.setenv("OPENAI_BASE_URL", provider.url)
                only.setenv("AGENT_SERVER_MODEL", "the-best")
                async with recorded_openai(file) as model:
                    only.delenv("OPENAI_API_KEY")
                    answer = await self.ask(workspace, url, model)
            assert {request["model"] for request in provider.requests} == {"the-best"}
        return answer

    async def ask(self, workspace: Workspace, url: str, model: RecordedOpenAI, message: str = QUESTION) -> Answer:
        async with run_agent_server(workspace, url, model=model) as server:
            return await server.as_caller("*").chat(message, agent="tasks")

    async def test_what_was_recorded_is_given_again_without_a_key(
        self,
        file: Path,
        agent_workspace: Workspace,
        agent_database: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        recorded = await self.record(file, monkeypatch, agent_workspace, agent_database)
        assert self.KEY not in read(file)
        assert QUESTION in [each["asked"] for each in json.loads(read(file)).values()]
        played = await self.ask(agent_workspace, agent_database, RecordedOpenAI(file))
        assert played.text == recorded.text == "Fins are on it."
        assert [call.name for call in played.calls] == ["create_task", "list_tasks"]
        assert played.calls[0].output["id"] != recorded.calls[0].output["id"]

    async def test_what_was_not_recorded_fails_and_says_how_to_record_it(
        self, file: Path, agent_workspace: Workspace, agent_database: str
    ) -> None:
        with pytest.raises(TurnFailed) as failed:
            await self.ask(agent_workspace, agent_database, RecordedOpenAI(file), "And now?")
        for part in (str(file), "'And now?'", "AGENT_SERVER_RECORD=1", "OPENAI_API_KEY"):
            assert part in str(failed.value)
        assert read(file) == ""

    async def test_a_refusal_is_not_recorded(
        self, file: Path, agent_workspace: Workspace, agent_database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with scripted_openai([Refuse(401, message=f"bad key {self.KEY}")]) as provider:
            monkeypatch.setenv("AGENT_SERVER_RECORD", "1")
            monkeypatch.setenv("OPENAI_API_KEY", self.KEY)
            monkeypatch.setenv("OPENAI_BASE_URL", provider.url)
            monkeypatch.setenv("AGENT_SERVER_MODEL", "the-best")
            async with recorded_openai(file) as model:
                with pytest.raises(TurnFailed, match=f"{provider.url} answered with status 401"):
                    await self.ask(agent_workspace, agent_database, model)
        assert read(file) == ""

    async def test_recording_needs_a_provider(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AGENT_SERVER_RECORD", "1")
        with pytest.raises(InvalidInput, match="set OPENAI_API_KEY"):
            async with recorded_openai(file):
                pass


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002", True),
        ("2026-01-02", "2026-01-03", False),
        ("Hello", "Goodbye", False),
        ("{today}", "{today}T10:00:00.123456Z", True),
        ("{today}", "{yesterday}", False),
    ],
)
def test_requests_are_the_same_but_for_ids_and_the_present_time(one: str, other: str, same: bool) -> None:
    now = datetime.now(UTC).date()
    days = {"today": now, "yesterday": now - timedelta(days=1)}
    requests: Sequence[dict[str, Any]] = [
        {"model": "m", "messages": [{"content": each.format(**days)}]} for each in (one, other)
    ]
    assert (hash_request(requests[0]) == hash_request(requests[1])) is same


def test_a_test_has_one_model(
    request: pytest.FixtureRequest, scripted_model: ScriptedOpenAI, recorded_model: RecordedOpenAI
) -> None:
    with pytest.raises(pytest.UsageError, match="scripted_model or recorded_model"):
        request.getfixturevalue("_agent_model")


class TestOnTrio:
    @pytest.fixture
    def anyio_backend(self) -> str:
        return "trio"

    def test_a_test_is_skipped(self, request: pytest.FixtureRequest) -> None:
        with pytest.raises(pytest.skip.Exception, match="asyncio only"):
            request.getfixturevalue("_agent_loop")


def test_nothing_but_the_fixtures_needs_pytest_and_pytest_loads_no_server() -> None:
    script = """
import sys
sys.modules["pytest"] = None
import agent_server.testing
for name in agent_server.testing.__all__:
    getattr(agent_server.testing, name)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    script = """
import sys
import agent_server.testing.plugin
heavy = {"sqlalchemy", "agents", "mcp", "fastapi", "openai"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True)
