"""The index of own documents: what it finds, that it is always that of a fresh one, and that nothing stops the server."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.db import Database, new_id
from agent_server.documents.repository import OwnDocuments
from agent_server.documents.shelf import Indexed, Shelf, check_name
from agent_server.errors import Conflict, InvalidInput
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.knowledge.passages import Passage
from agent_server.settings import load_settings
from tests.conftest import everything


def person() -> Caller:
    return Caller(id=new_id(), kind="user", scopes=frozenset({"documents:*"}))


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(WordLlama(), load_settings(environment="test"))


async def add(database: Database, shelf: Shelf, caller: Caller, name: str, content: str) -> None:
    indexed = await shelf.index(name, content.encode())
    async with database.transaction(caller.id) as session:
        await OwnDocuments(session, caller).put(name, indexed, shelf.quota)


async def delete(database: Database, caller: Caller, name: str) -> None:
    async with database.transaction(caller.id) as session:
        documents = OwnDocuments(session, caller)
        await documents.remove(await documents.get_named(name))


async def find(database: Database, shelf: Shelf, caller: Caller, query: str, **more: Any) -> list[Passage]:
    async with database.transaction(caller.id) as session:
        return await shelf.search(session, caller, query, **{"limit": 5, **more})


async def index(database: Database, owner: UUID) -> list[list[Any]]:
    """All that a search reads, without ids and times."""
    statements = (
        "select name, title, size, passages, config, embedder, sha, text from own_document where owner_id = :owner",
        """select d.name, p.ordinal, p.heading, p.text, p.start_offset, p.end_offset, p.lex::text, p.emb::text
           from own_passage p join own_document d using (owner_id) where d.id = p.document_id and p.owner_id = :owner""",
        """select d.name, w.lexeme, w.n from own_word w join own_document d using (owner_id)
           where d.id = w.document_id and w.owner_id = :owner""",
    )
    async with everything(database) as session:
        return [sorted(map(tuple, await session.execute(text(each), {"owner": owner}))) for each in statements]


NAMES = st.sampled_from(["a.md", "b.txt", "c"])
TEXTS = st.sampled_from(
    [
        "# Fins\n\nMy fins are red.\n\n## Size\n\n" + "They have size 42 and a strap. " * 80,
        "# Fins\n\nMy fins are blue.",
        "Tauchen\n\nMeine Flossen liegen im Keller, und die Maske ist im Schrank neben der Tür.",
        "Fins, fins, `dive_log.py` and more fins.",
    ]
)
EDITS = st.lists(st.tuples(NAMES, st.one_of(TEXTS, st.none())), min_size=1, max_size=5)


@given(edits=EDITS)
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_after_any_edits_the_index_is_that_of_fresh_documents(
    database: Database, shelf: Shelf, edits: Sequence[tuple[str, str | None]]
) -> None:
    me, fresh, there = person(), person(), dict[str, str]()
    for name, content in edits:
        if content is not None:
            await add(database, shelf, me, name, content)
            there[name] = content
        elif there.pop(name, None) is not None:
            await delete(database, me, name)
    for name, content in there.items():
        await add(database, shelf, fresh, name, content)
    assert await index(database, me.id) == await index(database, fresh.id)


WRITER = """
import asyncio, sys
from uuid import UUID
from agent_server.caller import Caller
from agent_server.db import Database
from agent_server.documents.repository import OwnDocuments
from agent_server.documents.shelf import Shelf
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.settings import load_settings

async def run(url, owner):
    database, shelf = Database(url), Shelf(WordLlama(), load_settings(environment="test", _env_file=None))
    me = Caller(id=owner, kind="user", scopes=frozenset({"documents:*"}))
    for n in range(1000):
        name = f"{n:03}.md"
        indexed = await shelf.index(name, f"# Page {n}\\n\\nNumber {n}.".encode())
        async with database.transaction(owner) as session:
            await OwnDocuments(session, me).put(name, indexed, shelf.quota)
            print(name, flush=True)

