"""A workspace that the engine has never seen: the documentation of a library that does not exist, and its bug reports.

Nothing in `agent_server/` may be needed for it; its questions are asked as a user would, without a model key.
"""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from dirty_equals import IsPartialDict
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client

from agent_server.testing import copy_database
from tests.commands import Serving, agent_server, serving

WORKSPACE = Path(__file__).parent / "other_workspace"

QUESTIONS = {
    "What do I need before I can install Kestrel?": "getting-started/installation.md",
    "What is the package called on the package index?": "getting-started/installation.md",
    "How do I create the tables?": "getting-started/installation.md",
    "May I pass an object as an argument of a job?": "getting-started/quickstart.mdx",
    "How often is a failed job tried again?": "guides/retries.md",
    "What happens to a job that has used up all its attempts?": "guides/retries.md",
    "In which time zone is a cron expression read?": "guides/schedules.md",
    "How can I run a job once, tomorrow?": "guides/schedules.md",
    "How do I limit how many jobs of one kind run at the same time?": "guides/priorities.md",
    "Do I need a database to test code that enqueues jobs?": "guides/testing.md",
    "Why does systemd kill my worker before its job is finished?": "operations/deploying/systemd.md",
    "Which user does the container run as?": "operations/deploying/containers.md",
    "What should the liveness probe be on Kubernetes?": "operations/deploying/containers.md",
    "On which port are the Prometheus metrics?": "operations/monitoring.md",
    "Does the dashboard have a login?": "operations/monitoring.md",
    "How do I keep a password out of the arguments?": "operations/security.md",
    "What is the default of lease_seconds?": "reference/settings.md",
    "How long are finished jobs kept?": "reference/settings.md",
    "How do I stop all workers from taking jobs of a queue?": "reference/cli.md",
    "When was Python 3.9 dropped?": "changelog.md",
    "Under which licence is Kestrel released?": "index.md",
    "Do I need Redis or RabbitMQ?": "index.md",
}
FACTS = {
    "How often is a failed job tried again?": "five times by default",
    "On which port are the Prometheus metrics?": "9464",
    "What is the default of lease_seconds?": "60",
    "Under which licence is Kestrel released?": "Mozilla Public License 2.0",
    "Which user does the container run as?": "10001",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A copy of the workspace, where the server may write its key."""
    return shutil.copytree(WORKSPACE, tmp_path / "kestrel", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    with copy_database(postgres) as url:
        yield url


def test_its_questions_are_answered_from_the_right_pages_and_its_tools_work_everywhere(
    workspace: Path, empty: str
) -> None:
    with serving(workspace, empty) as server:
        assert "table" not in "".join(server.written), "that it makes the tables by itself is nothing to warn of"
        answers = {question: server.ask(question) for question in QUESTIONS}
        assert {question: _first(answer) for question, answer in answers.items()} == QUESTIONS
        assert {answer["agent"] for answer in answers.values()} == {"docs"}
        for question, fact in FACTS.items():
            assert fact in answers[question]["text"], answers[question]["text"]
        nothing = server.ask("Which wine goes well with mushroom risotto?")
        assert nothing["sources"] == []

        key = server.http.headers["Authorization"].removeprefix("Bearer ")
        said = server.ask("Report a bug that the dashboard is empty")
        assert said["agent"] == "bugs"
        assert "the dashboard is empty" in said["text"]
        assert server.call("report_bug", summary="Over REST", severity="high")["severity"] == "high"
        asyncio.run(_report(server, "Over MCP"))
        spoken = ("tool", "call", "report_bug", "--summary", "On the command line")
        done = agent_server(*spoken, cwd=workspace, DATABASE_URL=empty, AGENT_SERVER_KEY=key)
        assert json.loads(done.stdout) == IsPartialDict(summary="On the command line", severity="low"), done.stderr
        listed = server.ask("Which bugs have I reported?")["text"]
        reported = ["On the command line", "Over MCP", "Over REST", "the dashboard is empty"]
        assert [bug["summary"] for bug in server.call("list_bugs")["items"]] == reported
        assert all(summary in listed for summary in reported)
        refused = server.http.post("/api/tools/report_bug", json={"summary": "x", "severity": "medium"})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
        assert "severity" in refused.json()["detail"]
        page = server.get("/openapi.json")["paths"]
        assert {"/api/tools/report_bug", "/api/tools/list_bugs"} <= set(page)


def _first(answer: dict[str, Any]) -> str | None:
    """The page that the answer cites first."""
    return answer["sources"][0]["document"] if answer["sources"] else None


async def _report(server: Serving, summary: str) -> None:
    headers = {"Authorization": server.http.headers["Authorization"]}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        McpClient(streamable_http_client(str(server.http.base_url.join("/mcp")), http_client=http)) as mcp,
    ):
        result = await mcp.call_tool("report_bug", {"summary": summary})
        assert result.structured_content == IsPartialDict(summary=summary)


def test_in_production_a_table_that_no_migration_makes_is_refused_by_name(workspace: Path, empty: str) -> None:
    migrated = agent_server("db", "upgrade", cwd=workspace, DATABASE_URL=empty)
    assert migrated.returncode == 0, migrated.stderr
    production = {"AGENT_SERVER_ENVIRONMENT": "production", "DATABASE_URL": empty}
    refused = agent_server("serve", "--port", "0", cwd=workspace, **production)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        "invalid_input: No migration makes bug; write one with `agent-server db revision MESSAGE`"
    )
    assert "Traceback" not in refused.stderr


def test_without_prompts_one_agent_answers_from_all_content_and_has_all_its_tools(workspace: Path, empty: str) -> None:
    shutil.rmtree(workspace / "prompts")
    said = agent_server("chat", "Report a bug that it is slow", "--json", cwd=workspace, DATABASE_URL=empty)
    events = [json.loads(line) for line in said.stdout.splitlines()]
    kinds = {event["kind"]: event for event in events}
    assert said.returncode == 0, said.stderr
    assert kinds["agent"] == IsPartialDict(name="assistant", decided_by="only")
    assert kinds["tool_done"] == IsPartialDict(name="report_bug", error=None)
    asked = agent_server("chat", "Which user does the container run as?", "--json", cwd=workspace, DATABASE_URL=empty)
    assert "10001" in asked.stdout
    assert '"operations/deploying/containers.md"' in asked.stdout
