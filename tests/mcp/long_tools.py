"""A workspace whose tools take their time, and requests to it as clients write them."""

import json
from pathlib import Path
from typing import Any

import httpx
from mcp_types import CLIENT_CAPABILITIES_META_KEY, PROTOCOL_VERSION_META_KEY

from tests.mcp.conftest import VERSIONS, Mode
from tests.test_workspace import lay_out

EXTENSION = "io.modelcontextprotocol/tasks"
TOOLS = '''
"""Work that takes its time."""

import asyncio
from pathlib import Path

from pydantic import BaseModel

from agent_server import Accepted, Conflict, ToolContext, tool
from agent_server.audit import AuditRepository


class Size(BaseModel):
    """What is asked."""

    size: int


async def wait_for(folder: str) -> None:
    (Path(folder) / "begun").touch()
    while not (Path(folder) / "open").exists():
        await asyncio.sleep(0.02)


def note(folder: str, line: str) -> None:
    with open(Path(folder) / "outside", "a") as file:
        file.write(line + "\\n")


async def write(context: ToolContext, line: str) -> None:
    await AuditRepository(context.session, context.caller).record(
        surface="note", action=line, outcome="note", latency_ms=0
    )


@tool(scope="work:do", effect="stored", long=True)
async def write_line(context: ToolContext, folder: str, line: str) -> str:
    """Write a line, when it is time."""
    await context.report_progress(1, 2, "waiting")
    await wait_for(folder)
    await write(context, line)
    return line


@tool(scope="work:do", effect="stored")
async def write_now(context: ToolContext, folder: str, line: str) -> str:
    """Write a line, when it is time, while the client waits."""
    await wait_for(folder)
    await write(context, line)
    return line


@tool(scope="work:do", effect="keyed", long=True)
async def ring(context: ToolContext, folder: str) -> str:
    """Ring a bell that knows our keys."""
    note(folder, context.idempotency_key)
    await wait_for(folder)
    return "rung"


@tool(scope="work:do", effect="once", long=True)
async def mail(context: ToolContext, folder: str) -> str:
    """Mail a letter."""
    note(folder, "mailed")
    await wait_for(folder)
    return "mailed"


@tool(scope="work:do", effect="stored", long=True)
async def fit(context: ToolContext) -> str:
    """Fit fins."""
    await write(context, "begun")
    answer = await context.ask("Which size?", Size)
    return f"size {answer.data.size}" if isinstance(answer, Accepted) else "no size"


@tool(scope="work:do", effect="stored")
async def fit_now(context: ToolContext) -> str:
    """Fit fins, while the client waits."""
    await write(context, "begun")
    answer = await context.ask("Which size?", Size)
    return f"size {answer.data.size}" if isinstance(answer, Accepted) else "no size"


@tool(scope="work:do", effect="stored", long=True)
async def refuse(context: ToolContext) -> str:
    """Refuse."""
    raise Conflict("not today")


@tool(scope="work:read", effect="read")
async def look(context: ToolContext) -> int:
    """Look."""
    return 1
'''


def lay_out_work(folder: Path, **more: str) -> Path:
    """The workspace. `more` are further files."""
    prompt = "---\nname: guide\ndescription: Answers.\n---\nYou answer.\n"
    return lay_out(folder, {"prompts/guide.md": prompt, "tools/work.py": TOOLS, **more})


def request(
    mode: Mode, method: str, params: dict[str, Any], *, tasks: bool = True, meta: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The body and the headers of a request."""
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": VERSIONS[mode]}
    said = dict(meta or {})
    if mode == "modern":
        headers |= {"Mcp-Method": method, "Mcp-Name": str(params.get("name", params.get("taskId")))}
        can: dict[str, Any] = {"elicitation": {"form": {}}, **({"extensions": {EXTENSION: {}}} if tasks else {})}
        said |= {PROTOCOL_VERSION_META_KEY: VERSIONS[mode], CLIENT_CAPABILITIES_META_KEY: can}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, **({"_meta": said} if said else {})}}
    return body, headers


async def send(
    http: httpx.AsyncClient, key: str, mode: Mode, method: str, params: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """The answer to a request."""
    path = more.pop("path", "/mcp")
    changed = more.pop("headers", {})
    body, headers = request(mode, method, params, **more)
    response = await http.post(path, json=body, headers={**headers, "Authorization": f"Bearer {key}", **changed})
    return read_answer(response.text)


def read_answer(text: str) -> dict[str, Any]:
    """The answer in a body of either kind."""
    if text.startswith("{"):
        return dict(json.loads(text))
    answers = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:") and line[5:].strip()]
    return dict(answers[-1])


def call(mode: Mode, name: str, **arguments: Any) -> dict[str, Any]:
    """The parameters of a call that is to be a task."""
    return {"name": name, "arguments": arguments, **({"task": {}} if mode == "legacy" else {})}


def read_task(answer: dict[str, Any]) -> dict[str, Any]:
    """The task that was begun."""
    assert "result" in answer, answer
    result = answer["result"]
    return dict(result.get("task", result))
