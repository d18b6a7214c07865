"""Texts become unit vectors, without a download and without a model in memory before it is needed."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_server.knowledge.embedders.wordllama import Embedder

EMBEDDER = Embedder()


def test_a_text_is_a_vector_of_length_one() -> None:
    vectors = EMBEDDER.embed(["How do I return a book?", "a"])
    assert vectors.shape == (2, EMBEDDER.dimensions) == (2, 256)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_a_text_without_tokens_is_the_zero_vector() -> None:
    assert not EMBEDDER.embed([""]).any()
    assert EMBEDDER.embed([]).shape == (0, 256)


def test_a_text_may_be_of_any_length() -> None:
    assert np.linalg.norm(EMBEDDER.embed(["word " * 50_000])[0]) == pytest.approx(1.0, abs=1e-5)


def test_what_means_the_same_is_nearer_than_what_does_not() -> None:
    question, near, far = EMBEDDER.embed(
        ["How can I get my money back?", "Refunds are paid within five days.", "The moon is made of rock."]
    )
    assert question @ near > question @ far + 0.1


def test_a_word_said_often_counts_more_but_not_each_time_anew() -> None:
    once, often, word = EMBEDDER.embed(["apple car", "apple apple apple apple car", "apple"])
    assert once @ word < often @ word < 0.99


@given(texts=st.lists(st.text(max_size=40), max_size=5))
def test_a_vector_does_not_depend_on_what_it_is_embedded_with(texts: list[str]) -> None:
    together = EMBEDDER.embed(texts)
    assert np.isfinite(together).all()
    for row, text in zip(together, texts, strict=True):
        assert np.allclose(row, EMBEDDER.embed([text])[0], atol=1e-6)


def test_the_model_is_not_loaded_before_the_first_text() -> None:
    code = (
        "import sys; from agent_server.knowledge.embed import Embedder; import agent_server.knowledge.tools; Embedder();"
        "assert 'wordllama' not in sys.modules; Embedder().embed(['a']); assert 'wordllama' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
