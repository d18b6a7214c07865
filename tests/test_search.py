"""A search of conversations finds what looks alike, by any part of it, by an index, and nobody else's."""

import asyncio
import unicodedata
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.conversations.repository import LATEST, ConversationRepository
from agent_server.db import Database, new_id
from agent_server.db.late_indexes import build_indexes
from agent_server.folding import APOSTROPHES
from tests.conftest import everything, fetch

WORDS = st.text(st.sampled_from("abcXYZ019 éÉßñÅøžЖжйΣσςŒ潜水ガأב'%_\\"), min_size=1, max_size=12)
ALTERED: dict[str, Any] = {
    "capitals": str.upper,
    "lower case": str.lower,
    "composed": lambda said: unicodedata.normalize("NFC", said),
    "decomposed": lambda said: unicodedata.normalize("NFD", said),
    "full width": lambda said: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in said),
    "apostrophes": lambda said: said.replace("'", APOSTROPHES[1]),
    "invisible": lambda said: "\u00ad".join(said),
}
"""How a text may be typed otherwise than it was."""


async def _store(database: Database, owner: UUID, *conversations: Sequence[str]) -> None:
    """Conversations of one owner, each of a title and messages, the first the latest."""
    async with everything(database) as session:
        for n, (title, *messages) in enumerate(conversations):
            values: dict[str, Any] = {"owner": owner, "id": new_id(), "title": title, "n": n, "texts": messages}
            await session.execute(_CONVERSATION, values)
            await session.execute(_ITEMS, values)


_CONVERSATION = text("""
    insert into conversation (owner_id, id, title, next_turn, created_at, updated_at)
    values (:owner, :id, :title, 2, now(), now() - cast(:n as int) * interval '1 minute')""")
_ITEMS = text("""
    insert into item (owner_id, conversation_id, turn_no, k, turn_id, role, text, body, sources, created_at)
    select :owner, :id, 1, k, :id, 'user', said, '{}', '[]', now()
    from unnest(cast(:texts as text[])) with ordinality i(said, k)""")


async def _find(database: Database, caller: Caller, words: str, limit: int = 100) -> list[str]:
    async with database.transaction(caller.id) as session:
        page = await ConversationRepository(session, caller).page_recent(limit, words=words)
    return [row.title for row in page.items]


@st.composite
def _typed_again(draw: st.DrawFn) -> tuple[str, str]:
    """What was said, and a part of it as somebody else types it."""
    said = " ".join(draw(st.lists(WORDS, min_size=1, max_size=8)))
    first = draw(st.integers(0, len(said) - 1))
    part = said[first : draw(st.integers(first + 1, len(said)))]
    return said, ALTERED[draw(st.sampled_from(sorted(ALTERED)))](part)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_typed_again(), min_size=20, max_size=40))
def test_any_part_of_what_was_said_is_found_however_it_is_typed(url: str, pairs: list[tuple[str, str]]) -> None:
    async def ask() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            return list(await connection.fetch(_HOLDS, new_id(), *map(list, zip(*pairs, strict=True))))
        finally:
            await connection.close()

    for row in asyncio.run(ask()):
        assert (row["looks_alike"], row["has_its_keys"]) == (True, True), dict(row)


# Of one octet the index knows nothing; two begin a key.
_HOLDS = """
    with k as (
      select *, search_keys($1, said) as keys, search_keys($1, words) as sought
      from unnest($2::text[], $3::text[]) as pair(said, words))
    select said, words, position(search_text(words) in search_text(said)) > 0 as looks_alike,
      case cardinality(sought)
        when 0 then true
        when 1 then exists (select from unnest(keys) key where key >> 8 = sought[1] >> 8)
        else keys @> sought[1:cardinality(sought) - 1] end as has_its_keys
    from k"""


async def test_what_is_far_down_is_found_by_the_index_and_what_is_common_among_the_latest(
    database: Database, me: Caller, other: Caller
) -> None:
    many = [["", "nothing of note"] for _ in range(LATEST)]
    mine = [
        *many,
        ["first", "Über Strömungstauchen’s Regeln"],
        ["second", "x"],
        ["Strömung", "x"],
        ["third", "潜水 ok §7"],
    ]
    await _store(database, me.id, *mine)
    await _store(database, other.id, ["theirs", "Strömung §7"])
    for words, titles in {
        "strömung": ["first", "Strömung"],
        "STROMUNGSTAUCHEN'S REG": ["first"],
        "mungs": ["first"],
        "潜水": ["third"],
        "§7": ["third"],
        "second": ["second"],
        "%": [],
        "no such words": [],
    }.items():
        assert await _find(database, me, words) == titles, words
    assert len(await _find(database, me, "note")) == 100
    async with database.transaction(me.id) as session:
        repository = ConversationRepository(session, me)
        page = await repository.page_recent(1, words="Strömung")
        assert [row.title for row in page.items] == ["first"]
        assert [row.title for row in (await repository.page_recent(1, page.next_cursor, "Strömung")).items] == [
            "Strömung"
        ]


@pytest.mark.names_no_owner
async def test_the_index_answers_for_nobody_but_whom_the_transaction_is_for(
    database: Database, me: Caller, other: Caller
) -> None:
    await _store(database, other.id, ["theirs", "Strömung"])
    ask = text("select count(*) from find_said(:owner, 'strömung')")
    for owners in ((me.id,), ()):
        async with database.transaction(*owners) as session:
            assert (await session.execute(ask, {"owner": other.id})).scalar_one() == 0
    async with database.transaction(other.id) as session:
        assert (await session.execute(ask, {"owner": other.id})).scalar_one() == 1


@pytest.mark.names_no_owner
async def test_a_look_for_words_reads_the_index_under_row_level_security(database: Database, me: Caller) -> None:
    await _store(database, me.id, *[["", f"number {n}"] for n in range(50)])
    ask = """
        explain select conversation_id from item where role is not null
        and search_keys(owner_id, text) @> search_keys(:owner, 'number 7')"""
    async with everything(database) as session:
        # Of so few rows another plan may be as good.
        for setting in ("role = agent_server_system", "enable_seqscan = off", "enable_indexscan = off"):
            await session.execute(text(f"set local {setting}"))
        plan = [line for (line,) in await session.execute(text(ask), {"owner": me.id})]
    assert any("Index Cond: (search_keys(owner_id, (text)::text) @>" in line for line in plan), plan


async def test_an_index_whose_build_was_cut_off_is_built_again(database: Database) -> None:

    valid = "select indisvalid from pg_index where indexrelid = 'ix_item_said'::regclass"
    async with everything(database) as session:
        await session.execute(
            text("update pg_index set indisvalid = false where indexrelid = 'ix_item_said'::regclass")
        )
    await build_indexes(database)
    assert await fetch(database.url, valid) == [(True,)]
