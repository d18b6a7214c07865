"""The developer page's server side: who is let in, what a turn is shown as, runs with an edited prompt, cases."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dirty_equals import IsPartialDict, IsStr
from hypothesis import given
from hypothesis import strategies as st

from agent_server.api.local import is_local
from agent_server.evals.cases import load_cases
from agent_server.settings import load_settings
from agent_server.testing import Say, scripted_openai
from agent_server.workspace import load_workspace
from tests.api.routes import raw
from tests.server import Client, Start

BAKER = "---\nname: baker\ndescription: Answers questions about bread.\nexamples: [How long should dough rise?]\n---\nYou are a baker. {{ profile.name }}\n"
BREWER = "---\nname: brewer\ndescription: Answers questions about beer.\n---\nYou are a brewer.\n"
PAGE = "---\ntitle: Dough\ndescription: How dough rises.\n---\n# Dough\n\nDough should rise for two hours in a warm place.\n"
PATHS = (
    ("GET", "/dev"),
    ("GET", "/dev/"),
    ("GET", "/dev/static/page.js"),
    ("GET", "/dev/agents"),
    ("PUT", "/dev/agents/baker"),
    ("POST", "/dev/runs"),
    ("POST", "/dev/cases"),
    ("GET", "/dev/turns/00000000-0000-7000-8000-000000000007"),
    ("DELETE", "/dev/no/such"),
)
ASKED = "How long should dough rise?"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small workspace without tools: those of two workspaces cannot live in one process."""
    for name, text in (
        ("prompts/baker.md", BAKER),
        ("prompts/brewer.md", BREWER),
        ("prompts/brewer.v2.md", BREWER.replace("---\nYou", "share: 10\ninputs: {beer: {type: string}}\n---\nYou")),
        ("content/baking/dough.md", PAGE),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
async def developer(start_other: Start, folder: Path) -> AsyncIterator[Client]:
    async with start_other(folder, environment="development") as client:
        yield client


async def send(client: Client, method: str, path: str, status: int, json: Any = None, **headers: str) -> Any:
    response = await client.http.request(method, path, json=json, headers={**client.auth, **headers})
    assert response.status_code == status, response.text
    return response.json()


async def run(client: Client, **body: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run, and its timeline when it has ended."""
    begun = await send(client, "POST", "/dev/runs", 202, {"message": ASKED, **body})
    response = await client.http.get(f"/api/turns/{begun['turn_id']}/events", headers=client.auth)
    assert response.status_code == 200
    return begun, await client.get(f"/dev/turns/{begun['turn_id']}")


# --- who is let in


async def find_nothing(client: Client, **headers: str) -> None:
    """All under /dev is answered as an address where there is nothing."""
    for method, path in PATHS:
        asked = {**client.auth, **headers}
        answers = [await client.http.request(method, where, headers=asked) for where in (path, "/no/such")]
        (found, nothing) = [(a.status_code, {**a.json(), "request_id": None}) for a in answers]
        assert found == nothing and found[0] == 404, (method, path, found)


@pytest.mark.parametrize("environment", ["test", "staging", "production"])
async def test_there_is_no_developer_page_outside_development(
    start_other: Start, folder: Path, environment: str
) -> None:
    async with start_other(folder, environment=environment) as client:
        await find_nothing(client)
        assert (await client.get("/api/page"))["developer"] is False


async def test_there_is_no_developer_page_through_a_proxy_or_from_another_page(
    developer: Client, start_other: Start, folder: Path
) -> None:
    port = developer.http.base_url.port or 80
    assert (await developer.get("/api/page"))["developer"] is True
    assert (await developer.http.get("/dev")).status_code == 200
    assert (await developer.http.get("/dev/static/page.js")).headers["content-type"].startswith("text/javascript")
    for headers in (
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Host": "localhost"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X-Real-IP": "127.0.0.1"},
        {"CF-Connecting-IP": "127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        await find_nothing(developer, **headers)
    for foreign in ("https://evil.example", "null", f"http://localhost:{port + 1}", f"https://127.0.0.1:{port}"):
        answer = await developer.http.get("/dev/agents", headers={**developer.auth, "Origin": foreign})
        assert answer.status_code == 404, foreign
        form = {"Origin": foreign, "Content-Type": "application/x-www-form-urlencoded", **developer.auth}
        assert (await developer.http.post("/dev/runs", content="message=x", headers=form)).status_code in (403, 404)
    text = f"GET /dev HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    assert b"404" in (await raw(developer, text)).split(b"\r\n")[0]
    # the names that a server was given do not count here, and one that is led here by DNS is none of them
    assert (await developer.http.get("/dev", headers={"Host": "rebound.example"})).status_code == 421
    async with start_other(folder, environment="development", allowed_hosts=("agents.example",)) as client:
        await find_nothing(client, Host="agents.example")
    for behind in ({"public_url": "https://agents.example"}, {"trusted_proxies": ("127.0.0.1",)}):
        async with start_other(folder, environment="development", **behind) as client:
            await find_nothing(client)


@given(address=st.ip_addresses(), host=st.sampled_from(["localhost", "127.0.0.1:80", "[::1]:8000", "evil.example"]))
def test_only_an_address_of_this_machine_is_let_in(address: Any, host: str) -> None:
    settings = load_settings(environment="development")
    scope = {"client": (str(address), 5), "http_version": "1.1", "headers": [(b"host", host.encode())]}
    mapped = getattr(address, "ipv4_mapped", None) or address
    assert is_local(scope, settings) is (mapped.is_loopback and host != "evil.example")
    assert not is_local({**scope, "client": None}, settings)


async def test_who_is_not_the_developer_sees_own_turns_and_changes_nothing(developer: Client, folder: Path) -> None:
    _, timeline = await run(developer)
    turn = timeline["turn"]["id"]
    other, guest = await developer.new_key(), (await developer.http.post("/api/session", json={})).json()["token"]
    for key in (other, guest, await developer.new_key("conversations:*", "tasks:*")):
        auth = {"Authorization": f"Bearer {key}"}
        for path in (f"/dev/turns/{turn}", f"/dev/turns/{turn}/calls/1"):
            assert (await developer.http.get(path, headers=auth)).status_code == 404
        if key == other:
            assert (await developer.http.get(f"/dev/turns/{turn}/case", headers=auth)).status_code == 404
            body = {"message": "And?", "after": turn}
            assert (await developer.http.post("/dev/runs", json=body, headers=auth)).status_code == 404
            assert (await developer.http.get("/dev/runs", headers=auth)).json() == []
            continue
        for method, path in (
            ("GET", "/dev/agents"),
            ("PUT", "/dev/agents/baker"),
            ("POST", "/dev/runs"),
            ("POST", "/dev/cases"),
        ):
            body = {"text": BREWER, "version": "1", "message": "Hi", "file": "a.yaml"}
            assert (await developer.http.request(method, path, json=body, headers=auth)).status_code in (403, 422)
    assert (folder / "prompts/baker.md").read_text() == BAKER
    assert (await developer.http.get("/dev/agents")).status_code == 401


# --- runs


async def test_an_edited_prompt_answers_one_run_and_no_other_and_no_file_changes(
    start_other: Start, folder: Path
) -> None:
    said = [Say(text) for text in ("Two hours.", "As I said.", "Three.", "Four.", "Five.")]
    async with (
        scripted_openai(said) as model,
        start_other(folder, environment="development", openai_base_url=model.url, model="m") as client,
    ):
        before, kept = await run(client, agent="baker")
        edited = BAKER.replace("You are a baker.", "You are a terse baker.")
        _, tried = await run(client, agent="baker", prompt=edited, profile={"name": "Ann"})
        _, after = await run(client, agent="baker")
        told = [timeline["model_calls"][0]["request"]["instructions"] for timeline in (kept, tried, after)]
        assert ["terse" in text for text in told] == [False, True, False]
        assert ["Ann" in text for text in told] == [False, True, False]
        assert tried["turn"]["status"] == "done" and tried["routing"]["decided_by"] == "request"
        shas = [timeline["model_calls"][0]["prompt_sha"] for timeline in (kept, tried, after)]
        assert shas[0] == shas[2] != shas[1]
        # it goes on from where a turn began, and nothing is said twice
        asked = await client.ask("And in winter?", id=before["conversation_id"])
        begun, again = await run(client, message="And in summer?", after=asked["turn_id"], agent="baker")
        assert begun["turn_no"] == 2
        past = [item.get("content") for item in again["model_calls"][0]["request"]["input"]]
        assert past == [ASKED, "Two hours.", "And in summer?"]
    assert (folder / "prompts/baker.md").read_text() == BAKER


async def test_runs_are_turns_that_no_list_has(developer: Client) -> None:
    kept = await developer.ask("Does dough rise in winter?")
    runs = [(await run(developer))[0]["conversation_id"] for _ in range(3)]
    for query in ({}, {"q": "dough"}, {"q": "dough", "limit": 1}, {"limit": 1}):
        page = await developer.get("/api/conversations", **query)
        assert [each["id"] for each in page["items"]] == [kept["conversation_id"]], query
    assert [each["id"] for each in await developer.get("/dev/runs")] == runs[::-1]
    (turn,) = await developer.get(f"/dev/conversations/{runs[0]}/turns")
    assert turn == IsPartialDict(message=ASKED, status="done", agent="baker", turn_no=1)
    timeline = await developer.get(f"/dev/turns/{turn['id']}", requests=False)
    assert timeline["model_calls"][0]["request"] is None
    assert timeline["passages"][0] == IsPartialDict(document="baking/dough.md", text=IsStr(regex="(?s).*two hours.*"))
    sent = await developer.get(f"/dev/turns/{turn['id']}/calls/1")
    assert "You are a baker." in sent["instructions"]
    await send(developer, "GET", f"/dev/turns/{turn['id']}/calls/2", 404)


async def test_what_is_wrong_with_a_run_is_said_and_nothing_runs(developer: Client) -> None:
    for body, said in (
        ({"message": " "}, "message: is empty"),
        ({"agent": "butcher"}, "there is no agent"),
        ({"prompt": "You are"}, "there is no agent"),
        ({"prompt": BAKER + "{{ nothing }}"}, "line 7"),
        ({"prompt": BAKER.replace("examples", "exmples")}, "line 4: exmples: not a key"),
        ({"profile": {"x": "y" * 9000}}, "at most 8192 bytes"),
        ({"after": "00000000-0000-7000-8000-000000000007"}, "There is no"),
    ):
        response = await developer.http.post("/dev/runs", json={"message": ASKED, **body}, headers=developer.auth)
        assert response.status_code in (404, 422) and said in response.json()["detail"], response.text
    assert await developer.get("/dev/runs") == []


# --- prompts


async def test_a_saved_prompt_is_written_whole_and_answers_the_next_message(developer: Client, folder: Path) -> None:
    file = folder / "prompts/baker.md"
    file.chmod(0o640)
    view = await developer.get("/dev/agents")
    agents = {agent["name"]: agent for agent in view["agents"]}
    assert view["entry"] == "triage" and agents["triage"]["text"] is None
    baker = agents["baker"]
    assert baker == IsPartialDict(text=BAKER, file="prompts/baker.md", examples=[ASKED])
    text = BAKER.replace("You are a baker.", "You are a patient baker. Ünïcode.")
    saved = await send(developer, "PUT", "/dev/agents/baker", 200, {"text": text, "version": baker["version"]})
    assert file.read_text() == text and saved["mistakes"] == []
    assert file.stat().st_mode & 0o777 == 0o640 and len(list((folder / "prompts").iterdir())) == 3
    _, timeline = await run(developer)
    assert "patient baker" in timeline["model_calls"][0]["request"]["instructions"]

    for wrong, status in (
        ({"text": BAKER, "version": baker["version"]}, 409),  # of before
        ({"text": text + "{{ nothing }}", "version": saved["version"]}, 422),
        ({"text": BREWER, "version": saved["version"]}, 422),
        ({"text": text.replace("---\nYou", "knowledge: [nowhere]\n---\nYou"), "version": saved["version"]}, 422),
        ({"text": text + "\ud800", "version": saved["version"]}, 422),
    ):
        content = json.dumps(wrong)
        headers = {**developer.auth, "Content-Type": "application/json"}
        response = await developer.http.put("/dev/agents/baker", content=content, headers=headers)
        assert response.status_code == status, response.text
        assert file.read_text() == text
    for name in ("triage", "nobody", "..%2Fbaker"):
        await send(developer, "PUT", f"/dev/agents/{name}", 404, {"text": text, "version": saved["version"]})
    # another file is broken meanwhile: it is said, and this one is kept
    (folder / "prompts/brewer.md").write_text("no front matter")
    kept = await send(developer, "PUT", "/dev/agents/baker", 200, {"text": BAKER, "version": saved["version"]})
    assert kept["mistakes"] == [IsStr(regex="prompts/brewer.md:1: .*")]
    assert file.read_text() == BAKER


# --- cases


async def test_a_turn_becomes_a_case_that_passes_its_own_checks(developer: Client, folder: Path) -> None:
    begun, _ = await run(developer, profile={"name": "Ann"}, agent="baker")
    draft = await developer.get(f"/dev/turns/{begun['turn_id']}/case")
    assert draft["file"] == "baker.yaml" and draft["files"] == []
    case = yaml.safe_load(draft["text"])
    assert case == IsPartialDict(name=ASKED, inputs=ASKED)
    assert case["metadata"] == IsPartialDict(
        agent="baker",
        profile={"name": "Ann"},
        expect={"agent": "baker", "no_tool": True, "citations": ["baking/dough.md"]},
    )
    added = await send(developer, "POST", "/dev/cases", 201, {"file": "baker.yaml", "text": draft["text"]})
    assert added["id"] == f"evals/baker.yaml::{ASKED}"
    (found,) = load_cases([folder / "evals/baker.yaml"], load_workspace(folder))
    assert found.name == ASKED
    another = await developer.get(f"/dev/turns/{begun['turn_id']}/case")
    assert another["files"] == ["baker.yaml"] and yaml.safe_load(another["text"])["name"] != ASKED

    before = (folder / "evals/baker.yaml").read_text()
    (folder / "evals/out.yaml").symlink_to(folder / "prompts/baker.md")
    for wrong in (
        {"file": "baker.yaml", "text": draft["text"]},  # there is one of that name
        {"file": "../prompts/baker.md", "text": another["text"]},
        {"file": "out.yaml", "text": another["text"]},
        {"file": "baker.yaml", "text": "- [}"},
        {"file": "baker.yaml", "text": "just words"},
        {"file": "baker.yaml", "text": "name: x\ninputs: y\nexpect: 1"},
        {"file": "baker.yaml", "text": "a: &a [1]\nb: *a"},
    ):
        await send(developer, "POST", "/dev/cases", 422, wrong)
    assert (folder / "evals/baker.yaml").read_text() == before
    assert (folder / "prompts/baker.md").read_text() == BAKER
