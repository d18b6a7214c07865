"""Copies of a database that tests borrow are as their template when they are borrowed again."""

import asyncio

import asyncpg
import pytest

from agent_server.testing.copies import DatabaseCopies

WRITE = "insert into job (kind, due_at) values ('mine', now())"
READ = "select count(*) from job where kind = 'mine'"
COUNT = "select pg_stat_force_next_flush()"


def test_a_connection_that_is_spared_can_be_used_on_and_what_it_wrote_is_gone(postgres: str, template: str) -> None:
    copies = DatabaseCopies(postgres, template)
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as loop:
        with copies.borrow() as url:
            connection = loop.run(asyncpg.connect(url))
            loop.run(connection.execute(WRITE))
            loop.run(connection.execute(COUNT))
            copies.spare(url, [connection.get_server_pid()])
        with copies.borrow() as again:
            assert again == url
            assert loop.run(connection.fetchval(READ)) == 0
        # It was spared once only.
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            loop.run(connection.fetchval(READ))
        connection.terminate()
    copies.close()
