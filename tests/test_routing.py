"""Which agent takes a message, and how sure the router is, in a small workspace of its own."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from agent_server import ToolContext, tool
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.routing import Decision, RoutedAgent, Router, Subject, build_router, subjects

BREAD = RoutedAgent(
    "bread",
    "Takes baking: bread, dough, yeast, ovens and flour.",
    [
        "How long should dough rise?",
        "Why is my loaf so dense?",
        "Which flour is best for baguettes?",
        "How hot must the oven be for bread?",
        "Can I freeze sourdough starter?",
        "What does yeast do?",
        "How do I knead wet dough?",
        "My crust is too hard",
        "Recipe for rye bread",
        "Do I need a baking stone?",
    ],
    ["baking"],
)
BIKES = RoutedAgent(
    "bikes",
    "Takes bicycles: repairs, tyres, brakes, gears and chains.",
    [
        "How do I patch a tube?",
        "My brakes squeal",
        "Which tyre pressure for gravel?",
        "How often should I oil the chain?",
        "The gears skip when I pedal hard",
        "How do I adjust a derailleur?",
        "What size of frame do I need?",
        "My wheel is out of true",
        "Disc or rim brakes?",
        "How do I fit mudguards?",
    ],
    ["workshop"],
)
NOTES = RoutedAgent("notes", "Keeps the user's notes: writing, reading and deleting notes.")
CONTENT = [
    Subject("baking", "Bread Storing a loaf", "Keep a loaf in a paper bag. Croissants go stale within a day."),
    Subject("workshop", "Bicycles Spokes", "A broken spoke makes the rim wobble. Tighten the nipple a quarter turn."),
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return WordLlama()


@pytest.fixture(scope="module")
async def router(embedder: Embedder) -> Router:
    return await build_router(embedder, [BREAD, BIKES, NOTES], CONTENT)


def chosen(decision: Decision) -> tuple[str, str]:
    return decision.agent, decision.decided_by


async def test_a_message_goes_to_the_agent_that_is_surely_meant(router: Router) -> None:
    assert chosen(await router.decide("How long must bread dough rise in a cold kitchen?", None)) == (
        "bread",
        "meaning",
    )
    assert chosen(await router.decide("My bicycle chain and brakes need oil", None)) == ("bikes", "meaning")


async def test_an_example_in_other_letters_and_signs_is_certain(router: Router) -> None:
    decision = await router.decide("my BRAKES squeal!!", None)

    assert (chosen(decision), decision.confidence) == (("bikes", "meaning"), 0.99)


async def test_what_the_content_says_counts_where_the_examples_are_silent(router: Router) -> None:
    assert (await router.rank("How do I store croissants?"))[0].name == "bread"
    assert (await router.rank("tighten a spoke nipple"))[0].name == "bikes"


async def test_what_nobody_takes_is_left_to_the_model(router: Router) -> None:
    for message in ("Who won the world cup in 1990?", "Should I invest in bitcoin?", "", "???", "Привет, как дела?"):
        assert (await router.decide(message, None)).decided_by == "model"


async def test_an_agent_without_examples_is_known_by_its_description(router: Router) -> None:
    assert (await router.rank("Delete the notes I keep"))[0].name == "notes"


async def test_a_single_agent_takes_everything(embedder: Embedder) -> None:
    assert chosen(await (await build_router(embedder, [BREAD])).decide("How do I patch a tube?", None)) == (
        "bread",
        "only",
    )


async def test_a_message_that_is_a_phrase_of_its_tool_goes_to_the_only_agent_that_has_it(embedder: Embedder) -> None:
    class Note(BaseModel):
        text: str

    @tool(scope="notes:write", effect="stored", phrases=["write down {text}"])
    async def write_note(context: ToolContext, text: str) -> Note:
        """Write a note."""
        raise NotImplementedError

    notes = RoutedAgent(NOTES.name, NOTES.description, tools=[write_note])
    asked = "Please write down: oil the chain and the brakes of the bicycle"

    router = await build_router(embedder, [BREAD, BIKES, notes])
    assert chosen(await router.decide(asked, None)) == ("notes", "meaning")
    bikes = RoutedAgent(BIKES.name, BIKES.description, BIKES.examples, tools=[write_note])
    router = await build_router(embedder, [BREAD, bikes, notes])
    assert (await router.rank(asked))[0].name == "bikes"


@pytest.mark.parametrize("message", ["and in winter?", "yes please", "what about the other one?", "why?", "how long?"])
async def test_a_short_follow_up_stays_with_the_agent_of_the_last_answer(router: Router, message: str) -> None:
    assert chosen(await router.decide(message, "bikes")) == ("bikes", "sticky")
    assert chosen(await router.decide(message, "bread")) == ("bread", "sticky")


async def test_a_clear_change_of_subject_leaves_the_last_agent(router: Router) -> None:
    assert chosen(await router.decide("Which flour is best for rye bread?", "bikes")) == ("bread", "meaning")


async def test_an_agent_that_is_gone_does_not_hold_the_conversation(router: Router) -> None:
    assert (await router.decide("and in winter?", "gardening")).decided_by == "model"


async def test_two_agents_with_a_description_only_are_enough(embedder: Embedder) -> None:
    router = await build_router(
        embedder, [RoutedAgent("bread", BREAD.description), RoutedAgent("bikes", BIKES.description)]
    )

    assert [(await router.rank(m))[0].name for m in ("yeast dough", "squealing brakes")] == ["bread", "bikes"]


def test_the_sections_of_a_content_folder_are_its_subjects(tmp_path: Path) -> None:
    (tmp_path / "baking").mkdir()
    (tmp_path / "baking" / "bread.md").write_text("# Bread\n\n## Storing\n\nKeep it in a paper bag.\n")
    (tmp_path / "baking" / "broken.md").write_text("---\nurgent: 7\n---\n# Broken\n\nA mistake.\n")
    (tmp_path / "baking" / "long.docx").write_bytes(b"not even looked at")

    assert [(s.collection, s.heading) for s in subjects(tmp_path)] == [("baking", "Bread")]


@settings(deadline=None)
@given(message=st.text(max_size=200))
async def test_any_message_is_ranked_with_confidences_that_add_up_to_at_most_one(router: Router, message: str) -> None:
    ranked = await router.rank(message)

    assert {r.name for r in ranked} == {"bread", "bikes", "notes"}
    assert all(r.confidence >= 0 for r in ranked)
    assert sum(r.confidence for r in ranked) <= 1.0001
    assert [r.confidence for r in ranked] == sorted((r.confidence for r in ranked), reverse=True)


UNKNOWN_WORDS = ["zorblat", "quimby frell", "wuzzle snark gribble"]


@pytest.mark.parametrize("message", UNKNOWN_WORDS)
async def test_a_message_without_any_known_word_keeps_the_order_of_its_scores(embedder: Embedder, message: str) -> None:
    """The order in which agents are declared, or their names, decide nothing."""
    ahead = await build_router(embedder, [BREAD, BIKES, NOTES], CONTENT)
    back = await build_router(embedder, [NOTES, BIKES, BREAD], CONTENT)

    assert [r.name for r in await ahead.rank(message)] == [r.name for r in await back.rank(message)]
    assert (await ahead.decide(message, None)).decided_by == "model"


@pytest.mark.parametrize(
    "message", ["why is my loaff so dence", "wich flowr is best for bagettes", "frezing sourdoh startr"]
)
async def test_a_misspelt_message_finds_its_agent(router: Router, message: str) -> None:
    assert (await router.rank(message))[0].name == "bread"


@pytest.mark.parametrize(
    "message",
    [
        "how much does it cost?",
        "is it difficult",
        "how long does that take",
        "can I do it myself",
        "what are the alternatives",
        "does it work in the rain?",
        "show me an example",
        "is there a cheaper one",
    ],
)
async def test_a_question_about_what_was_spoken_of_stays_with_its_agent(router: Router, message: str) -> None:
    for agent in ("bikes", "bread", "notes"):
        assert chosen(await router.decide(message, agent)) == (agent, "sticky")


async def test_two_examples_make_nobody_sure(embedder: Embedder) -> None:
    """With few examples nothing says how far the scores can be trusted."""
    agents = [RoutedAgent(agent.name, agent.description.split(":")[0], agent.examples[:2]) for agent in (BREAD, BIKES)]
    router = await build_router(embedder, agents)

    for message in ("Who won the world cup in 1990?", "Should I invest in bitcoin?", "Is the moon made of cheese?"):
        assert (await router.decide(message, None)).decided_by == "model"


HOUSE = RoutedAgent(
    "house",
    "Looks after the house.",
    [
        "Dim the lights in the hall",
        "What is on the shopping list?",
        "Play some jazz",
        "Is the front door locked?",
        "Vacuum upstairs",
        "Make the bedroom warmer",
        "Who rang the bell?",
        "Start the washing machine",
        "Feed the cat at six",
        "Water the ferns",
    ],
)
OFFICE = RoutedAgent(
    "office",
    "Takes what has to do with work.",
    [
        "When is payday?",
        "Book a meeting room for Tuesday",
        "I am ill today",
        "Where do I get my tax form?",
        "How many days of holiday are left?",
        "Order a new keyboard",
        "The printer jams",
        "Who is my manager now?",
        "Change my password",
        "Claim a train ticket",
    ],
)


async def test_examples_that_have_nothing_in_common_make_sure_of_messages_like_one_of_them(embedder: Embedder) -> None:
    """None of them is found by the others. A message like one of them is."""
    router = await build_router(embedder, [HOUSE, OFFICE])

    assert chosen(await router.decide("Please lock the front door", None)) == ("house", "meaning")
    assert chosen(await router.decide("Book the meeting room for Friday", None)) == ("office", "meaning")
    assert (await router.decide("What is the capital of Peru?", None)).decided_by == "model"


async def test_of_two_agents_with_the_same_examples_neither_is_sure(embedder: Embedder) -> None:
    twin = RoutedAgent("velos", "Takes bikes.", ["How do I mend a tube?", "The brakes squeal", *BIKES.examples[2:]])
    router = await build_router(embedder, [BIKES, twin, BREAD])

    for message in ("how can I patch the tube of my bike?", "why do my brakes squeal so loudly", "oil for the chain"):
        assert (await router.decide(message, None)).decided_by == "model"
