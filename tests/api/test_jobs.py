"""Long tools over REST and in chats: calls that are jobs, and what their callers find when they come back."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_server.identity.credentials import issue_key
from agent_server.testing.scripted import Call, Say, scripted_openai
from tests.conftest import fetch
from tests.mcp.long_tools import call, lay_out_work, read_task, send
from tests.server import Client, Start

GUIDE = "---\nname: guide\ndescription: Answers.\ntools: [write_line, refuse, report]\n---\nYou answer.\n"
REPORT = '''
from pydantic import BaseModel

from agent_server import ToolContext, tool


class Report(BaseModel):
    title: str
    pages: int


@tool(scope="reports:write", effect="stored", long=True, title="Annual report", phrases=["draw up a report"])
async def report(context: ToolContext) -> Report:
    """Draw up the report."""
    return Report(title="Report", pages=3)
'''
WORK = {"prompts/guide.md": GUIDE, "tools/report.py": REPORT}


@pytest.fixture
async def work(start_other: Start, tmp_path: Path) -> AsyncIterator[Client]:
    async with start_other(lay_out_work(tmp_path / "w", **WORK)) as client:
        yield client


async def ask(client: Client, method: str, path: str, key: str | None = None, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key or client.key}", **more.pop("headers", {})}
    return await client.http.request(method, path, headers=headers, **more)


async def begin(client: Client, folder: Path, line: str, key: str | None = None, **headers: str) -> httpx.Response:
    body = {"folder": str(folder), "line": line}
    return await ask(client, "POST", "/api/tools/write_line", key, json=body, headers=headers)


async def until(
    client: Client, job: str, state: str, *, key: str | None = None, has_progress: bool = False
) -> dict[str, Any]:
    """The job once it has this state."""
    prefer = {"Prefer": f"wait={0 if state == 'running' else 1}"}
    async with asyncio.timeout(20):
        while True:
            found = (await ask(client, "GET", f"/api/jobs/{job}", key, headers=prefer)).json()
            if found["state"] == state and bool(found["progress"]) == has_progress:
                return dict(found)


async def test_a_job_is_nobody_elses_and_of_its_owner_only_for_keys_that_may_use_the_tool(
    work: Client, tmp_path: Path
) -> None:
    job = (await begin(work, tmp_path, "mine")).json()["id"]
    me = (await fetch(work.server.database.url, "select owner_id from mcp_task"))[0][0]
    async with work.server.database.transaction(me) as session:
        reader = (await issue_key(session, me, name="reader", scopes=["work:read"])).text
        worker = (await issue_key(session, me, name="worker", scopes=["work:*"])).text
    for key in (await work.new_key(), reader):
        for method, path in (("GET", f"/api/jobs/{job}"), ("POST", f"/api/jobs/{job}/cancel")):
            refused = await ask(work, method, path, key)
            assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
        assert (await ask(work, "GET", "/api/jobs", key)).json() == {"items": [], "next_cursor": None}
    assert (await begin(work, tmp_path, "not mine", reader)).status_code == 403
    assert (await ask(work, "GET", f"/api/jobs/{job[:-1]}{'0' if job[-1] != '0' else '1'}")).status_code == 404
    assert [each["id"] for each in (await ask(work, "GET", "/api/jobs", worker)).json()["items"]] == [job]
    (tmp_path / "open").touch()
    assert (await until(work, job, "done", key=worker))["result"] == "mine"


async def test_a_long_call_by_rest_answers_with_its_handle_and_people_come_back_for_the_result(
    work: Client, tmp_path: Path
) -> None:
    begun = await begin(work, tmp_path, "x", **{"Idempotency-Key": "k"})
    job = begun.json()["id"]
    assert (begun.status_code, begun.headers["Location"]) == (202, f"/api/jobs/{job}")
    again = await begin(work, tmp_path, "x", **{"Idempotency-Key": "k", "Prefer": "respond-async, wait=0"})
    assert (again.status_code, again.json()["id"]) == (202, job)
    found = await until(work, job, "running", has_progress=True)
    assert (found["state"], found["progress"]) == ("running", {"done": 1, "total": 2, "message": "waiting"})
    assert (found["title"], found["result"], found["text"]) == ("Write line", None, None)
    (tmp_path / "open").touch()
    ended = await until(work, job, "done")
    assert (ended["result"], ended["error"], ended["progress"]) == ("x", None, None)
    shown = (await ask(work, "GET", f"/api/jobs/{job}", params={"render": "html"})).json()
    assert shown["html"] == "<p>Done.</p><p>x</p>"
    refused = await ask(work, "POST", f"/api/jobs/{job}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")

    # whoever waits long enough is answered as by any other tool
    waited = await begin(work, tmp_path, "y", Prefer="wait=30")
    assert (waited.status_code, waited.json()) == (200, "y")
    failed = await ask(work, "POST", "/api/tools/refuse", json={}, headers={"Prefer": "wait=30"})
    assert (failed.status_code, failed.json()["code"], failed.json()["detail"]) == (409, "conflict", "not today")
    lost = failed.headers["Content-Location"]
    assert (await ask(work, "GET", lost)).json()["error"] == {"code": "conflict", "message": "not today"}
    wrong = await ask(work, "POST", "/api/tools/write_line", json={"folder": 1})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_input")
    assert {each["field"] for each in wrong.json()["errors"]} == {"folder", "line"}

    first = (await ask(work, "GET", "/api/jobs", params={"limit": 2})).json()
    rest = (await ask(work, "GET", "/api/jobs", params={"cursor": first["next_cursor"]})).json()
    assert [each["state"] for each in [*first["items"], *rest["items"]]] == ["failed", "done", "done"]
    assert rest["items"][-1]["id"] == job and "result" not in rest["items"][-1]
    export = (await ask(work, "GET", "/api/me/export")).json()["tables"]["mcp_task"]
    assert {each["id"] for each in export} == {each["id"] for each in [*first["items"], *rest["items"]]}
    audit = await fetch(
        work.server.database.url, "select action, outcome from audit where surface = 'rest' order by at"
    )
    assert audit[:2] == [("write_line", "begun"), ("write_line", "begun")]
    assert ("write_line", "ok") in audit and ("refuse", "conflict") in audit


async def test_a_job_that_is_cancelled_stores_nothing(work: Client, tmp_path: Path) -> None:
    job = (await begin(work, tmp_path, "x")).json()["id"]
    await until(work, job, "running", has_progress=True)
    assert (await ask(work, "POST", f"/api/jobs/{job}/cancel")).json()["state"] == "cancelled"
    (tmp_path / "open").touch()
    assert (await begin(work, tmp_path, "y", Prefer="wait=30")).json() == "y"
    assert (await until(work, job, "cancelled"))["result"] is None
    noted = await fetch(work.server.database.url, "select action from audit where outcome = 'note'")
    assert noted == [("y",)]


async def test_mcp_and_rest_have_the_same_jobs(work: Client, tmp_path: Path) -> None:
    (tmp_path / "open").touch()
    params = call("modern", "write_line", folder=str(tmp_path), line="x")
    task = read_task(await send(work.http, work.key, "modern", "tools/call", params))["taskId"]
    assert (await until(work, task, "done"))["result"] == "x"
    job = (await begin(work, tmp_path, "y")).json()["id"]
    await until(work, job, "done")
    found = (await send(work.http, work.key, "modern", "tasks/get", {"taskId": job}))["result"]
    assert found["result"]["content"] == [{"type": "text", "text": "y"}]


def script(folder: Path) -> Any:
    """A model that has the line written, and then says what became of it."""

    def step(request: dict[str, Any]) -> Any:
        said = [m for m in request["messages"] if m["role"] == "user"][-1]["content"]
        outputs = [m["content"] for m in request["messages"] if m["role"] == "tool"]
        last = request["messages"][-1]
        if last["role"] == "tool":
            return Say(f"I read: {outputs[-1]}")
        if "became" in said:
            return Call("check_jobs", {"job": "line"})
        return Call("write_line", {"folder": str(folder), "line": "x"})

    return step


async def test_a_long_tool_in_a_chat_is_a_job_that_the_model_is_told_of_and_can_ask_after(
    start_other: Start, tmp_path: Path
) -> None:
    root = lay_out_work(tmp_path / "w", **WORK)
    async with scripted_openai(script(tmp_path)) as model, start_other(root, openai_base_url=model.url) as work:
        answer = await work.ask("Write a line")  # it ends although the line has not been written
        begun = json.loads(answer["text"].removeprefix("I read: "))
        assert (begun["state"], begun["title"]) == ("running", "Write line")
        assert "Do not call the tool again" in begun["note"]
        [job] = (await ask(work, "GET", "/api/jobs", params={"conversation": answer["conversation_id"]})).json()[
            "items"
        ]
        assert (job["id"], job["conversation_id"]) == (begun["job"], answer["conversation_id"])
        assert answer["tools"][0]["text"] == "“Write line” has begun, and goes on in the background."
        still = await work.ask("What became of it?", id=answer["conversation_id"])
        assert json.loads(still["text"].removeprefix("I read: "))["jobs"][0]["state"] == "running"
        (tmp_path / "open").touch()
        await until(work, job["id"], "done")
        told = json.loads((await work.ask("What became of it?"))["text"].removeprefix("I read: "))["jobs"]
        assert [(each["id"], each["state"], each["result"]) for each in told] == [(job["id"], "done", "x")]
        other = await work.new_key()
        body = {"message": "What became of it?", "stream": False}
        theirs = (await ask(work, "POST", "/api/chat", other, json=body)).json()
        assert json.loads(theirs["text"].removeprefix("I read: ")) == {"jobs": []}
        assert (await ask(work, "GET", "/api/jobs", other)).json()["items"] == []


async def test_a_guests_job_is_the_guests_and_is_erased_with_it_and_the_offline_model_knows_of_it(
    work: Client, tmp_path: Path
) -> None:
    guest = (await work.http.post("/api/session", json={})).json()["token"]

    async def say(text: str) -> str:
        body = {"message": text, "stream": False}
        return str((await ask(work, "POST", "/api/chat", guest, json=body)).json()["text"])

    assert (await begin(work, tmp_path, "x", guest)).status_code == 403  # it may only chat: agents begin its jobs
    assert await say("Show my jobs") == "There are no jobs."
    assert await say("draw up a report") == "“Annual report” has begun, and goes on in the background."
    [job] = (await ask(work, "GET", "/api/jobs", guest)).json()["items"]
    assert (await until(work, job["id"], "done", key=guest))["result"] == {"title": "Report", "pages": 3}
    assert await say("What became of my report?") == "**Annual report**: done.\n\nDone: **Report**\n\n- Pages: 3"
    assert (await ask(work, "GET", f"/api/jobs/{job['id']}")).status_code == 404
    assert (await ask(work, "DELETE", "/api/me", guest)).status_code == 204
    assert await fetch(work.server.database.url, "select count(*) from mcp_task") == [(0,)]


async def test_a_job_that_stores_holds_no_connection_before_it_uses_the_database(work: Client, tmp_path: Path) -> None:
    job = (await begin(work, tmp_path, "x")).json()["id"]
    await until(work, job, "running", has_progress=True)
    # Postgres would end such a transaction after ten seconds, and the call with it
    idle = "select count(*) from pg_stat_activity where datname = current_database() and state = 'idle in transaction'"
    assert await fetch(work.server.database.url, idle) == [(0,)]
    (tmp_path / "open").touch()
    assert (await until(work, job, "done"))["result"] == "x"
