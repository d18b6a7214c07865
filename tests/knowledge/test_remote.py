"""Embedders elsewhere: what they are sent, what becomes of their failures, and that no text is paid for twice."""

import json
import string
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from sqlalchemy import text

from agent_server.db import Database
from agent_server.errors import InvalidInput, Unavailable
from agent_server.knowledge.embedders import open_embedder
from agent_server.knowledge.embedders.remote import BATCH, RemoteEmbedder, create_remote
from agent_server.knowledge.ingest import ingest
from agent_server.knowledge.search import search
from agent_server.settings import Settings
from tests.conftest import everything
from tests.knowledge.conftest import Write

Failure = tuple[int, dict[str, str]]


@dataclass
class Provider:
    """A server that speaks the wire protocol of embeddings. It answers with `failures` first, one for each request."""

    url: str
    dimensions: int = 8
    failures: list[Failure] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    hangs: threading.Event = field(default_factory=threading.Event)

    def answer(self, texts: list[str]) -> bytes:
        rows = [{"object": "embedding", "index": n, "embedding": self.vector(one)} for n, one in enumerate(texts)]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        # In another order than asked: the index says which is which.
        return json.dumps({"object": "list", "model": "m", "data": rows[::-1], "usage": usage}).encode()

    def vector(self, said: str) -> list[float]:
        """A vector that says how often each of some letters is there, twice as long as a unit."""
        counts = [said.lower().count(letter) + 0.01 for letter in string.ascii_lowercase[: self.dimensions]]
        return [2 * count for count in counts]


