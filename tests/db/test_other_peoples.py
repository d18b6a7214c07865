"""Databases as others have set them up: extensions in a schema of their own, names and passwords that must be quoted,
roles that are another owner's."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_server.commands.stores import open_database
from agent_server.db import Database
from agent_server.db.isolation import APP_ROLE, SYSTEM_ROLE
from agent_server.db.migrate import differences, upgrade
from agent_server.errors import InvalidInput
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.knowledge.ingest import ingest
from agent_server.knowledge.search import search
from agent_server.settings import load_settings
from agent_server.testing import copy_database
from tests.conftest import ROOT, execute, fetch

# What identifiers and passwords may hold: neither NUL nor half a character, which no Postgres takes.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
NASTY = st.text(st.sampled_from("$'\"\\%@:/?#&+ ;{}[]ä日\n-"), min_size=1, max_size=12)
ANY = st.one_of(TEXTS, NASTY)


def address(url: str, *, user: str = "postgres", password: str | None = None, database: str | None = None) -> str:
    """The address of `url` as somebody writes it for another user or database."""
    parts = urlsplit(url)
    given = quote(user, safe="") + ("" if password is None else f":{quote(password, safe='')}")
    path = parts.path if database is None else f"/{quote(database, safe='')}"
    return parts._replace(netloc=f"{given}@{parts.netloc.rpartition('@')[2]}", path=path).geturl()


def ident(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def works(database: Database, folder: Path) -> None:
    """Fill the index of `database` and find what is in it."""
    embedder = WordLlama()
    await ingest(database, embedder, folder)
    async with database.transaction() as session:
        found = await search(session, embedder, "which bird repeats words")
    assert [hit.document for hit in found] == ["guide/parrots.md"]


@pytest.fixture(scope="module")
def parrots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("content")
    (folder / "guide").mkdir()
    (folder / "guide/parrots.md").write_text("# Parrots\n\nA parrot is a bird that can repeat words.\n")
    return folder


@pytest.fixture(scope="module")
def with_schema(postgres: str, template: str) -> Iterator[str]:
    """A migrated database whose extension is in a schema of its own."""

    async def move(url: str) -> None:
        await execute(url, "create schema ext", "alter extension vector set schema ext")
        database = Database(url)
        await upgrade(database, ROOT)
        await database.close()

    with copy_database(postgres, template) as url:
        asyncio.run(move(url))
        yield url


@given(schema=ANY.map(lambda name: f"_{name}"), pooled=st.booleans())
@example("extensions", False)
@example('Extensions of "ours", $user', True)
@settings(max_examples=3)
def test_the_extension_may_be_in_any_schema(with_schema: str, parrots: Path, schema: str, pooled: bool) -> None:
    async def run(url: str) -> None:
        find = "select nspname from pg_extension join pg_namespace n on n.oid = extnamespace where extname = 'vector'"
        ((was,),) = await fetch(url, find)
        await execute(url, f"alter schema {ident(was)} rename to {ident(schema)}")
        database = Database(url, url if pooled else None)
        await works(database, parrots)
        assert await differences(database) == []
        await execute(url, "delete from chunk", "delete from document")
        await database.close()

    asyncio.run(run(with_schema))


@asynccontextmanager
async def owner_without_rights(postgres: str) -> AsyncIterator[tuple[str, str]]:
    """A user that owns an empty database and is no superuser, by its name and the database's address."""
    name = f"owner_{uuid4().hex[:8]}"
    await execute(postgres, f'create role "{name}" login createrole', f'create database "{name}" owner "{name}"')
    await execute(postgres, f"grant {APP_ROLE}, {SYSTEM_ROLE} to {name} with admin option")
    try:
        yield name, address(postgres, user=name, database=name)
    finally:
        await execute(
            postgres, f'drop database "{name}" with (force)', f'drop owned by "{name}"', f'drop role "{name}"'
        )


@pytest.mark.usefixtures("template")
@pytest.mark.parametrize("path", ['"$user", public, extensions', '"$user", public'])
async def test_an_owner_who_is_no_superuser_fills_a_database_laid_out_as_supabase_does(
    postgres: str, parrots: Path, path: str
) -> None:
    async with owner_without_rights(postgres) as (name, url):
        admin = address(postgres, database=name)
        await execute(admin, "create schema extensions", "create extension vector schema extensions",
                      f"alter database {name} set search_path = {path}")  # fmt: skip
        database = Database(url)
        with pytest.raises(InvalidInput, match=f"administrator run `grant usage on schema extensions to {APP_ROLE}"):
            await upgrade(database, ROOT)
        await execute(admin, f"grant usage on schema extensions to {name} with grant option")
        await upgrade(database, ROOT)
        await works(database, parrots)
        made = await fetch(admin, "select nspname from pg_class c join pg_namespace n on n.oid = relnamespace"
                                  " where relname = 'chunk'")  # fmt: skip
        assert made == [("public",)]
        await database.close()


