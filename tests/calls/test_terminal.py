"""What a tool asks and tells whoever calls it on the command line."""

import io
from typing import Literal

import pytest
from pydantic import BaseModel

from agent_server import Accepted, ToolContext, tool
from agent_server.caller import Caller
from agent_server.calls.call import Runtime, call_tool
from agent_server.commands.inquiries import put_inquiry, show_call
from agent_server.db import Database
from agent_server.questions import Answers, Asked, Inquiry, Reply, form_schema
from agent_server.settings import load_settings


class Fins(BaseModel):
    """What fits."""

    size: int
    color: Literal["red", "blue"] = "red"
    long: bool
    name: str | None = None
    extras: list[Literal["bag", "strap"]] = []


@tool(scope="fins:read", effect="read")
async def choose(context: ToolContext) -> str:
    """Choose fins."""
    await context.report_progress(1, 2, "Looking")
    await context.log("There are some")
    await context.log("37 rows", level="debug")
    answer = await context.ask("Which ones?", Fins)
    return f"{answer.data.color} {answer.data.size}" if isinstance(answer, Accepted) else "none"


ASKED = Inquiry("Which ones?", form_schema(Fins))


@pytest.mark.parametrize(
    ("typed", "reply"),
    [
        ("42\nblue\ny\nAda\nbag, strap\n", {"size": 42, "color": "blue", "long": True, "name": "Ada", "extras": ["bag", "strap"]}),
        ("\nlarge\n42\ngreen\n\nperhaps\nno\n\n\n", {"size": 42, "long": False}),
        ("42\n", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_form_is_asked_for_line_by_line(
    monkeypatch: pytest.MonkeyPatch, typed: str, reply: dict[str, object] | None
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert put_inquiry(ASKED) == (Reply("cancel") if reply is None else Reply("accept", reply))


@pytest.mark.parametrize(("typed", "action"), [("y\n", "accept"), ("n\n", "decline"), ("", "decline")])
def test_an_address_is_opened_after_a_yes(monkeypatch: pytest.MonkeyPatch, typed: str, action: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert put_inquiry(Inquiry("Pay there", url="https://bank.example")).action == action


async def test_a_call_tells_how_far_it_is_on_standard_error(
    database: Database, me: Caller, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = Runtime(settings=load_settings(environment="test"), database=database)
    answers = Answers(key="k", can=frozenset({"forms"}))
    with show_call("Choose") as listener, pytest.raises(Asked) as asked:
        await call_tool(runtime, choose, {}, caller=me, surface="cli", listener=listener, answers=answers)
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "Looking: 1 of 2\nThere are some\n")
    answers = asked.value.answers.add(asked.value.inquiries[0], Reply("accept", {"size": 42, "long": True}))
    assert await call_tool(runtime, choose, {}, caller=me, surface="cli", answers=answers) == "red 42"
