"""What a phrase matches, what it takes out of the message, and what is wrong with a bad one."""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agent_server import ToolContext, tool
from agent_server.phrases import match, template_problems
from agent_server.tool import Tool

Email = Annotated[str, Field(pattern=r"^\S+@\S+$", json_schema_extra={"format": "email"})]
WORDS = [
    "add",
    "show",
    "my",
    "tasks",
    "to",
    "list",
    "remind",
    "me",
    "on",
    "a@b.co",
    "please",
    "{x}",
    "[",
    "3",
    '"',
    "(",
    ".",
]


class Done(BaseModel):
    said: str = ""


@tool(
    scope="tasks:write",
    effect="stored",
    phrases=["add {title} [to my [list|to-do list|tasks]]", "remind me to {title} [on {due}]", "note that {title}"],
)
async def create_task(context: ToolContext, title: str, due: date | None = None) -> Done:
    """Add a task."""
    return Done()


@tool(
    scope="tasks:read",
    effect="read",
    phrases=["show [me] my [{status}] tasks", "what is on my list", "[list|show] tasks"],
)
async def list_tasks(context: ToolContext, status: Literal["open", "done"] = "open") -> Done:
    """List the tasks."""
    return Done()


@tool(scope="tasks:read", effect="read", phrases=["show {title}", "show task {number}"])
async def show_task(context: ToolContext, title: str = "", number: int = 0) -> Done:
    """Show one task."""
    return Done()


@tool(
    scope="leads:write",
    effect="stored",
    form="Leave your address, and a person will get in touch with you.",
    phrases=[
        "have someone write to me [about {interest}]",
        "contact me about {interest}",
        "write to {email} about {interest}",
    ],
)
async def capture_lead(context: ToolContext, email: Email, interest: str = "") -> Done:
    """Note who wants to be contacted."""
    return Done()


TOOLS: Sequence[Tool[..., Any]] = (create_task, list_tasks, show_task, capture_lead)


def found(message: str, *tools: Tool[..., Any]) -> tuple[str, dict[str, str]] | None:
    matched = match(message, tools or TOOLS)
    return (matched.tool.name, matched.arguments) if matched else None


@pytest.mark.parametrize(
    ("message", "name", "arguments"),
    [
        ("add buy milk to my list", "create_task", {"title": "buy milk"}),
        ("ADD   Buy milk,  to my to-do list!", "create_task", {"title": "Buy milk"}),
        (
            'Could you please add "service my regulator" to my tasks? Thanks!',
            "create_task",
            {"title": "service my regulator"},
        ),
        ("add fins (blue, -20 %) to my list", "create_task", {"title": "fins (blue, -20 %)"}),
        ("I'd like you to add 'why do fish sleep?'", "create_task", {"title": "why do fish sleep?"}),
        ("what’s this: note that it's late", None, None),
        ("Note that it’s late.", "create_task", {"title": "it’s late"}),
        ("what is on my list?", "list_tasks", {}),
        ("Hey, can you show me my tasks, please", "list_tasks", {}),
        ("show my Done tasks", "list_tasks", {"status": "done"}),
        ("show task 3", "show_task", {"number": "3"}),
    ],
)
def test_a_message_that_is_a_phrase_names_the_tool_and_its_arguments(
    message: str, name: str | None, arguments: dict[str, str] | None
) -> None:
    assert found(message) == ((name, arguments) if name else None)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("ＡＤＤ　milk　to　my　list", {"title": "milk"}),
        ("add Ｍｉｌｋ to my list", {"title": "Ｍｉｌｋ"}),
        ("re\u200bmind\xa0me\u2003to call Zo\u0065\u0308", {"title": "call Zo\u0065\u0308"}),
        ("I\u02bcd like to add milk", {"title": "milk"}),
        ("I´d like to add Ann’s fins\u200b", {"title": "Ann’s fins"}),
        ("\ufeffadd 牛乳 please", {"title": "牛乳"}),
    ],
)
def test_the_spelling_does_not_matter_and_an_argument_stays_as_it_was_written(
    message: str, arguments: dict[str, str]
) -> None:
    assert found(message, create_task, list_tasks) == ("create_task", arguments)


def test_the_whole_message_must_be_the_phrase() -> None:
    assert found("what is on my list of dive sites in Malta") is None
    assert found("Tell me what is on my list") is None


def test_the_phrase_with_the_most_words_of_its_own_wins() -> None:
    assert found("show my tasks") == ("list_tasks", {})
    assert found("show the fins") == ("show_task", {"title": "the fins"})


def test_two_tools_that_fit_equally_well_are_no_match() -> None:
    @tool(scope="tasks:write", effect="stored", phrases=["note that {text}"])
    async def write_note(context: ToolContext, text: str) -> Done:
        """Write a note."""
        return Done()

    assert found("note that the tide turns", write_note) == ("write_note", {"text": "the tide turns"})
    assert found("note that the tide turns", write_note, create_task) is None


def test_an_argument_must_be_valid_for_the_tool() -> None:
    assert found("remind me to call mum on 2026-12-01") == ("create_task", {"title": "call mum", "due": "2026-12-01"})
    assert found("remind me to call mum on Friday") == ("create_task", {"title": "call mum on Friday"})
    assert found("show task three") == ("show_task", {"title": "task three"})


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (
            "Please have someone write to me about the Red Sea, diver@example.com",
            {"interest": "the Red Sea", "email": "diver@example.com"},
        ),
        (
            "My e-mail is anna@example.org, contact me about the Galapagos",
            {"interest": "the Galapagos", "email": "anna@example.org"},
        ),
        (
            "have someone write to me at kim.b+dive@example.net about two weeks in Palau.",
            {"interest": "two weeks in Palau", "email": "kim.b+dive@example.net"},
        ),
        ("write to kim@example.net about Malta", {"interest": "Malta", "email": "kim@example.net"}),
        ("Have someone write to me", {}),
    ],
)
def test_an_address_is_taken_from_anywhere_in_the_message(message: str, arguments: dict[str, str]) -> None:
    assert found(message) == ("capture_lead", arguments)


@pytest.mark.parametrize(
    ("phrase", "problem"),
    [
        ("add {titel}", "create_task has no argument 'titel'; it has title, due"),
        ("add [{title}", "a [ without its ]"),
        ("add {title}]", "a ] without its ["),
        ("add {title", "a { without its other half"),
        ("add {title} | note {title}", "| stands between alternatives inside [ ]"),
        ("[add] {title}", "needs a word outside of [ ] and { }, else it would match nearly everything"),
        ("add {title} {due}", "two arguments stand side by side; put a word between them"),
        ("add [a||b] {title}", "an alternative in [] is empty"),
        ("add a task", "leaves out title, without which create_task cannot be called"),
    ],
)
def test_a_bad_phrase_is_named_with_what_is_wrong_and_never_matches(phrase: str, problem: str) -> None:
    bad = tool(scope="tasks:write", effect="stored", phrases=[phrase])(create_task.function)

    assert template_problems(bad)[0] == f"phrase {phrase!r}: {problem}"
    assert found(phrase, bad) is None


def test_good_phrases_have_no_problems() -> None:
    assert [template_problems(each) for each in TOOLS] == [[], [], [], []]


@given(st.text() | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_no_message_breaks_it(message: str) -> None:
    matched = match(message, TOOLS)

    assert matched is None or matched.tool.validate(
        {"email": "a@b.co", **matched.arguments} if matched.tool.form else matched.arguments
    )
