"""A plain call is answered past the SDK, and nobody can tell by the answer."""

import json
import re
from typing import Any

import httpx
import pytest

from tests.mcp.conftest import Mode, Notebook
from tests.mcp.test_accept import read

OTHER_WAY = {"example.com/unknown": 1}
"""In `_meta`, it makes a call one that only the SDK answers."""
FORMS: dict[str, Any] = {"elicitation": {}}

CALLS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "an object": ("add_note", {"text": "line\nend, ä", "topic": None}, {}),
    "a list": ("list_notes", {}, {}),
    "a text": ("long_note", {"length": 3}, {}),
    "nothing": ("drop_note", {"text": "x"}, {}),
    "a question": ("drop_note", {"text": "x"}, FORMS),
    "what JSON cannot hold": ("odd_note", {"number": True}, {}),
    "half a character": ("odd_note", {"number": False}, {}),
    "wrong arguments": ("add_note", {"text": "x" * 41}, {}),
    "unknown arguments": ("add_note", {"text": "x", "secret": "password=hunter2"}, {}),  # pragma: allowlist secret
    **{
        f"failure {how}": ("fail", {"how": how}, {})
        for how in ("invalid", "missing", "busy", "away", "forbidden", "bug")
    },
}


def tell(response: httpx.Response) -> tuple[int, str]:
    """An answer without what is another in each call."""
    said = re.sub(
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{12}\b",
        "<id>",
        json.dumps(read(response), sort_keys=True, ensure_ascii=False),
    )
    return response.status_code, said


async def call_legacy(notebook: Notebook, name: str, arguments: Any, meta: dict[str, Any]) -> httpx.Response:
    params = {"name": name, "arguments": arguments} | ({"_meta": meta} if meta else {})
    return await notebook.send({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, {})


async def test_both_ways_answer_the_same(notebook: Notebook, mode: Mode) -> None:
    for what, (name, arguments, can) in CALLS.items():
        answers = []
        for meta in ({}, OTHER_WAY):
            if mode == "modern":
                params = {"name": name, "arguments": arguments}
                answer = await notebook.post(mode, "tools/call", params, capabilities=can, meta=meta)
            else:
                answer = await call_legacy(notebook, name, arguments, meta)
            answers.append(answer)
        assert tell(answers[0]) == tell(answers[1]), what
    notes = await notebook.notes()
    # Each call was made once on each way, and what failed has left nothing.
    assert notes.count("line\nend, ä") == 2
    assert "never kept" not in notes


async def test_a_plain_call_does_not_go_the_other_way(notebook: Notebook) -> None:
    # The SDK always answers a client of before 2026 with a stream.
    kinds = [
        (await call_legacy(notebook, "count_notes", {}, meta)).headers["content-type"].partition(";")[0]
        for meta in ({}, OTHER_WAY)
    ]
    assert kinds == ["application/json", "text/event-stream"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"Mcp-Name": "add_note"},
        {"Mcp-Method": "tools/list"},
        {"Mcp-Name": None},
        {"MCP-Protocol-Version": "2027-01-01"},
    ],
)
async def test_headers_that_say_something_else_than_the_call_are_refused_as_before(
    notebook: Notebook, wrong: dict[str, str | None]
) -> None:
    params = {"name": "count_notes", "arguments": {}}
    first, second = [await notebook.post("modern", "tools/call", params, wrong, meta=m) for m in ({}, OTHER_WAY)]
    assert first.status_code >= 400
    assert tell(first) == tell(second)
