"""Small talk is told from questions, however it is typed, and gets an answer without a search."""

import re
from collections.abc import Iterator
from functools import cache

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_server.knowledge.parse import headings, read_content
from agent_server.knowledge.search import CollectionSummary
from agent_server.knowledge.urgent import compile_phrases
from agent_server.offline.about import About, reply_to
from agent_server.offline.small_talk import Kind, find_question, find_small_talk
from agent_server.prompts import load_prompts
from tests.conftest import ROOT

SAID: dict[Kind, list[str]] = {
    "greeting": ["hello", "hi", "hey", "hello there", "hi all", "good morning", "Good evening", "greetings", "howdy"],
    "thanks": [
        "thanks", "thank you", "thank you very much", "thanks a lot", "many thanks", "ok thanks", "thanks for your help",
        "that was very helpful", "thanks, that was all", "great, thanks",
    ],
    "farewell": ["bye", "goodbye", "bye bye", "see you", "see you later", "good night", "have a nice day"],
    "insult": [
        "you are stupid", "idiot", "you're useless", "this is rubbish", "stupid bot", "fuck you", "shut up", "you suck",
        "what an idiot", "you are so dumb",
    ],
    "about": [
        "who are you?", "what are you?", "what can you do?", "what can you do for me?", "what do you know?", "what is this?",
        "what's your name?", "who made you?", "how does this work?", "what can I ask you?", "can you help me?", "help",
        "what topics do you cover?", "tell me about yourself", "what kind of questions can I ask here?", "how do you work?", "do you speak German?",
    ],
    "robot": [
        "are you a robot?", "are you human?", "are you a real person?", "am I talking to a bot?", "is this a bot?",
        "am I talking to a person or to a bot?", "are you chatgpt?", "are you a bot or a human?", "are you an ai?", "how old are you?", "where are you from?",
    ],
    "wellbeing": ["how are you?", "how are you doing today?", "how is it going?", "what's up?", "is anybody home?", "are you there?"],
    "agreement": ["ok", "great", "got it", "perfect", "I see", "sorry", "never mind"],
}  # fmt: skip
EVERY = [(kind, text) for kind, texts in SAID.items() for text in texts]
LONG = re.compile(r"[a-z]{5,}", re.IGNORECASE)
ABOUT = About(
    name="Bakery",
    agents=[("Baker", "Takes bread and dough."), ("Shop", "Opening hours.")],
    collections=[CollectionSummary("baking", 4, ("Bread", "Rolls", "Cake")), CollectionSummary("", 1, ("Hours",))],
    suggestions=["How long should dough rise?", "When do you open?"],
)


@pytest.mark.parametrize(("kind", "text"), EVERY)
def test_small_talk_is_known_for_what_it_is(kind: Kind, text: str) -> None:
    assert find_small_talk(text) == kind


@st.composite
def typed(draw: st.DrawFn, text: str) -> str:
    """`text` as somebody types it who is in a hurry."""
    text = draw(st.sampled_from([text, text.upper(), text.title(), text.lower()]))
    spans = [word.span() for word in LONG.finditer(text)]
    slips = draw(st.booleans())
    if spans and slips:
        start, end = draw(st.sampled_from(spans))
        at = draw(st.integers(start + 1, end - 2))
        wrong = draw(st.sampled_from([text[at + 1] + text[at], text[at + 1], text[at] + text[at] + text[at + 1]]))
        changed = text[:at] + wrong + text[at + 2 :]
        # What is another word is that word.
        if not _is_a_word(changed[start:].split()[0]):
            text = changed
    elif draw(st.booleans()):
        at = draw(st.integers(0, len(text) - 1))
        # "iii" is no word, and neither is "sss"; a letter that is held at an end is no slip.
        if text[at].isalpha() and (at + 1 == len(text) or not text[at + 1].isalpha()):
            text = text[:at] + text[at] * draw(st.integers(3, 7)) + text[at + 1 :]
    if draw(st.booleans()):
        text = text.replace("'", "’")
    return (
        draw(st.sampled_from(["", " ", "\n", "👋 "]))
        + text
        + draw(st.sampled_from(["", "!", "!!!", " :)", " 😀", "...", " ?!"]))
    )


def _is_a_word(text: str) -> bool:
    word = re.sub(r"\W", "", text).lower()
    return word in _find_ordinary()