asyncio.run(run(sys.argv[1], UUID(sys.argv[2])))
"""


async def test_what_a_killed_process_was_adding_is_there_whole_or_not_at_all(database: Database, shelf: Shelf) -> None:
    me, fresh = person(), person()
    command = [sys.executable, "-c", WRITER, database.url, str(me.id)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    # Its last line is written before the commit, so that it is killed in the middle of one.
    lines = [(await process.stdout.readline()).decode().strip() for _ in range(3)]
    os.kill(process.pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
    await process.wait()
    assert lines == ["000.md", "001.md", "002.md"]
    for n in range(4):
        await add(database, shelf, me, f"{n:03}.md", f"# Page {n}\n\nNumber {n}.")
        await add(database, shelf, fresh, f"{n:03}.md", f"# Page {n}\n\nNumber {n}.")
    assert await index(database, me.id) == await index(database, fresh.id)


async def test_the_best_passage_of_several_documents_comes_first(database: Database, shelf: Shelf) -> None:
    me = person()
    await add(database, shelf, me, "fins.md", "# Fins\n\nMy fins have the size 42.")
    await add(database, shelf, me, "mask.md", "# Mask\n\nThe mask needs a new strap before summer.")
    await add(database, shelf, me, "flossen.md", "# Flossen\n\nDie Flossen liegen im Keller, und die Lampe ist kaputt.")
    for query, document in (
        ("which size do my fins have?", "fins.md"),
        ("what is to be bought for the mask", "mask.md"),
        ("Wo liegen meine Flossen?", "flossen.md"),
    ):
        found = await find(database, shelf, me, query)
        assert found[0].document == document
        assert [passage.score for passage in found] == sorted((p.score for p in found), reverse=True)
    assert await find(database, shelf, me, "quantum chromodynamics of gluons", min_score=0.35) == []


@pytest.mark.parametrize(
    "query", ["", "   ", "the of and", "a & b | !c:* <-> (", "'; drop table own_document --", "x" * 9000, "\x00\ud800"]
)
async def test_any_text_is_a_query(database: Database, shelf: Shelf, query: str) -> None:
    me = person()
    await add(database, shelf, me, "fins.md", "# Fins\n\nMy fins have the size 42.")
    assert all(0 <= passage.score < 2 for passage in await find(database, shelf, me, query))
    assert await find(database, shelf, person(), query) == []


async def test_vectors_of_another_model_are_not_compared(database: Database, shelf: Shelf) -> None:
    class Other(WordLlama):
        name = "other"

    me = person()
    await add(database, shelf, me, "fins.md", "# Fins\n\nMy fins have the size 42.")
    query = "size of my fins"
    by_both = (await find(database, shelf, me, query))[0].score
    by_words = (await find(database, Shelf(Other(), shelf.settings), me, query))[0].score
    assert 0 < by_words < by_both
    assert shelf.sign("fins.md", b"x") != Shelf(Other(), shelf.settings).sign("fins.md", b"x")


async def test_there_is_a_bound_of_passages(shelf: Shelf) -> None:
    many = "".join(f"# Section {n}\n\n{'Text of it. ' * 20}\n\n" for n in range(5_001))
    with pytest.raises(InvalidInput, match=r"file: has \d+ passages, and 5000 are the most; split it"):
        await shelf.index("many.md", many.encode())


HOSTILE = {
    "deep.md": b">" * 200_000 + b" a",
    "brackets.md": b"[" * 200_000,
    "yaml.md": b"---\na: &a [x,x]\n"
    + b"".join(b"b%d: &b%d [*a,*a,*a,*a,*a,*a]\n" % (n, n) for n in range(200))
    + b"---\n# A\n\nText.",
    "bomb.ipynb": b"[" * 500_000,
    "tags.html": b"<div>" * 200_000 + b"text",
    "big.txt": b"word " * 1_500_000,
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_file_stops_nothing_and_the_event_loop_goes_on(shelf: Shelf, name: str) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    (outcome,) = await asyncio.gather(shelf.index(name, HOSTILE[name]), return_exceptions=True)
    assert isinstance(outcome, Indexed | InvalidInput)
    ticking.cancel()
    # The process that reads takes a few tenths of a second to start alone, in which the loop turns many times.
    assert ticks > 5


async def test_a_document_is_refused_where_its_vectors_are_not_what_the_embedder_promises(shelf: Shelf) -> None:
    class Wrong(WordLlama):
        dimensions = 3

        async def embed(self, texts: Sequence[str]) -> NDArray[Any]:
            return await WordLlama().embed(texts)

    with pytest.raises(ValueError, match="promises the shape"):
        await Shelf(Wrong(), shelf.settings).index("a.md", b"# A\n\nText.")


WITHOUT = """
import sys
sys.modules["mammoth"] = None  # as where it is not installed
from agent_server.documents.shelf import check_name, list_kinds
from agent_server.errors import InvalidInput
try:
    check_name("plan.docx")
except InvalidInput as error:
    print(error.message)
print(".docx" in list_kinds(), ".md" in list_kinds())
"""


def test_without_the_extra_its_files_are_refused_with_the_command_that_installs_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "name: files of the kind .docx need the extra documents; run `pip install 'agent-server[documents]'`",
        "False True",
    ], done.stderr
    check_name("plan.md")


async def test_two_documents_of_one_name_are_told_apart_by_their_ids(database: Database, shelf: Shelf) -> None:
    me = person()
    await add(database, shelf, me, "a.md", "# A\n\nOne.")
    async with everything(database) as session:  # as a guest's is that the user takes over
        copied = "insert into own_document select owner_id, :id, name, title, size, 0, config, embedder, sha || 'x', text, created_at, updated_at from own_document"
        await session.execute(text(copied), {"id": new_id()})
    with pytest.raises(Conflict, match=r"several documents 'a\.md'; give the id of one: "):
        await delete(database, me, "a.md")