@pytest.fixture
def provider() -> Iterator[Provider]:
    class Handler(BaseHTTPRequestHandler):
        provider: ClassVar[Provider]

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.provider.asked.append(body)
            self.provider.keys.append(self.headers.get("Authorization"))
            status, headers = self.provider.failures.pop(0) if self.provider.failures else (200, {})
            if status == 0:
                self.provider.hangs.wait(20)
                return
            content = self.provider.answer(body["input"]) if status == 200 else b'{"error": {"message": "no"}}'
            self.send_response(status)
            for name, value in {
                **headers,
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.provider = Provider(f"http://127.0.0.1:{server.server_port}/v1")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Handler.provider
    Handler.provider.hangs.set()
    server.shutdown()
    server.server_close()


Make = Callable[..., RemoteEmbedder]


@pytest.fixture(params=["openai", "litellm"])
def make(request: pytest.FixtureRequest, provider: Provider) -> Make:
    def made(**settings: Any) -> RemoteEmbedder:
        model = "tiny" if request.param == "openai" else "openai/tiny"
        given = {"embedder_model": model, "embedder_url": provider.url, "embedder_dimensions": 8, **settings}
        return create_remote(Settings(embedder=request.param, embedder_key="sent-as-key", **given))

    return made


async def test_vectors_are_in_the_order_of_the_texts_and_of_length_1_and_blanks_are_not_sent(
    make: Make, provider: Provider
) -> None:
    texts = [f"text {'a' * (n % 7)}{'e' * (n % 5)}" for n in range(2 * BATCH + 3)] + ["", "  "]
    vectors = await make().embed(texts)
    expected = np.array([provider.vector(one) for one in texts[:-2]], dtype=np.float32)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(vectors[:-2], expected, atol=1e-5)
    assert not vectors[-2:].any()
    assert sorted(len(body["input"]) for body in provider.asked) == [3, BATCH, BATCH]
    assert {body["model"] for body in provider.asked} == {"tiny"}
    assert {*provider.keys} == {"Bearer sent-as-key"}


@pytest.mark.parametrize(
    "failure", [(429, {"Retry-After": "0"}), (500, {"Retry-After": "0"}), (503, {"Retry-After": "0"})]
)
async def test_what_fails_for_the_moment_is_asked_for_again(make: Make, provider: Provider, failure: Failure) -> None:
    provider.failures = [failure]
    assert (await make().embed(["one", "two"])).any(axis=1).all()
    assert len(provider.asked) == 2


async def test_the_next_attempt_is_made_after_the_time_that_the_server_names(make: Make, provider: Provider) -> None:
    provider.failures = [(429, {"Retry-After": "1"})]
    embedder = make()
    started = time.monotonic()
    await embedder.embed(["one", "two"])
    assert time.monotonic() - started >= 1


async def test_a_server_that_stays_away_is_named(make: Make, provider: Provider) -> None:
    provider.failures = [(500, {"Retry-After": "0"})] * 100
    with pytest.raises(Unavailable, match=r"The embedder (openai/)?tiny/8 answers 500; try again later"):
        await make().embed(["one", "two"])
    # The client that litellm has for OpenAI asks again by itself, and takes no 0 for an answer.
    assert len(provider.asked) in (4, 12)


async def test_a_server_that_hangs_is_given_up(make: Make, provider: Provider) -> None:
    provider.failures = [(0, {})] * 10
    with pytest.raises(Unavailable, match=r"does not answer within 0\.5 s"):
        await make(embedder_timeout=0.5).embed(["one"])


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_what_is_wrong_for_good_is_not_asked_for_again(make: Make, provider: Provider, status: int) -> None:
    provider.failures = [(status, {})] * 10
    with pytest.raises(InvalidInput, match=f"answers {status}"):
        await make().embed(["one", "two"])
    assert len(provider.asked) == 1


async def test_a_wrong_number_of_dimensions_is_named_with_the_setting(make: Make, provider: Provider) -> None:
    provider.dimensions = 5
    with pytest.raises(InvalidInput, match=r"gives vectors of 5 numbers; set AGENT_SERVER_EMBEDDER_DIMENSIONS to that"):
        await make().embed(["one"])


async def test_no_text_is_embedded_twice_by_a_server_elsewhere(
    make: Make, provider: Provider, write: Write, content: Path, database: Database
) -> None:
    embedder = make()
    write("a.md", "# Apples\n\nApples are red.")
    write("b.md", "# Bananas\n\nBananas are yellow.")
    await ingest(database, embedder, content)
    async with everything(database) as session:
        assert (await search(session, embedder, "red apples"))[0].document == "a.md"
        before = (
            await session.execute(
                text("select passage, emb::text from chunk c join passage_vector v on v.chunk_id = c.id order by 1")
            )
        ).all()
    provider.asked.clear()
    async with everything(database) as session:
        await session.execute(text("truncate document, chunk, passage_words, passage_vector, term, corpus, compound"))
    await ingest(database, embedder, content)
    assert provider.asked == []
    async with everything(database) as session:
        assert (
            await session.execute(
                text("select passage, emb::text from chunk c join passage_vector v on v.chunk_id = c.id order by 1")
            )
        ).all() == before

    # Another model has vectors of its own, and those of the one before are not kept.
    await ingest(database, make(embedder_model="other" if "/" not in embedder.name[:7] else "openai/other"), content)
    async with everything(database) as session:
        assert (await session.execute(text("select count(distinct embedder), count(*) from embedding"))).one() == (1, 2)


async def test_an_ingest_whose_embedder_fails_keeps_what_was_there_and_the_next_run_goes_on(
    make: Make, provider: Provider, write: Write, content: Path, database: Database
) -> None:
    embedder = make()
    write("a.md", "# Apples\n\nApples are red.")
    await ingest(database, embedder, content)
    write("a.md", "# Apples\n\nApples are green.")
    provider.failures = [(500, {"Retry-After": "0"})] * 100
    with pytest.raises(Unavailable):
        await ingest(database, embedder, content)
    provider.failures = []
    async with everything(database) as session:
        assert [hit.text for hit in await search(session, embedder, "apples")] == ["# Apples\n\nApples are red."]
    await ingest(database, embedder, content)
    async with everything(database) as session:
        assert [hit.text for hit in await search(session, embedder, "apples")] == ["# Apples\n\nApples are green."]


async def test_the_weight_is_what_the_meaning_counts_for(
    make: Make, write: Write, content: Path, database: Database
) -> None:
    write("a.md", "# Apples\n\nApples are red.")
    await ingest(database, make(), content)

    async def score(weight: float) -> float:
        async with everything(database) as session:
            return (await search(session, make(embedder_weight=weight), "apples"))[0].score

    words = await score(0)
    assert await score(2) - words == pytest.approx(2 * (await score(1) - words), abs=1e-4)
    assert await score(1) > words


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "AGENT_SERVER_EMBEDDER_MODEL: is missing"),
        ({"embedder_model": "m"}, "AGENT_SERVER_EMBEDDER_DIMENSIONS: is missing"),
        (
            {"embedder_model": "m", "embedder_dimensions": 8, "embedder_url": "localhost"},
            "AGENT_SERVER_EMBEDDER_URL: is no",
        ),
    ],
)
def test_what_is_missing_in_the_settings_is_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        open_embedder(Settings(embedder="openai", **settings))
