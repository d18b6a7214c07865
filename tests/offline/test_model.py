"""What the offline model does in a turn, through the SDK's own run loop."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Annotated, Any

import pytest
from agents import Agent, FunctionTool, ModelSettings, RunConfig, Runner, handoff
from agents.items import ModelResponse
from agents.models.interface import ModelTracing
from agents.result import RunResultStreaming
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel, Field

from agent_server import ToolContext, tool
from agent_server.calls.forms import Form, offer_form
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.knowledge.passages import CitedPassage, Passage
from agent_server.offline.model import (
    AFTER_URGENT,
    NOTHING_FOUND,
    OfflineModel,
    OfflineTurn,
)
from agent_server.tool import Tool


class TaskView(BaseModel):
    id: str
    title: str
    due: date | None = None
    status: str = "open"


class Tasks(BaseModel):
    items: list[TaskView]


@tool(
    scope="tasks:write",
    effect="stored",
    phrases=["add {title} to my list", "add {title} by {due}", "add a task"],
)
async def create_task(context: ToolContext, title: str, due: date | None = None) -> TaskView:
    """Add a task."""
    raise NotImplementedError


@tool(scope="tasks:read", effect="read", phrases=["show my tasks"])
async def list_tasks(context: ToolContext) -> Tasks:
    """List the tasks."""
    raise NotImplementedError


@tool(
    scope="leads:write",
    effect="stored",
    form="Leave your address.",
    title="Be contacted",
    phrases=["contact me [about {interest}]"],
)
async def capture_lead(
    context: ToolContext, email: Annotated[str, Field(json_schema_extra={"format": "email"})], interest: str = ""
) -> TaskView:
    """Note who wants to be contacted."""
    raise NotImplementedError


TOOLS: Mapping[str, Tool[..., Any]] = {t.name: t for t in (create_task, list_tasks, capture_lead, offer_form)}


def make_turn(message: str, passages: Sequence[CitedPassage] = (), *, followed: str = "", **more: Any) -> OfflineTurn:
    given = {"ranked_agents": ("helper",), "tools": TOOLS, "query": f"{followed} {message}".strip()} | more
    return OfflineTurn(message=message, passages=passages, **given)


def passage(n: int, text: str, heading: str = "Kettles", score: float = 0.9) -> CitedPassage:
    return CitedPassage(
        n, Passage(str(n), "kitchen/kettles.md", "kitchen", "Kettles", heading, text, 0, len(text), score)
    )


KETTLES = passage(1, "Fill the kettle with cold water. A kettle of 1.7 litres boils in about four minutes.")


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return WordLlama()


def function_tool(name: str, output: Any, calls: list[tuple[str, Any]]) -> FunctionTool:
    async def invoke(_: Any, arguments: str) -> str:
        calls.append((name, json.loads(arguments)))
        return output if isinstance(output, str) else json.dumps(output)

    return FunctionTool(
        name=name,
        description=name,
        params_json_schema={"type": "object", "properties": {}},
        on_invoke_tool=invoke,
        strict_json_schema=False,
    )


Run = Callable[..., Any]


@pytest.fixture
def run(embedder: Embedder) -> Run:
    """Run a turn with an agent that has the given tools (name -> output); gives the answer and the calls made."""

    async def one(turn: OfflineTurn, **outputs: Any) -> tuple[str, list[tuple[str, Any]]]:
        calls: list[tuple[str, Any]] = []
        agent = Agent(
            name="helper",
            model=OfflineModel(turn, embedder),
            tools=[function_tool(name, output, calls) for name, output in outputs.items()],
        )
        result = await finished(agent, turn.message)
        return result.final_output, calls

    return one


async def finished(agent: Agent[Any], message: str) -> RunResultStreaming:
    result = Runner.run_streamed(agent, message, run_config=RunConfig(tracing_disabled=True))
    async for _ in result.stream_events():
        pass
    return result


async def test_a_message_that_is_a_phrase_calls_the_tool_and_tells_its_result(run: Run) -> None:
    answer, calls = await run(
        make_turn("Please add buy milk to my list!"),
        create_task={"id": "0199", "title": "buy milk", "due": None, "status": "open", "created_at": "2026-01-01"},
    )

    assert calls == [("create_task", {"title": "buy milk"})]
    assert answer == "Done: **buy milk**\n\n- Status: open"


async def test_a_list_is_told_as_bullets(run: Run) -> None:
    items = [
        {"id": "1", "title": "buy milk", "due": "2026-12-01", "status": "open", "tags": ["home", "food"]},
        {"id": "2", "title": "call mum", "due": None, "status": "done", "place": {"city": "Rome", "floor": 2}},
    ]

    answer, _ = await run(make_turn("show my tasks"), list_tasks={"items": items, "next_cursor": "abc"})

    assert answer == (
        "- **buy milk** · Due: 1 December 2026 · Status: open · Tags: home, food\n"
        "- **call mum** · Status: done · Place: city Rome, floor 2\n\n"
        "There are more."
    )


async def test_an_empty_list_is_said_to_be_empty(run: Run) -> None:
    answer, _ = await run(make_turn("show my tasks"), list_tasks={"items": []})

    assert answer == "There are none."


async def test_a_refusal_is_told_plainly(run: Run) -> None:
    answer, _ = await run(make_turn("add milk to my list"), create_task="conflict: there is a task 'milk' already")

    assert answer == "That did not work. There is a task 'milk' already."


async def test_a_tool_is_not_called_without_what_it_needs(run: Run) -> None:
    @tool(scope="notes:write", effect="stored", phrases=["take a note [about {subject}]"])
    async def take_note(context: ToolContext, subject: str) -> TaskView:
        """Take a note."""
        raise NotImplementedError

    answer, calls = await run(make_turn("take a note", tools={"take_note": take_note}), take_note={})

    assert (answer, calls) == ("Take note needs more: subject.", [])


async def test_a_tool_with_a_form_is_offered_as_its_form(run: Run) -> None:
    answer, calls = await run(
        make_turn("Contact me about kettles, ann@example.org"),
        capture_lead={},
        offer_form={"tool": "capture_lead", "title": "Be contacted", "fields": []},
    )

    assert calls == [
        ("offer_form", {"tool": "capture_lead", "arguments": {"email": "ann@example.org", "interest": "kettles"}})
    ]
    assert answer == "Please fill in the form “Be contacted” and send it."


async def test_the_tool_that_gives_a_form_may_have_any_name(run: Run) -> None:
    @tool(scope="forms:read", effect="read")
    async def ask_in_writing(context: ToolContext, tool: str, arguments: dict[str, str]) -> Form:
        """Show a form."""
        raise NotImplementedError

    answer, calls = await run(
        make_turn("Contact me about kettles", tools={**TOOLS, "ask_in_writing": ask_in_writing}),
        capture_lead={},
        ask_in_writing={"tool": "capture_lead", "title": "Be contacted", "fields": []},
    )

    assert [name for name, _ in calls] == ["ask_in_writing"]
    assert answer == "Please fill in the form “Be contacted” and send it."


async def test_a_tool_that_is_not_offered_is_not_called(run: Run) -> None:
    answer, calls = await run(make_turn("show my tasks"), create_task={})

    assert (answer, calls) == (NOTHING_FOUND, [])


async def test_a_question_is_answered_in_the_words_of_the_passages_with_citations(run: Run) -> None:
    answer, _ = await run(make_turn("How long does a kettle take to boil?", [KETTLES]))

    assert (
        answer
        == "From the content:\n\n> Fill the kettle with cold water. A kettle of 1.7 litres boils in about four minutes. [1]"
    )


async def test_what_no_passage_answers_is_said_to_be_missing_and_the_nearest_pages_are_offered(run: Run) -> None:
    answer, _ = await run(make_turn("Who won the football world cup in 1990?", [KETTLES]))

    assert answer == f"{NOTHING_FOUND}\n\nThe nearest pages are:\n\n- Kettles"


async def test_a_follow_up_is_understood_with_what_it_follows(run: Run) -> None:
    turn = make_turn(
        "and in winter?",
        [passage(1, "In winter a kettle takes five minutes. A pan has a lid.")],
        followed="How long does a kettle take?",
    )

    answer, _ = await run(turn)

    assert "In winter a kettle takes five minutes." in answer


async def test_emergency_advice_that_was_shown_is_not_repeated(run: Run) -> None:
    burns = passage(1, "Cool a burn under water for 20 minutes.", heading="Burns")

    answer, _ = await run(make_turn("I have a burn, what do I do?", [burns], urgent=burns.passage.text))

    assert answer == AFTER_URGENT


async def test_a_question_behind_a_greeting_is_answered_without_the_greeting(run: Run) -> None:
    plain, _ = await run(make_turn("How long does a kettle take to boil?", [KETTLES]))

    for message in ("Hi! How long does a kettle take to boil?", "thanks, how long does a kettle take to boil?"):
        assert (await run(make_turn(message, [KETTLES])))[0] == plain


async def test_a_request_behind_a_greeting_calls_the_tool(run: Run) -> None:
    _, calls = await run(make_turn("Good morning, show my tasks"), list_tasks={"items": []})

    assert calls == [("list_tasks", {})]


async def test_small_talk_is_no_answer_where_emergency_advice_was_shown(run: Run) -> None:
    assert (await run(make_turn("Thanks!", urgent="Cool the burn.")))[0] == AFTER_URGENT


async def test_triage_hands_off_once_to_the_agent_that_is_most_likely_meant(embedder: Embedder) -> None:
    turn = make_turn("How long does a kettle take to boil?", ranked_agents=["kitchen", "garden"])
    garden, kitchen = (Agent(name=name, model=OfflineModel(turn, embedder)) for name in ("garden", "kitchen"))
    garden.handoffs = [handoff(kitchen)]
    kitchen.handoffs = [handoff(garden)]
    triage = Agent(name="triage", model=OfflineModel(turn, embedder), handoffs=[handoff(garden), handoff(kitchen)])

    result = await finished(triage, turn.message)

    assert result.last_agent is kitchen
    assert result.final_output == NOTHING_FOUND
    assert [item.type for item in result.new_items] == [
        "handoff_call_item",
        "handoff_output_item",
        "message_output_item",
    ]


async def test_an_agent_with_passages_or_a_tool_for_it_keeps_the_message(embedder: Embedder) -> None:
    for turn in (
        make_turn("How long does a kettle take to boil?", [KETTLES], ranked_agents=["kitchen"]),
        make_turn("show my tasks", ranked_agents=["kitchen"]),
    ):
        kitchen = Agent(name="kitchen", model=OfflineModel(turn, embedder))
        agent = Agent(
            name="helper",
            model=OfflineModel(turn, embedder),
            tools=[function_tool("list_tasks", {"items": []}, [])],
            handoffs=[handoff(kitchen)],
        )

        assert (await finished(agent, turn.message)).last_agent is agent


async def test_an_earlier_turn_does_not_count_as_this_one(embedder: Embedder) -> None:
    turn = make_turn("show my tasks")
    earlier: list[Any] = [
        {"role": "user", "content": "add milk to my list"},
        {"type": "function_call", "call_id": "call_1", "name": "create_task", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "{}"},
        {"role": "user", "content": turn.message},
    ]

    response = await respond(OfflineModel(turn, embedder), earlier, [function_tool("list_tasks", {}, [])])

    assert [(item.type, getattr(item, "name", None)) for item in response.output] == [("function_call", "list_tasks")]


async def respond(model: OfflineModel, input: Any, tools: Sequence[FunctionTool] = ()) -> ModelResponse:
    return await model.get_response(None, input, ModelSettings(), list(tools), None, [], ModelTracing.DISABLED)


async def test_the_same_input_gives_the_same_response_and_another_input_other_ids(embedder: Embedder) -> None:
    model = OfflineModel(make_turn("How long does a kettle take to boil?", [KETTLES]), embedder)

    first, again, other = [await respond(model, text) for text in ("a", "a", "b")]

    assert first == again
    assert first.response_id != other.response_id
    assert first.usage.total_tokens == 0


async def test_text_is_streamed_word_by_word_in_the_order_of_the_protocol(embedder: Embedder) -> None:
    turn = make_turn("How long does a kettle take to boil?", [KETTLES])
    stream = OfflineModel(turn, embedder, words_per_second=10_000).stream_response(
        None, turn.message, ModelSettings(), [], None, [], ModelTracing.DISABLED
    )

    events = [event async for event in stream]

    deltas = [event.delta for event in events if isinstance(event, ResponseTextDeltaEvent)]
    assert (
        "".join(deltas)
        == "From the content:\n\n> Fill the kettle with cold water. A kettle of 1.7 litres boils in about four minutes. [1]"
    )
    assert len(deltas) == 21
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events if event.type != "response.output_text.delta"] == [
        "response.created",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


async def test_what_is_found_further_away_is_quoted_where_it_answers(run: Run) -> None:
    async def find_more(_: str) -> Sequence[CitedPassage]:
        return [KETTLES, passage(2, "A samovar takes twenty minutes to boil.", "Samovars", 0.2)]

    answer, _ = await run(make_turn("How long does a samovar take to boil?", [KETTLES], find_more=find_more))

    assert "A samovar takes twenty minutes to boil. [2]" in answer


async def test_what_is_found_further_away_takes_no_answer_away(run: Run) -> None:
    async def find_more(_: str) -> Sequence[CitedPassage]:
        return [passage(2, "Pans have lids.", "Pans", 0.2)]

    turn = make_turn("How long does a kettle take to boil?", [KETTLES], find_more=find_more)

    answer, _ = await run(turn)

    assert "[1]" in answer
