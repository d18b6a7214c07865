"""A search of conversations finds what looks alike, by any part of it, by an index, and nobody else's."""

import asyncio
import re
import runpy
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
from tests.conftest import ROOT, everything, fetch

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


MIGRATION = runpy.run_path(str(ROOT / "migrations" / "engine" / "0018_looks.py"))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(_typed_again(), min_size=1, max_size=3), min_size=3, max_size=8), st.data())
def test_a_page_has_the_latest_that_hold_the_words_whichever_way_they_are_found(
    url: str, said: list[list[tuple[str, str]]], data: st.DataObject
) -> None:
    """Among the latest, by few candidates or by many, by all parts or the rarest, from any place on, with more or fewer on
    a page. The numbers at which a way is chosen are drawn, so that few rows are enough for each."""
    owner = new_id()
    talks = [[f"title {n}", *(text for text, _ in pairs)] for n, pairs in enumerate(said)]
    for n, talk in enumerate(talks):
        talk += ["of old"] * (n % 2) + ["common winters"] * (n % 3)
    numbers = {name: data.draw(st.sampled_from([few, most]), name) for name, (few, most) in _NUMBERS.items()}
    words = st.sampled_from(["common", "winter", "mon wi", "wi", "old", "title 1", *(w for p in said for _, w in p)])
    asked = data.draw(
        st.lists(
            st.tuples(words, st.integers(0, len(talks)), st.integers(1, 5), st.sampled_from([0, 5, 10, 500])),
            min_size=20,
            max_size=40,
        )
    )

    async def ask() -> list[Any]:
        database, connection = Database(url), await asyncpg.connect(url)
        try:
            await _store(database, owner, *talks)
            spelled = MIGRATION["spell_find"](numbers).replace("create function", "create or replace function")
            await connection.execute(spelled.format(schema="public"))
            await connection.execute(f"set agent_server.owners = '{{{owner}}}'")
            return [await connection.fetchrow(_BOTH, owner, *one) for one in asked]
        finally:
            await connection.close()
            await database.close()

    for row in asyncio.run(ask()):
        # Of one octet the index knows nothing: what is not among the latest is not found.
        expected = row["holding"] if row["has_keys"] else row["holding"][: len(row["found"])]
        assert row["found"] == expected, (dict(row), numbers)


_NUMBERS = {
    name: (least, most)
    for (name, most), least in zip(MIGRATION["NUMBERS"].items(), [1, 1, 1, 1, 1, 0, 0, 0], strict=True)
}
"""The numbers of the function, each beside the least that it can be."""
_BOTH = """
    with p as (
      select now() - $3::int * interval '1 minute' as at, '00000000-0000-0000-0000-000000000000'::uuid as last),
    holding as (
      select c.id from conversation c, p where c.owner_id = $1 and (c.updated_at, c.id) < (p.at, p.last) and (
        position(search_text($2) in search_text(c.title)) > 0 or exists (
          select from item i where i.owner_id = $1 and i.conversation_id = c.id and i.role is not null
          and position(search_text($2) in search_text(i.text)) > 0))
      order by c.updated_at desc, c.id desc limit $4::int)
    select $2 as words, cardinality(search_keys($1, $2)) > 0 as has_keys, array(select id from holding) as holding,
      array(select f from p, find_talks($1, $2, p.at, p.last, $4::int, $5::int) f) as found"""


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
    ask = text(
        "select (select count(*) from find_said(:owner, 'strömung')) "
        "+ (select count(*) from find_said(:owner, 'strömung', now(), :owner, 10, 10)) "
        "+ (select count(*) from find_talks(:owner, 'strömung', now(), :owner, 10, 10))"
    )
    for owners in ((me.id,), ()):
        async with database.transaction(*owners) as session:
            assert (await session.execute(ask, {"owner": other.id})).scalar_one() == 0
    async with database.transaction(other.id) as session:
        assert (await session.execute(ask, {"owner": other.id})).scalar_one() == 3


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


def test_the_text_that_is_searched_is_what_it_was_before_it_was_found_quicker(url: str) -> None:
    """Of each letter that is taken to have but one form, and of texts of all kinds."""
    before = runpy.run_path(str(ROOT / "migrations" / "engine" / "0015_search.py"))
    slow = before["_BEFORE"]["SEARCH_TEXT"].replace(before["_LOCALE"], before["_PLAIN"])
    values = {name: before["_BEFORE"][f"_{name.upper()}"] for name in ("apostrophes", "spaces", "dropped")}
    slow = slow.format(
        alike=values["apostrophes"] + values["spaces"],
        plain="''" * len(values["apostrophes"]) + " " * len(values["spaces"]),
        dropped=values["dropped"],
        collation="pg_c_utf8",
    ).replace("create function search_text", "create function pg_temp.search_text_before")
    letters = re.findall(
        "[" + MIGRATION["_FORMED"] + "]", "".join(map(chr, [*range(1, 0xD800), *range(0x1F000, 0x1FA00)]))
    )

    async def ask() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(slow)
            return list(await connection.fetch(_DIFFERS, [*letters, *drawn]))
        finally:
            await connection.close()

    drawn: list[str] = []

    @settings(max_examples=300)
    @given(st.text(min_size=1, max_size=40).filter(lambda said: "\0" not in said) | WORDS)
    def draw(said: str) -> None:
        drawn.append(re.sub("[\ud800-\udfff]", "", said))

    draw()
    assert len(letters) > 20_000
    assert asyncio.run(ask()) == []


_DIFFERS = """
    select said, search_text(said), pg_temp.search_text_before(said) from unnest($1::text[]) said
    where search_text(said) <> pg_temp.search_text_before(said)"""
