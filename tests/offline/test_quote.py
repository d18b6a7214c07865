"""Which sentences are quoted for a question, and how a quotation looks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.knowledge.passages import CitedPassage, Passage
from agent_server.knowledge.rarity import Rarity
from agent_server.knowledge.words import stem
from agent_server.offline.quote import select


def passage(n: int, heading: str, text: str, score: float = 0.9) -> CitedPassage:
    title = heading.partition(" > ")[0]
    return CitedPassage(n, Passage(str(n), f"kitchen/{n}.md", "kitchen", title, heading, text, 0, len(text), score))


KETTLES = passage(
    1,
    "Kettles > Boiling",
    "## Boiling\n\nA kettle of **1.7 litres** boils in about [four minutes](times.md). Water that is boiled again tastes "
    "flat. Fill a kettle, e.g. a steel one, with cold water only.",
)
SCALE = passage(
    2,
    "Kettles > Removing lime",
    "To remove lime from a kettle:\n\n1. Fill it with water and vinegar.\n2. Wait for one hour.\n3. Rinse it twice.\n\n"
    "Lime is harmless to people.",
)
SIZES = passage(
    3,
    "Kettles > Sizes",
    "| Kettle | Litres | Watts |\n|---|---|---|\n| Travel kettle | 0.5 | 700 |\n| Family kettle | 1.7 | 2,200 |\n",
)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return WordLlama()


async def answer(question: str, *passages: CitedPassage, embedder: Embedder, context: str = "") -> str | None:
    found = await select(question, passages, embedder, context=context)
    return found.text if found else None


async def test_the_section_that_answers_is_quoted_without_markup_below_its_headings_and_cited(
    embedder: Embedder,
) -> None:
    found = await select("How long does a kettle take to boil?", [KETTLES], embedder)

    assert found is not None
    assert found.text == (
        "From the content:\n\n> **Kettles › Boiling**\n>\n> A kettle of 1.7 litres boils in about four minutes. "
        "Water that is boiled again tastes flat. Fill a kettle, e.g. a steel one, with cold water only. [1]"
    )
    assert found.cited == (1,)


async def test_a_numbered_list_is_quoted_whole_with_its_lead_in(embedder: Embedder) -> None:
    text = await answer("How do I remove lime from my kettle?", KETTLES, SCALE, embedder=embedder)

    assert text is not None
    assert text.startswith(
        "From the content:\n\n"
        "> **Kettles › Removing lime**\n>\n"
        "> To remove lime from a kettle:\n>\n"
        "> 1. Fill it with water and vinegar.\n> 2. Wait for one hour.\n> 3. Rinse it twice."
    )


async def test_a_table_row_is_written_out_with_the_names_of_its_columns(embedder: Embedder) -> None:
    assert await answer("How many watts does a travel kettle have?", SIZES, embedder=embedder) == (
        "From the content:\n\n> **Kettles › Sizes**\n>\n"
        "> - Travel kettle: Litres: 0.5; Watts: 700\n> - Family kettle: Litres: 1.7; Watts: 2,200 [3]"
    )


async def test_each_part_of_a_question_is_answered_by_itself(embedder: Embedder) -> None:
    text = await answer(
        "How long does a kettle take to boil, and how many watts does the travel kettle have?",
        KETTLES,
        SIZES,
        embedder=embedder,
    )

    assert text is not None
    first, _, second = text.partition("**How many watts does the travel kettle have?**")
    assert first.startswith("From the content:\n\n**How long does a kettle take to boil?**\n\n> **Kettles › Boiling**")
    assert "> - Travel kettle: Litres: 0.5; Watts: 700" in second
    assert "[1]" in first
    assert "[3]" in second


async def test_a_part_that_nothing_answers_is_said_to_be_unanswered(embedder: Embedder) -> None:
    text = await answer("How long does a kettle take to boil? Who painted the Mona Lisa?", KETTLES, embedder=embedder)

    assert text is not None
    assert text.endswith("**Who painted the Mona Lisa?**\n\nThe content has nothing on this.")


@pytest.mark.parametrize(
    "question",
    ["Who won the football world cup in 1990?", "What does a kettle cost?", "Translate this into Japanese", "", "?!"],
)
async def test_what_the_passages_do_not_answer_is_no_answer(embedder: Embedder, question: str) -> None:
    assert await answer(question, KETTLES, SCALE, SIZES, embedder=embedder) is None


async def test_without_passages_there_is_no_answer(embedder: Embedder) -> None:
    assert await answer("How long does a kettle take to boil?", embedder=embedder) is None


async def test_nearly_the_same_sentence_is_quoted_once(embedder: Embedder) -> None:
    again = passage(4, "Kettles", "A kettle of 1.7 litres boils in four minutes.", score=0.8)

    found = await select("How long does a kettle take to boil?", [KETTLES, again], embedder)

    assert found is not None
    assert len(found.cited) == 1


async def test_a_number_within_a_range_is_found(embedder: Embedder) -> None:
    suits = passage(1, "Tea", "Water of 70 to 80 degrees is for green tea. Water of 90 to 98 degrees is for black tea.")

    assert await answer("Which tea takes 75 degree water?", suits, embedder=embedder) == (
        "From the content:\n\n> Water of 70 to 80 degrees is for green tea. Water of 90 to 98 degrees is for black tea. [1]"
    )


async def test_a_follow_up_is_read_with_what_it_follows(embedder: Embedder) -> None:
    cold = passage(1, "Kettles", "A kettle takes five minutes in winter. A pan takes nine minutes in winter.")

    text = await answer("and in winter?", cold, embedder=embedder, context="How long does a pan take to boil?")

    assert text is not None
    assert "A pan takes nine minutes in winter. [1]" in text


async def test_code_is_quoted_whole_when_the_question_is_about_usage(embedder: Embedder) -> None:
    usage = passage(
        1,
        "Client > Connecting",
        "Connect the client like this:\n\n```python\nclient = Client()\n\nclient.connect()\n```\n",
    )

    assert await answer("How do I connect the client?", usage, embedder=embedder) == (
        "From the content:\n\n"
        "> **Client › Connecting**\n>\n"
        "> Connect the client like this:\n>\n> ```python\n> client = Client()\n>\n> client.connect()\n> ```\n>\n> [1]"
    )


async def test_an_abbreviation_does_not_end_a_sentence(embedder: Embedder) -> None:
    text = await answer("What kind of water do I fill a kettle with?", KETTLES, embedder=embedder)

    assert text is not None
    assert "Fill a kettle, e.g. a steel one, with cold water only." in text


def test_forms_of_a_word_have_one_stem() -> None:
    for forms in (("boil", "boils", "boiled", "boiling"), ("fly", "flies", "flying"), ("octopus", "octopuses")):
        assert len({stem(form) for form in forms}) == 1


@settings(deadline=None)
@given(question=st.text(max_size=120), text=st.text(alphabet=st.sampled_from("ab1 .|-#>*`[]()\n:?"), max_size=200))
async def test_any_question_and_any_markdown_are_survived(question: str, text: str) -> None:
    found = await select(question, [passage(1, "A > B", text)], _EMBEDDER)

    assert found is None or found.cited == (1,)


_EMBEDDER = WordLlama()


async def test_a_heading_that_forbids_stands_above_its_items(embedder: Embedder) -> None:
    rules = passage(
        1, "Side work", "## Not OK\n\n1. You can't work for a rival.\n2. Be loud in selling your side work.\n"
    )

    text = await answer("May I sell my side work loudly?", rules, embedder=embedder)

    assert text is not None
    assert text.index("Not OK") < text.index("Be loud in selling")


async def test_a_list_comes_with_the_sentence_that_leads_to_it_and_the_one_that_goes_on(embedder: Embedder) -> None:
    page = passage(
        1, "Refunds", "For a refund you can ask for either:\n\n- money\n- a voucher\n\nby sending a request.\n"
    )

    text = await answer("What can I ask for as a refund?", page, embedder=embedder)

    assert text is not None
    assert [line in text for line in ("ask for either:", "- money", "- a voucher", "by sending a request. [1]")] == [
        True
    ] * 4


async def test_sub_headings_that_are_the_steps_come_with_their_lead_in(embedder: Embedder) -> None:
    page = passage(
        1,
        "Travel > Booking a trip",
        "## Booking a trip\n\nTo book a trip follow the steps below:\n\n### 1. Call the desk\n\nDial 5.\n\n### 2. Pay\n\nBy card.\n",
    )

    text = await answer("How do I book a trip?", page, embedder=embedder)

    assert text is not None
    assert [step in text for step in ("1. Call the desk", "Dial 5.", "2. Pay", "By card. [1]")] == [True] * 4


async def test_a_quote_stays_short_and_whole_where_its_section_is_long(embedder: Embedder) -> None:
    sentences = [
        f"Rule {n} of the kettle says that number {n} is checked on every day of the week." for n in range(1, 40)
    ]
    page = passage(1, "Rules", " ".join(sentences))

    text = await answer("What does rule 20 of the kettle say?", page, embedder=embedder)

    assert text is not None
    assert sentences[19] in text
    assert len(text) <= 900


async def test_a_question_of_how_many_is_answered_with_a_number_of_what_it_names(embedder: Embedder) -> None:
    filler = "Write down all that is wrong, with the time that it would take. " * 2
    steps = [*(f"{n}. Look at part {n} for {n} hours. {filler}" for n in range(1, 9)), "9. Ask three to five people."]
    review = passage(1, "Reviews > How to do it", "## How to do it\n\n" + "\n".join(steps))
    found = await answer("How many people should do a review of the site?", review, embedder=embedder)
    assert found is not None
    assert "three to five people" in found


async def test_the_second_best_section_follows_and_both_have_1200_characters_at_most(embedder: Embedder) -> None:
    first = passage(1, "Kettles > Lime", "## Lime\n\n" + "Remove the lime of a kettle with vinegar. " * 30)
    second = passage(2, "Pots > Lime", "## Lime\n\n" + "Lime in a pot is removed with the juice of a lemon. " * 30, 0.8)
    found = await select("How do I remove lime from a kettle?", [first, second], embedder)
    assert found is not None
    assert found.cited == (1, 2)
    assert len(found.text) <= 1200


async def test_a_question_in_other_words_than_the_page_is_answered(embedder: Embedder) -> None:
    leave = passage(1, "Free time", "Everybody has 28 days of holiday a year.", 0.3)
    found = await answer("How many days of vacation do I get?", leave, embedder=embedder)
    assert found is not None
    assert "28 days" in found


async def test_german_content_answers_in_german(embedder: Embedder) -> None:
    flight = passage(1, "Nach dem Tauchen", "Warte nach einem Tauchgang zwölf Stunden, bevor du fliegst.", 0.4)
    found = await answer("Wann darf ich nach dem Tauchen fliegen?", flight, embedder=embedder)
    assert found is not None
    assert "zwölf Stunden" in found


@pytest.mark.parametrize(("size", "enough"), [(20, True), (20_000, False)])
async def test_a_word_that_is_missing_counts_more_in_a_large_content(
    embedder: Embedder, size: int, enough: bool
) -> None:
    taxi = passage(1, "Business travel", "A taxi is paid back after 22:00 only.", 0.35)
    rarity = Rarity(size, {"taxi": 1, "suitcase": 0})
    found = await select("May I take a taxi with a suitcase?", [taxi], embedder, rarity=rarity)
    assert (found is not None) == enough


async def test_the_room_that_short_sections_leave_is_filled_with_more_of_the_page(embedder: Embedder) -> None:
    sections = [
        "## Cleaning a kettle\n\nWipe the outside of a kettle with a damp cloth, and never put it under the tap.\n",
        "## Storing a kettle\n\nKeep the kettle dry on its base, with the lid open until no drops are left in it.\n",
        "## Mending a kettle\n\nTake a broken kettle to the shop: who opens the bottom loses the warranty.\n",
    ]
    found = await answer("How do I care for a kettle?", passage(1, "Care", "\n".join(sections)), embedder=embedder)
    assert found is not None
    assert [text in found for text in ("damp cloth", "lid open", "warranty")] == [True] * 3


FILLER = "Look at the kettle from all sides, and write down in the book of the kitchen what you have seen of it."


async def test_a_nested_item_is_quoted_with_the_item_that_it_stands_under(embedder: Embedder) -> None:
    items = "\n".join(f"- {FILLER}" for _ in range(8))
    rules = f"## Lime\n\nRules:\n\n{items}\n- Never do this:\n{items.replace('- ', '   - ')}\n   - scrape the lime of a steel kettle off with a knife\n"
    found = await answer(
        "Can I scrape lime off a steel kettle with a knife?", passage(1, "Lime", rules), embedder=embedder
    )
    assert found is not None
    assert "with a knife" in found
    assert "Never do this:" in found


async def test_a_sentence_is_quoted_with_the_one_that_limits_it(embedder: Embedder) -> None:
    copper = "A copper kettle is washed with care, and a machine for washing is one of many ways. " * 9
    page = f"{copper}\n\nA copper kettle may be washed in the machine.\n\nHowever, the handle must be off.\n\n{FILLER}"
    found = await answer(
        "Can a copper kettle be washed in the machine?", passage(1, "Washing", page), embedder=embedder
    )
    assert found is not None
    assert "may be washed in the machine." in found
    assert "However, the handle must be off." in found


async def test_a_title_that_forbids_stands_above_its_items(embedder: Embedder) -> None:
    page = passage(1, "What we do not pay back", "- fines for parking\n- films in the hotel\n")
    found = await answer("Are fines for parking paid back?", page, embedder=embedder)
    assert found is not None
    assert found.index("What we do not pay back") < found.index("fines for parking")


async def test_a_heading_between_two_quoted_sections_is_not_left_out(embedder: Embedder) -> None:
    page = "## Kettles\n\nCare of kettles made of steel:\n\n### Forbidden\n\n#### Steel\n\nWash a steel kettle with bleach.\n"
    found = await answer("How is care of steel kettles done?", passage(1, "Care > Kettles", page), embedder=embedder)
    assert found is not None
    assert found.index("Forbidden › Steel") < found.index("with bleach")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["text", "But", "item", "nested"]), min_size=1, max_size=24), st.integers(0, 23))
async def test_no_quote_leaves_out_what_a_piece_of_it_hangs_on(kinds: list[str], asked: int) -> None:
    filler = FILLER.lower().replace(".", "")
    lines, hangs = [], []
    parent: str | None = None
    for n, kind in enumerate(kinds):
        name = f"word{n}x"
        if kind in ("text", "But"):
            lines.append(f"\n{'However, the' if kind == 'But' else 'The'} {name} is here, {filler}.\n")
            parent = None
            if kind == "But" and n:
                hangs += [(name, f"word{n - 1}x"), (f"word{n - 1}x", name)]
        elif kind == "item" or parent is None:
            lines.append(f"- Never {name}: {filler}")
            parent = name
        else:
            lines.append(f"   - {name} {filler}")
            hangs.append((name, parent))
    found = await select(f"What is word{asked % len(kinds)}x?", [passage(1, "Rules", "\n".join(lines))], _EMBEDDER)
    text = found.text if found else ""
    assert [other for name, other in hangs if name in text and other not in text] == []
