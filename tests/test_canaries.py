"""Values that nobody may see, sent through every door of a running server: they come out of none but the one meant.

A value that a caller stores is data, and given back to that caller. It is in no line of the log, in no error, in no audit
row and in no turn's error.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import asyncpg
import httpx
import jwt
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent_server.testing import Call, Say, ScriptedOpenAI, Step
from agent_server.testing.serving import serving as listening
from agent_server.testing.wire import answer_request
from tests.commands import Serving, agent_server, serving
from tests.conftest import ROOT

JWT = jwt.encode({"sub": "canary"}, "canary" * 8)
PASSWORD = "canary0Opens/everything"
MODEL_KEY = "sk-canary-0f-the-m0del-that-answers"
CANARIES = {
    "key": "ask_01a1fc2db63673dc88212073b2c175f8.canary-wrong-Zk3vBq8mN2xLr7TtYw5c",
    "provider's key": "sk-proj-canary0Zk3vBq8mN2xLr7",
    "JWT": JWT,
    "password": PASSWORD,
    "e-mail": "ada.canary+dive@mail.example.co.uk",
    "phone": "+44 20 7946 0958",
    "card": "4111 1111 1111 1111",
    "IBAN": "DE89 3704 0044 0532 0130 00",
}
ALL = " and ".join(f"{name} {value}" if name != "password" else f"password={value}" for name, value in CANARIES.items())
BROKEN = f'''
from agent_server import InvalidInput, ToolContext, tool


@tool(scope="broken:use", effect="stored")
async def break_down(context: ToolContext, kindly: bool = False) -> str:
    """Break down."""
    if kindly:
        raise InvalidInput({ALL.replace(PASSWORD, "not-shown")!r})
    try:
        raise KeyError({ALL!r}, {{"password": {PASSWORD!r}, "headers": [("x-api-key", {PASSWORD!r})]}})
    except KeyError as error:
        raise RuntimeError({ALL!r}) from error
'''


def forms(value: str) -> set[str]:
    """`value` as it may look where it is quoted, encoded or written without its spaces."""
    return {value, quote(value), quote_plus(value), quote(value, safe=""), value.replace(" ", ""), repr(value)[1:-1]}


def leaks(text: str, *also: str) -> dict[str, str]:
    """The canaries that `text` shows, each with what stands around it."""
    found = {}
    for value in (*CANARIES.values(), MODEL_KEY, *also):
        for form in forms(value):
            if (at := text.find(form)) >= 0:
                found[value] = text[max(at - 200, 0) : at + 200]
    return found


def script(body: dict[str, Any]) -> Step:
    last = body["messages"][-1]
    if last["role"] == "tool":
        return Say("It broke down.")
    if "Please break down" in last["content"]:
        return Call("break_down", {"kindly": "kindly" in last["content"]})
    return Call("break_down", f'{{"kindly": "{ALL}", ') if "Please err" in last["content"] else Say("Noted.")


class Indiscreet(ScriptedOpenAI):
    """A model's server that repeats what it must not, where the user's message asks for it."""

    async def completions(self, request: Request) -> Response:
        body = await request.json()
        said = str(body["messages"][-1]["content"])
        given = f"{request.headers['authorization']} {ALL}"
        refused = {"error": {"message": f"Incorrect API key provided: {given}", "code": given}}
        otherwise = {
            "Please refuse": JSONResponse(refused, 401),
            "Please fail": Response(f"<html>{given}</html>", 500),
            "Please babble": Response(f"data: {{{given}\n\n", media_type="text/event-stream"),
        }
        for asked, response in otherwise.items():
            if asked in said:
                self.next(body)  # what was received is noted there
                return response
        return await answer_request(self, request)


@asynccontextmanager
async def indiscreet_model() -> AsyncIterator[str]:
    route = Route("/v1/chat/completions", Indiscreet(script).completions, methods=["POST"])
    async with listening(Starlette(routes=[route])) as base:
        yield f"{base}/v1"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The reference workspace with a tool that breaks down."""
    for folder in ("tools", "prompts", "content", "migrations"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tools" / "broken.py").write_text(BROKEN)
    prompt = tmp_path / "prompts" / "tasks.md"
    prompt.write_text(prompt.read_text().replace("[create_task,", "[create_task, break_down,"))
    return tmp_path


def messages() -> Iterator[str]:
    yield f"My data: {ALL}"
    for how in ("break down", "break down kindly", "err", "refuse", "babble", "fail"):
        yield f"Please {how}. {ALL}"


Given = tuple[str, str, dict[str, Any]]


def as_names(value: str) -> Iterator[Given]:
    """Where a name, an id or an address is expected."""
    place = quote(value, safe="")
    yield "GET", f"/api/conversations/{place}", {}
    yield "GET", f"/api/chat/{place}/stream", {}
    yield "GET", f"/nothing/{place}.pdf", {}
    yield "GET", f"/nothing/{quote(place)}.pdf", {}
    yield "POST", f"/api/tools/{place}", {"json": {}}
    yield "POST", "/api/chat", {"json": {"message": "x", "agent": value}}
    yield "POST", "/api/chat", {"json": {"message": "x", value: value}}
    yield "POST", "/api/tools/create_task", {"json": {value: value}}
    yield "POST", "/api/tools/read_document", {"json": {"path": f"{value}.md"}}
    yield "POST", "/api/tools/search_knowledge", {"json": {"query": "fins", "collections": [value]}}
    yield "POST", "/mcp", {"json": _rpc("tools/call", name=value, arguments={"a": value})}
    yield "POST", "/mcp", {"json": _rpc("resources/read", uri=f"content://{value}.md")}
    yield "POST", "/mcp", {"json": _rpc(value, x=value)}


def as_values(value: str) -> Iterator[Given]:
    """In headers, queries and arguments."""
    place = quote(value, safe="")
    headers = {"Idempotency-Key": value, "X-Request-Id": value.replace(" ", ""), "User-Agent": value}
    yield "GET", "/api/tools", {"headers": {"Authorization": f"Bearer {value}"}}
    yield "POST", "/mcp", {"headers": {"Authorization": f"Bearer {value}"}, "json": {}}
    yield "GET", f"/api/conversations?cursor={place}&access_token={place}", {}
    yield "GET", f"/nothing?authorization=Bearer%20{place}", {"headers": {"Cookie": f"session={value}"}}
    yield "POST", "/api/chat", {"json": {"message": "x", "id": value}}
    yield "POST", "/api/chat", {"json": {"message": "", "password": value}, "headers": headers}
    yield "POST", "/api/chat", {"json": {"message": "x"}, "headers": {**headers, "Last-Event-ID": value}}
    yield "POST", "/api/tools/create_task", {"json": {"title": {"password": value}}, "headers": headers}
    yield "POST", "/api/tools/break_down", {"json": {"kindly": value}, "headers": headers}
    yield "POST", "/api/tools/break_down", {"json": {}, "headers": headers}
    yield "POST", "/api/lead", {"json": {"email": value, "phone": {"x": value}, "name": [value]}}
    yield "POST", "/mcp", {"json": _rpc("tools/call", name="create_task", arguments={"title": {"x": value}})}
    yield "POST", "/mcp", {"json": _rpc("tools/call", name={"x": value}, arguments=value)}


def requests() -> Iterator[Given]:
    """Every door, with the canaries in every place that a client can fill."""
    for value in CANARIES.values():
        yield from as_values(value)
        if value != PASSWORD:  # which has no shape: in the place of a name nothing says what it is
            yield from as_names(value)
    yield "POST", "/mcp", {"json": _rpc("tools/call", name="break_down", arguments={})}
    file = {"type": "file", "filename": f"{ALL}.pdf", "url": f"data:,{ALL}"}
    yield "POST", "/api/chat", {"json": {"messages": [{"id": "1", "role": "user", "parts": [file]}]}}
    for path in ("/api/chat", "/api/tools/create_task", "/api/lead", "/mcp"):
        for body in (f'{{"message": "{ALL}", "password": "{PASSWORD}"', f"{ALL}\udcff", f'["{ALL}"]'):
            content = body.encode("utf-8", "surrogateescape")
            yield "POST", path, {"content": content, "headers": {"Content-Type": "application/json"}}


def _rpc(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def sent(server: Serving) -> Iterator[httpx.Response]:
    """The answers to all of it that are no success."""
    accept = {"Accept": "application/json, text/event-stream"}
    for method, path, given in requests():
        headers = {**accept, **{name: v.encode() for name, v in given.pop("headers", {}).items()}}
        response = server.http.request(method, path, headers=headers, **given)
        if response.status_code >= 400 or "error" in response.text.lower():
            yield response


def said_in_chat(server: Serving) -> list[dict[str, Any]]:
    return [server.ask(message, agent="tasks") for message in messages()]


async def written(url: str) -> str:
    """All that the database keeps which is about what happened, and no data of a user's."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            """select to_jsonb(audit)::text from audit
            union all select error::text from turn where error is not null
            union all select result ->> 'error' from tool_call where result ->> 'error' is not null"""
        )
    finally:
        await connection.close()
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("format", ["json", "console"])
async def test_no_secret_comes_out_of_a_log_an_error_or_the_audit(
    format: str, workspace: Path, stocked_url: str
) -> None:
    async with indiscreet_model() as model:
        variables = {
            "OPENAI_BASE_URL": model,
            "OPENAI_API_KEY": MODEL_KEY,
            "AGENT_SERVER_MODEL": "openai/scripted",
            "AGENT_SERVER_MODEL_RETRIES": "0",
            "AGENT_SERVER_LOG_FORMAT": format,
            "AGENT_SERVER_LOG_LEVEL": "DEBUG",
        }

        def run() -> tuple[list[dict[str, Any]], list[httpx.Response], str]:
            with serving(workspace, stocked_url, **variables) as server:
                chats = said_in_chat(server)
                server.call("update_profile", conditions=ALL)
                lead = {"email": CANARIES["e-mail"], "phone": CANARIES["phone"], "message": ALL}
                assert server.http.post("/api/lead", json=lead).status_code == 200
                refusals = list(sent(server))
                return chats, refusals, server.ended()

        chats, refusals, log = await asyncio.to_thread(run)
    assert [chat["status"] for chat in chats] == ["done"] * 4 + ["failed"] * 3
    assert leaks(json.dumps([chat["error"] for chat in chats])) == {}
    assert len(refusals) > 20 * len(CANARIES)
    assert [(r.request.method, r.request.url.path, leaked) for r in refusals if (leaked := leaks(_shown(r)))] == []
    assert log.count("http.request") > len(refusals) and log.count("tool.failed") > len(CANARIES)
    assert leaks(log) == {}
    assert leaks(await written(stocked_url)) == {}


def _shown(response: httpx.Response) -> str:
    return f"{response.headers} {response.text} {response.text.encode().decode('unicode_escape', 'replace')}"


@pytest.mark.parametrize(
    ("format", "password"), [("json", "canary-opens-everything"), ("console", "canary%40opens%2Feverything")]
)
def test_the_password_of_a_database_that_refuses_is_not_shown(format: str, password: str, tmp_path: Path) -> None:
    (tmp_path / "content").mkdir()
    ended = agent_server(
        "serve",
        cwd=tmp_path,
        DATABASE_URL=f"postgresql://someone:{password}@127.0.0.1:1/nothing",
        AGENT_SERVER_LOG_FORMAT=format,
        AGENT_SERVER_LOG_LEVEL="DEBUG",
    )
    assert ended.returncode == 1
    assert "does not answer" in ended.stderr
    assert "opens" not in ended.stdout + ended.stderr
