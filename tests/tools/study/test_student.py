"""A student from the first question to the report, and who else gets nothing of it."""

import base64
from typing import Any

import pytest
from mcp import MCPError

from agent_server import Conflict, Forbidden, InvalidInput, NotFound
from agent_server.testing import AgentCaller, AgentServer, Call, Say, ScriptedOpenAI, mcp_client

TOPIC = "A master's in data science"
TEXT = "## Money\n\nFor London 1,529 pounds a month are shown for the visa [1]. A CAS comes first [2]."
SOURCES = ["study/visa/maintenance-funds.md", "study/visa/cas.md"]


@pytest.fixture(autouse=True)
def no_payment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRIPE_SECRET_KEY", raising=False)


async def read(caller: AgentCaller, id: str) -> str:
    """A report as MCP clients read it."""
    async with mcp_client(caller) as client:
        (contents,) = (await client.read_resource(f"reports://{id}")).contents
    assert contents.mime_type == "text/markdown"
    return getattr(contents, "text", "")


async def test_a_student_comes_with_a_question_and_leaves_with_a_report(agent_server: AgentServer) -> None:
    me = agent_server.as_caller("*")
    first = await me.chat("How much money do I need to show for a UK student visa in London?")
    assert (first.agent, [c.document for c in first.citations][:1]) == ("study", ["study/visa/maintenance-funds.md"])
    assert "1,529" in first.text

    said = {
        "Remember that I want to study data science": "update_student_profile",
        "Find master's programmes in data science": "search_programmes",
        f"Request a report about {TOPIC}": "request_report",
        "Show my reports": "list_reports",
        "Draft my report": "draft_report",
        "Read my report": "read_report",
    }
    answers = []
    for message in said:
        if message == "Draft my report":
            # Where calls of long tools go on in the background, that of the chat finds it drafted.
            drafted = await me.call("draft_report")
        answers.append(await me.chat(message, conversation=first.conversation))
    assert [[call.name for call in answer.calls] for answer in answers] == [[name] for name in said.values()]
    assert all(answer.agent == "study" for answer in answers)
    _, programmes, _, listed, _, shown = answers
    assert "Loughborough" in programmes.text and "www.lboro.ac.uk" in programmes.text
    assert "requested" in listed.text and "free of charge" in listed.text
    assert drafted["status"] == "delivered"  # it costs nothing

    report = shown.calls[0].output
    assert await read(me, report["id"]) == report["text"]
    assert report["text"].startswith(f"# {TOPIC}\n")
    assert "- Subjects: data science" in report["text"]
    assert "£28,750 for international students in 2024-25" in report["text"]  # as the data states it
    cited = drafted["sources"]
    assert len(cited) == len(set(cited)) >= 5 and all(f"[{n}]" in report["text"] for n in range(1, len(cited) + 1))
    assert all(f"({document})" in report["text"].partition("## Sources")[2] for document in cited)
    async with me.http() as http:
        by_rest = await http.post("/api/tools/read_report", json={"report": TOPIC})
    assert by_rest.json() == report

    async with mcp_client(me) as client:
        (pdf,) = (await client.read_resource(f"reports://{report['id']}/pdf")).contents
    _, file = await me.call("get_report_pdf")
    assert base64.b64decode(pdf.blob)[:5] == b"%PDF-" and file["data"] == pdf.blob  # type: ignore[union-attr]  # it has bytes

    again = await me.call("write_report", text=TEXT, sources=SOURCES)
    assert again["sources"] == cited  # drafted once
    assert (await me.call("read_report"))["text"] == report["text"]


async def test_an_agent_writes_the_report_and_cites_pages_that_are_there(
    agent_server: AgentServer, scripted_model: ScriptedOpenAI
) -> None:
    scripted_model.script = [
        Call("request_report", {"topic": TOPIC}),
        Call("write_report", {"text": TEXT.replace("[2]", "[3]"), "sources": SOURCES}),
        Call("write_report", {"text": TEXT, "sources": [SOURCES[0], "study/no-such.md"]}),
        Call("write_report", {"text": TEXT, "sources": SOURCES}),
        Say("It is delivered."),
    ]
    me = agent_server.as_caller("*")
    answer = await me.chat("Write me a report", agent="study")
    _, no_mark, no_page, drafted = answer.calls
    assert "[3] stands for nothing" in (no_mark.error or "") and "no page 'study/no-such.md'" in (no_page.error or "")
    assert (drafted.output["status"], drafted.output["sources"]) == ("delivered", SOURCES)
    text = await read(me, drafted.output["id"])
    assert TEXT in text and text.endswith("## Sources\n\n1. study/visa/maintenance-funds.md\n2. study/visa/cas.md\n")


async def test_another_student_finds_no_report_and_no_profile(agent_server: AgentServer) -> None:
    me, other = agent_server.as_caller("*"), agent_server.as_caller("*")
    report = await me.call("request_report", topic=TOPIC)
    await me.call("update_student_profile", goals="a canary of mine", level="MSc")
    await me.call("draft_report", report=report["id"])
    for name in ("read_report", "get_report_pdf", "draft_report"):
        for which in (report["id"], TOPIC, None):
            with pytest.raises(NotFound):
                await other.call(name, report=which)
    for address in (report["id"], f"{report['id']}/pdf"):
        with pytest.raises(MCPError, match="no report"):
            await read(other, address)
    assert await other.call("list_reports") == {"items": [], "next_cursor": None}
    assert (await other.call("read_student_profile"))["known"] == 0
    assert (await me.call("read_student_profile"))["level"] == "master"
    guest = agent_server.as_caller("programmes:read")
    for name in ("list_reports", "read_student_profile"):
        with pytest.raises(Forbidden):
            await guest.call(name)


@pytest.mark.parametrize(
    ("tool", "arguments", "error"),
    [
        ("update_student_profile", {}, InvalidInput),
        ("update_student_profile", {"level": "master", "forget": ["level"]}, InvalidInput),
        ("update_student_profile", {"passport": "X1"}, InvalidInput),
        ("request_report", {"topic": "x\ny"}, InvalidInput),
        ("get_programme", {"programme": "No Such Programme"}, NotFound),
        ("get_programme", {"programme": "computer"}, Conflict),
        ("read_report", {}, NotFound),
        ("pay_report", {}, Conflict),
        ("refund_report", {}, Conflict),
    ],
)
async def test_what_cannot_be_is_refused(
    agent_server: AgentServer, tool: str, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await agent_server.as_caller("*").call(tool, **arguments)


async def test_a_fee_is_stated_only_where_the_source_states_it(agent_server: AgentServer) -> None:
    me = agent_server.as_caller("programmes:read")
    stated = await me.call("get_programme", programme="university-of-manchester-machine-learning-msc")
    assert (stated["fee"], stated["deposit_pounds"]) == ("£39,400 for international students in 2026/27", 1000)
    silent = await me.call("get_programme", programme="Edinburgh Computer Science MSc")
    assert (silent["fee"], silent["check"], silent["source_date"]) == (
        None,
        "https://www.ed.ac.uk/studying",
        "2026-03-27",
    )
    found = await me.call("search_programmes", level="PhD", limit=60)
    assert found["total"] == 2 and found["known"] == 60
    assert {each["level"] for each in found["items"]} == {"doctorate"}
    here = await me.call("search_programmes", university="st andrews", city="Scotland")
    assert here["total"] == 5 and {each["city"] for each in here["items"]} == {"St Andrews"}
