"""Databases that are made for a moment and dropped again."""

from urllib.parse import unquote, urlsplit, urlunsplit
from uuid import uuid4

from sqlalchemy import text

from agent_server.db.database import Database


async def create_scratch(server: Database, template: str | None = None) -> str:
    """Create a database beside `server` and return its address.

    It is a copy of the database at the address `template`, to which nobody may be connected; without one it is empty.
    """
    name = f"scratch_{uuid4().hex}"
    copied = f" template {_name(template)}" if template else ""
    await _execute(server, f"create database {name}{copied}")
    parts = urlsplit(server.owner_url or server.direct_url)
    return urlunsplit(parts._replace(path=f"/{name}"))


async def drop_scratch(server: Database, *urls: str) -> None:
    """Drop what `create_scratch` made, whoever is still connected to it."""
    await _execute(server, *(f"drop database {_name(url)} with (force)" for url in urls))


async def trade_safety_for_speed(server: Database) -> None:
    """Have a server write nothing through to the disk: it loses its data when the machine stops, and is done at once."""
    names = ("fsync", "full_page_writes", "synchronous_commit", "autovacuum")
    await _execute(server, *(f"alter system set {name} = off" for name in names), "select pg_reload_conf()")


def _name(url: str) -> str:
    return '"' + unquote(urlsplit(url).path.removeprefix("/")).replace('"', '""') + '"'


async def _execute(server: Database, *statements: str) -> None:
    # no transaction: Postgres creates and drops databases outside of one only
    async with server.owner.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