# When a test first wants it, not in each process that collects the tests; the same holds for the questions.
@cache
def _find_ordinary() -> frozenset[str]:
    return compile_phrases(tuple(sorted({w.lower() for _, text in EVERY for w in LONG.findall(text)}))).ordinary


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_small_talk_is_known_however_it_is_typed(data: st.DataObject) -> None:
    message = data.draw(typed(data.draw(st.sampled_from(EVERY))[1]))
    assert find_small_talk(message) is not None, message


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(st.sampled_from(EVERY), min_size=2, max_size=3), sign=st.sampled_from([", ", ". ", "! ", " - "]))
def test_small_talk_may_have_several_parts(parts: list[tuple[Kind, str]], sign: str) -> None:
    message = sign.join(text for _, text in parts)
    assert len(message.split()) > 16 or find_small_talk(message) is not None, message


@cache
def list_questions() -> list[str]:
    return list(dict.fromkeys(_read_questions()))


def _read_questions() -> Iterator[str]:
    """What people ask of the reference workspace: judged messages, examples, and the headings of its content."""
    judged = yaml.safe_load((ROOT / "tests" / "routing_messages.yaml").read_text())
    yield from (one["message"] for one in judged)
    yield from (one["question"] for one in yaml.safe_load((ROOT / "bench" / "offline_questions.yaml").read_text()))
    agents, _ = load_prompts(ROOT / "prompts", ROOT)
    yield from (example for agent in agents.values() if agent.name != "triage" for example in agent.examples)
    for page in read_content(ROOT / "content")[0]:
        yield page.title
        yield from (heading.text for heading in headings(page.body))
        yield from page.urgent


def test_no_question_of_the_content_is_small_talk() -> None:
    questions = list_questions()
    assert len(questions) >= 300
    assert [question for question in questions if find_small_talk(question)] == []
    assert [question for question in questions if find_question(question) != question] == []
    words = {word.lower() for question in questions for word in re.findall(r"\w{4,}", question)}
    # These are what they are; no other word is taken for a misspelt one.
    assert {word for word in words if find_small_talk(word)} <= {
        "good",
        "great",
        "help",
        "morning",
        "nice",
        "options",
        "start",
        "test",
    }


@settings(max_examples=200, deadline=None)
@given(
    opening=st.sampled_from([text for kind in ("greeting", "thanks") for text in SAID[kind]]),
    sign=st.sampled_from([", ", "! ", ". ", " - "]),
    question=st.deferred(lambda: st.sampled_from(list_questions())),
)
def test_a_question_behind_a_greeting_is_the_question(opening: str, sign: str, question: str) -> None:
    message = f"{opening}{sign}{question}"
    assert find_small_talk(message) is None
    assert find_question(message) == question.lstrip(" \"'“”‘’`*([{#-–") or find_question(message).endswith(question)


def test_what_follows_a_greeting_is_kept_also_without_a_sign() -> None:
    assert find_question("hi how long before flying?") == "how long before flying?"
    assert find_question("thanks, and what about the altitude?") == "and what about the altitude?"
    assert find_question("hello all divers must log in") == "all divers must log in"
    assert find_question("Hello!") == "Hello!"


@pytest.mark.parametrize(
    "message", ["", "...", "😀", "a" * 5000, "hi " * 500, "Help my buddy is unconscious", "tanks", "hell"]
)
def test_what_says_nothing_or_something_else_is_no_small_talk(message: str) -> None:
    assert find_small_talk(message) is None


@pytest.mark.parametrize("kind", SAID)
@pytest.mark.parametrize("about", [ABOUT, About()], ids=["all", "nothing"])
def test_an_answer_to_small_talk_cites_nothing_and_is_whole_whatever_is_known(kind: Kind, about: About) -> None:
    said = reply_to(kind, about, configured=False)
    assert said[0].isupper() and said.endswith((".", "?", *about.suggestions))
    assert not re.search(r"\[\d+\]|None|\{|nothing about", said)


def test_the_assistant_says_what_its_agents_do_what_the_content_covers_and_what_to_try() -> None:
    assert reply_to("greeting", ABOUT, configured=False) == (
        "Hello. This is **Bakery**. I answer in the words of the content, and show where they are from.\n\n"
        "What I can do:\n\n- **Baker**: Bread and dough.\n- **Shop**: Opening hours.\n\n"
        "What the content covers:\n\n- **Baking**: Bread; Rolls; Cake; and 1 more\n- **Pages**: Hours\n\n"
        "Try one of these:\n\n- How long should dough rise?\n- When do you open?"
    )
    assert "My language model is not available just now" in reply_to("robot", ABOUT, configured=True)
