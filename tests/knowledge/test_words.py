"""The words of a text."""

from hypothesis import example, given
from hypothesis import strategies as st

from agent_server.knowledge.words import words

PLAIN = st.text(st.characters(max_codepoint=127), max_size=40)


@given(PLAIN)
@example("it's 10:30, 1.5 kg`s of x_y 'quoted' a``b")
def test_the_words_of_plain_text_are_the_same_beside_a_letter_of_another_script(text: str) -> None:
    assert words(f"{text} é") == [*words(text), "é"]
