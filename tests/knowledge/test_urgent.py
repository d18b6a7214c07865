"""An emergency typed in haste is one, and an ordinary sentence is none: with every phrase of the reference content."""

import itertools
import random
import re
import string
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from spellchecker import SpellChecker
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db import Database
from agent_server.folding import APOSTROPHES
from agent_server.knowledge.parse import read_content
from agent_server.knowledge.search import find_urgent
from tests.conftest import ROOT, everything

PHRASES = [phrase for page in read_content(ROOT / "content")[0] for phrase in page.urgent]
DICTIONARY = SpellChecker(language="en")


@pytest.fixture
async def content(agent_database: str) -> AsyncIterator[AsyncSession]:
    """The reference content, as a message of a turn is compared with it."""
    database = Database(agent_database)
    async with everything(database) as session:
        yield session
    await database.close()


async def misses(session: AsyncSession, messages: Iterator[str] | list[str]) -> list[str]:
    return [message for message in messages if await find_urgent(session, message) is None]


def spellings(phrase: str) -> Iterator[str]:
    """The words of a phrase as keyboards and clipboards write them."""
    yield phrase
    yield phrase.upper()
    yield phrase.replace("'", "")
    yield phrase.replace("'", " ")
    yield phrase.replace("n't", "nt").replace("cannot", "can not")
    yield from (phrase.replace("'", apostrophe) for apostrophe in APOSTROPHES[1:8] if "'" in phrase)
    yield "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in phrase)
    yield from (phrase.replace(" ", space) for space in ("\xa0", "\u3000", "\n"))
    yield from (hidden.join(phrase) for hidden in ("\u200b", "\u00ad"))
    yield re.sub("([aeiou])", "\\1\u0301", phrase)
    yield from ([phrase + 5 * phrase[-1]] if len(phrase.split()[-1]) >= 4 else [])
    yield phrase.replace(" ", "")
    yield phrase.replace(" ", "").replace("'", "")


def orders(phrase: str) -> Iterator[str]:
    words = phrase.split()
    for order in itertools.islice(itertools.permutations(words), 3):
        yield " ".join(order)
        yield " ".join([*order[:1], "he", *order[1:]])


def gaps(phrase: str) -> Iterator[str]:
    """The phrase with a gap in each of its longer words."""
    for word in re.findall(r"[a-z]{5,}", phrase):
        for place in range(1, len(word)):
            yield phrase.replace(word, f"{word[:place]} {word[place:]}")


async def test_every_phrase_is_found_however_it_is_spelled_split_joined_and_ordered(content: AsyncSession) -> None:
    assert len(PHRASES) > 50
    for way in (spellings, orders, gaps):
        written = [f"Help! {variant}." for phrase in PHRASES for variant in way(phrase)]
        assert await misses(content, written) == [], way


@st.composite
def typed_badly(draw: st.DrawFn) -> tuple[str, str]:
    """A phrase with one wrong letter in a word of four letters or more. Beside it: the word as it was typed."""
    words = draw(st.sampled_from(PHRASES)).replace("'", "").split()
    at = draw(st.sampled_from([n for n, word in enumerate(words) if len(word) >= 4]))
    word = words[at]
    place = draw(st.integers(0, len(word) - 1))
    letter = draw(st.sampled_from(string.ascii_lowercase))
    before, own, after = word[:place], word[place], word[place + 1 :]
    typed = draw(
        st.sampled_from(
            [
                before + after,
                before + own + own + after,
                before + letter + after,
                before + letter + own + after,
                before + after[:1] + own + after[1:],
            ]
        )
    )
    return " ".join([*words[:at], typed, *words[at + 1 :]]), typed


async def test_every_phrase_is_found_with_a_wrong_letter(content: AsyncSession) -> None:
    messages: list[str] = []

    @given(typed_badly())
    @settings(max_examples=300, database=None)
    def collect(typed: tuple[str, str]) -> None:
        message, word = typed
        # A word of three letters, and one that is another word, is what it is; a key that was held is two letters.
        assume(len(word) >= 4 and not DICTIONARY.known([word]) and not re.search(r"(.)\1\1", word))
        # "dones" is a form of a word that the content has.
        assume(not (word.endswith("s") and DICTIONARY.known([word[:-1]])))
        messages.append(message)

    collect()
    messages.append("pins and needes dive")  # the stem is that of "need", which the content has
    missed = await misses(content, list(dict.fromkeys(messages)))
    assert missed == []


@pytest.mark.parametrize(
    "message",
    [
        *(
            "I cant breathe",
            "i can´t breath",
            "he is unconcious, the diver",
            "my buddy isnt brething",
            "she didnt come up",
        ),
        *(
            "breathing he isnt",
            "Breathing, he isn't.",
            "he has stoped breathing",
            "ＣＡＮＴ　ＢＲＥＡＴＨＥ",
            "hes not breathing",
        ),
        *("the diver is unconsious", "my buddy colapsed", "he's paralyzed", "heisnotbreathing", "HE CANT BREATHEEEEE"),
        *("is'nt breathing", "she dosnt breathe", "he carnt move his legs", "diver un conscious", "a siezure!!"),
    ],
)
async def test_what_people_write_is_found(content: AsyncSession, message: str) -> None:
    assert await find_urgent(content, message) is not None


async def test_a_word_of_three_letters_and_another_word_is_no_word_of_a_phrase(content: AsyncSession) -> None:
    near = [
        "he dig not surface",
        "it hat not surfaced",
        "it is nit breathing",
        "I cannot feel mu",
        "he did mot come up",
    ]
    other = [
        "cash after the dive",
        "I cannot more",
        "browning",
        "a leisurely crowning",
        "I can't feed my",
        "week legs dive",
    ]
    assert await misses(content, [*near, *other]) == [*near, *other]


