"""`/mcp` answers in the form that a client can read, whatever it calls it."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_server.mcp.accept import Form, find_form
from tests.mcp.conftest import Mode, Notebook

BOTH = ["application/json, text/event-stream", "text/event-stream, application/json", "Application/JSON,Text/Event-Stream",
        "text/event-stream, */*;q=0.1", "application/json;q=0.5, text/event-stream", "text/*, application/*"]  # fmt: skip
AS_JSON = [None, "", "application/json", "application/*", "*/*", "application/json; charset=utf-8", "text/html, */*;q=0.1",
           "application/json, text/event-stream;q=0.1", "*/*, text/event-stream;q=0", "image/png, APPLICATION/JSON"]  # fmt: skip
AS_EVENTS = [
    "text/event-stream",
    "text/*",
    "application/json;q=0, text/event-stream",
    "text/event-stream;q=0.3, text/html",
]
NEITHER = ["text/html", "application/json;q=0", "*/*;q=0", "application/xml, image/*"]

CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "a result": ("tools/call", {"name": "add_note", "arguments": {"text": "line\nend, ä"}}),
    "a list": ("tools/list", {}),
    "a failure": ("tools/call", {"name": "fail", "arguments": {"how": "missing"}}),
    "no such tool": ("tools/call", {"name": "nope", "arguments": {}}),
    "no such method": ("nope", {}),
    "wrong parameters": ("tools/call", {"name": "fail", "arguments": 7}),
}


def read(response: httpx.Response) -> Any:
    """The final message, checked to be in the one form that the content type says."""
    kind = response.headers["content-type"].partition(";")[0]
    if kind == "application/json":
        return response.json()
    assert kind == "text/event-stream"
    found = [line[6:] for line in response.text.replace("\r\n", "\n").split("\n") if line.startswith("data: ")]
    return json.loads(found[-1])


@pytest.mark.parametrize("call", CALLS)
async def test_every_form_says_the_same(notebook: Notebook, mode: Mode, call: str) -> None:
    method, params = CALLS[call]
    usual = await notebook.post(mode, method, params)
    for kinds, form in ((AS_JSON, "application/json"), (AS_EVENTS, "text/event-stream"), (BOTH, None)):
        for accept in kinds if call == "a result" else kinds[:2]:
            response = await notebook.post(mode, method, params, {"Accept": accept})
            assert (response.status_code, read(response)) == (usual.status_code, read(usual)), accept
            if form is not None:
                assert response.headers["content-type"].partition(";")[0] == form, accept
            assert response.headers.get("content-length") in (None, str(len(response.content)))


@pytest.mark.parametrize("accept", NEITHER)
async def test_who_reads_neither_form_is_told_which_there_are(notebook: Notebook, mode: Mode, accept: str) -> None:
    response = await notebook.post(mode, "tools/list", {}, {"Accept": accept})
    assert response.status_code == 406
    assert "application/json or text/event-stream" in response.json()["error"]["message"]


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream", "*/*"])
async def test_a_refusal_is_in_the_form_that_was_asked_for_with_its_status(
    notebook: Notebook, mode: Mode, accept: str
) -> None:
    response = await notebook.post(mode, "tools/list", {}, {"Accept": accept, "Authorization": "Bearer nonsense"})
    assert response.status_code == 401
    assert "resource_metadata" in response.headers["www-authenticate"]
    assert read(response)["error"]["data"]["code"] == "unauthorized"
    assert ("event-stream" in response.headers["content-type"]) == (accept == "text/event-stream")


async def test_other_methods_are_refused_whatever_is_accepted(notebook: Notebook) -> None:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {notebook.key}"}) as http:
        for method in ("GET", "DELETE", "HEAD", "PUT"):
            for accept in ("application/json", "text/event-stream", "*/*"):
                response = await http.request(method, notebook.url, headers={"Accept": accept})
                assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_a_body_with_a_byte_order_mark_is_read_and_its_scope_is_asked_for(notebook: Notebook) -> None:
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "add_note", "arguments": {"text": "x"}},
    }
    body, statuses = b"\xef\xbb\xbf" + json.dumps(call).encode(), []
    for key in (await notebook.issue_key("notes:read"), notebook.key):
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        async with httpx.AsyncClient() as http:
            statuses.append((await http.post(notebook.url, content=body, headers=headers)).status_code)
    assert statuses == [403, 200]
    assert await notebook.notes() == ["x"]


RANGES = st.sampled_from(["application/json", "text/event-stream", "*/*", "application/*", "text/*", "text/html", ""])
QUALITIES = st.sampled_from(["", ";q=0", ";q=0.5", "; Q=1", ";q=x", ";charset=utf-8", ";q=nan"])


@given(st.lists(st.tuples(RANGES, QUALITIES).map("".join), max_size=4), st.booleans())
def test_what_is_not_taken_is_never_sent(ranges: list[str], together: bool) -> None:
    form = find_form([", ".join(ranges)] if together else ranges)
    text = [each.lower() for each in ranges if each and not each.startswith(";")]
    takes = {
        kind: any(each.startswith(kind) and ";q=0;" not in f"{each};" for each in text)
        for kind in ("application/json", "text/event-stream", "application/*", "text/*", "*/*")
    }
    if form is Form.JSON and text:
        assert takes["application/json"] or takes["application/*"] or takes["*/*"]
    if form is Form.EVENTS:
        assert takes["text/event-stream"] or takes["text/*"]