@pytest.mark.usefixtures("template")
async def test_an_owner_who_may_not_take_the_roles_of_another_is_told_what_to_run(postgres: str) -> None:
    async with owner_without_rights(postgres) as (name, url):
        await execute(address(postgres, database=name), "create extension vector")
        await execute(postgres, f"revoke {APP_ROLE}, {SYSTEM_ROLE} from {name}")
        database = Database(url)
        for _ in range(2):  # one statement at a time: what is lacking shows as it is tried
            with pytest.raises(InvalidInput, match=f"administrator run `grant .* to {name} with admin option`") as told:
                await upgrade(database, ROOT)
            await execute(postgres, told.value.message.split("`")[1])
        await upgrade(database, ROOT)
        await database.close()


@pytest.mark.usefixtures("template")
async def test_a_login_that_the_owner_may_not_make_is_asked_for_by_its_quoted_name(postgres: str) -> None:
    async with owner_without_rights(postgres) as (name, url):
        await execute(postgres, f"alter role {name} nocreaterole")
        web = f"Web of {name}"
        database = Database(address(url, user=web, password="secret$$'"), owner_url=url)
        for _ in range(2):
            with pytest.raises(InvalidInput, match=rf'administrator run `(create role|grant).*"{web}"') as told:
                await database.make_login()
            assert "secret" not in told.value.message
            await execute(postgres, told.value.message.split("`")[1])
            await execute(postgres, f"grant {APP_ROLE} to {name}")
            await execute(postgres, f"revoke admin option for {APP_ROLE} from {name} cascade")
        await database.make_login()
        await database.close()
        await execute(postgres, f'drop role "{web}"')


@pytest.fixture(scope="module")
def guarded(postgres: str) -> Iterator[str]:
    """A database of a server that asks users called `pw_...` for their password."""

    ((file,),) = asyncio.run(fetch(postgres, "show hba_file"))
    rules = Path(file)
    rules.write_text(f"local all /^pw_ scram-sha-256\n{rules.read_text()}")

    async def guard() -> None:
        await execute(postgres, "create role pw_nobody login password null", "select pg_reload_conf()")
        while True:  # until the server has read it
            try:
                wrong = address(postgres, user="pw_nobody", password="wrong")  # pragma: allowlist secret
                await (await asyncpg.connect(wrong)).close()
            except asyncpg.InvalidPasswordError:
                break
        await execute(postgres, "drop role pw_nobody")

    with copy_database(postgres) as url:
        asyncio.run(guard())
        yield url


@contextmanager
def renamed(postgres: str, url: str, name: str) -> Iterator[str]:
    """The database of `url` under another name."""
    was = urlsplit(url).path[1:]
    asyncio.run(execute(postgres, f"alter database {ident(was)} rename to {ident(name)}"))
    try:
        yield name
    finally:
        asyncio.run(execute(postgres, f"alter database {ident(name)} rename to {ident(was)}"))


# Without a comma in the name: asyncpg does not escape it where it proves that it knows the password.
@given(user=ANY.filter(lambda name: "," not in name), password=ANY, database=ANY)
@example(user="Select", password="$$x$$", database="db")
@example(user="a'b\"c\\d", password="$do$'\"\\%40", database="50% of: it's \"$$\\")
@settings(max_examples=12)
def test_any_user_password_and_database_are_read_alike_by_all_that_connect(
    postgres: str, template: str, guarded: str, user: str, password: str, database: str
) -> None:
    async def run(name: str, owner: str) -> None:
        url = address(owner, user=name, password=password)
        settings = load_settings(database_url=url, database_owner_url=owner, model="offline", workspace=ROOT)
        opened = await open_database(settings)  # makes the user, and asks something as it
        try:
            async with opened.transaction() as session:
                connection = await session.connection()
                row = await connection.exec_driver_sql("select session_user, current_database()")
                seen: list[Any] = [tuple(row.one())]
            direct = await opened.direct()
            seen.append(tuple(await direct.fetchrow("select session_user, current_database()")))
            await direct.close()
            async with opened.transaction(patient=True) as session:
                row = await (await session.connection()).exec_driver_sql("select session_user, current_database()")
                seen.append(tuple(row.one()))
            assert seen == [(name, database)] * 3
        finally:
            await opened.close()

    name = f"pw_{user}"
    with renamed(postgres, guarded, database):
        try:
            asyncio.run(run(name, address(guarded, database=database)))
        finally:
            asyncio.run(execute(postgres, f"drop role if exists {ident(name)}"))


@pytest.mark.parametrize("password", ["a#b", "a/b", "a?b", "a@b"])
async def test_a_password_that_is_not_encoded_is_refused_with_how_to_write_it(postgres: str, password: str) -> None:
    url = f"postgresql://me:{password}@localhost:1/db"
    with pytest.raises(InvalidInput, match="%40 stands for @") as refused:
        await open_database(load_settings(database_url=url, model="offline", workspace=ROOT))
    assert password not in refused.value.message