TRICKY = """
The view was breathtaking. / Take a breather. / It was a conscious decision. / Come up to the surface slowly.
It took my breath away. / I am out of air miles. / Is breathing gas expensive? / Breathing gas is not cheap.
Do not hold your breath, and keep breathing. / Never hold your breath under water. / Breathing is not difficult.
Why is breathing through the nose not possible? / You do not need to breathe fast. / I made a conscious choice to dive.
I trust in conscious diver choices. / Is the price not included? / Do you take cash after the dive?
Can I move my booking? / I cannot more. / We moved more than once. / I can't love it more.
Which regulator breathes best? / How do I breathe with a snorkel? / Breathe in, breathe out. / Is it breathable?
The sunset was stunning after the dive. / A missed call from the office. / I missed the boat to the island.
Do I need to be conscious of my weight? / I am self-conscious in a wetsuit. / My mask is foggy. / My ears need clearing.
The date did not come through. / My certificate has not arrived. / The payment did not go through. / It never came.
The confirmation never came to my inbox. / Browning the onions takes time. / The crowning moment was the manta.
She was frowning at the bill. / I am drawing a map. / Is drone footage allowed? / Downing a beer is no plan.
The coach stopped at the hotel. / We shopped for fins. / He stepped on board. / Is there a leisure pass?
The conversion of feet to metres? / What is the conversation about? / Convert 30 metres to feet.
Is the elbow room on the boat fine? / A knee pad would help. / Can the shoulder strap be changed? / Which vision do you have?
Can a mask be made for short sight? / How do I ascend slowly? / What is a rapid descent? / The accent of the guide was nice.
I can't feel the difference between the fins. / I cannot find my log book. / I can't wait to dive. / I can not come.
My legs are strong. / A rush before the dive is bad. / Where can I wash my suit after a dive? / Trash in the sea is sad.
I was dumb to forget my card. / What number of dives do I need? / The numbers after my name? / Is the joint booking cheaper?
A point after the dive: thank you. / Will my lens fog? / Which month is best? / What is on the menu of the mouth-watering buffet?
Is the chest strap adjustable? / Do you sell a treasure chest? / Are pins sold as souvenirs? / Needless to say, it was fun.
Is there froth on the cappuccino? / A bloody mary for the bar, please. / Do coughs spread on a boat? / Are there rapids on the river?
I love the bands on stage. / Do pipes with bends flow worse? / Which blends do you fill? / My watch collides with the bag.
Is the tent waterproof? / Your answer was responsive. / An irresponsible diver annoys me. / How responsive is the shop?
The child lives by the river. / Are drivers paid? / Is dining included? / What is a divine place? / Are you living there?
The missing page of my log book? / Missing you, friends. / Kissing on the beach? / Hissing sounds from the hose?
Tinkling bells, tangling lines. / Mingling with divers is fun. / Confusing rules confuse me. / It is not what I thought.
The surface interval is how long? / Surfacing from a nap. / What surfaces are slippery? / Not the surface, the bottom!
Add milk to my list. / Remind me to buy needles. / Add help with the tent to my tasks. / My email is ann@example.com.
I am unable to log in. / He did not answer. / Is not that nice? / It isn't cold. / Doesn't it rain? / Hasn't it been fun?
""".replace("\n", " / ").split(" / ")


def ordinary_sentences() -> list[str]:
    """What a diving centre is asked all day, and sentences with words that are near to those of phrases."""
    asks = (
        "How much is",
        "Can I book",
        "When does it suit to plan",
        "Tell me about",
        "What do I need for",
        "Who leads",
    )
    things = (
        "a refresher in {}",
        "the open water course in {}",
        "a night trip to {}",
        "snorkelling near {}",
        "the wreck at {}",
    )
    places = (
        "Malta",
        "Bonaire",
        "the Azores",
        "Komodo",
        "Palau",
        "Scapa Flow",
        "the Red Sea",
        "Silfra",
        "Sipadan",
        "Iceland",
    )
    tasks = [
        "buy fins",
        "pay the deposit",
        "rinse my regulator",
        "call the hotel",
        "renew the insurance",
        "pack the camera",
    ]
    tasks += ["ask about nitrox", "sell the old wetsuit"]
    when = ("tomorrow", "before Friday", "next week", "in the morning", "after lunch", "by March")
    made = [f"{ask} {thing.format(place)}?" for ask in asks for thing in things for place in places]
    made += [f"{do} {task} {day}" for do in ("Remind me to", "Add") for task in tasks for day in when]
    made += [
        f"My name is {name} and I want {thing.format(places[0])}."
        for name in ("Ann", "Bob", "Dive Dave")
        for thing in things
    ]
    random.Random(1).shuffle(made)
    tricky = [sentence.strip() for sentence in TRICKY if sentence.strip()]
    return tricky + made[: 500 - len(tricky)]


async def test_of_500_ordinary_sentences_none_is_an_emergency(content: AsyncSession) -> None:
    sentences = ordinary_sentences()
    assert len(set(sentences)) == 500
    assert sorted(set(sentences) - set(await misses(content, sentences))) == []


async def test_a_question_about_an_emergency_is_answered_with_its_page(content: AsyncSession) -> None:
    asked = [
        "what do you do when somebody is unconscious, a diver?",
        "What do you do when a diver is unconscious?",
        "What if my buddy is not breathing?",
    ]
    assert await misses(content, asked) == []
    assert (await content.execute(text("select count(*) from document where urgent <> '{}'"))).scalar() == 1
