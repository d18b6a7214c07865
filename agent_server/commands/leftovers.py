"""agent-server db leftovers"""

import asyncio
import sys
from collections.abc import Sequence

import typer

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import agree, fail, say, show
from agent_server.db.leftovers import Leftover, drop_leftovers, find_leftovers, guard_leftovers
from agent_server.wording import count


async def db_leftovers(context: CommandContext, drop: list[str], guard: list[str], yes: bool, as_json: bool) -> int:
    """List the tables of tools that are gone, and drop or guard those that are named."""
    _ = context.workspace  # its tools declare their tables as they are loaded
    database = await context.raw_database()
    if drop:
        named = [each for each in await find_leftovers(database) if each.table in drop]
        if not yes and not await _agree(named):
            fail("Not done.")
            return 1
        await drop_leftovers(database, drop)
        if not as_json:
            say(f"Dropped {_what(named)}")
    if guard:
        await guard_leftovers(database, guard)
    found = await find_leftovers(database)
    if as_json:
        show([vars(each) for each in found])
        return 0
    for each in found:
        state = "callers kept apart" if each.guarded else "open to every caller: the server does not start"
        say(f"{each.table}: {count(each.rows, 'row')}, declared by no tool; {state}")
    say(
        f"{count(len(found), 'table', ('is', 'are'))} left over: --drop NAME loses one, --guard NAME keeps it"
        if found
        else "Nothing is left over"
    )
    return 0


async def _agree(named: Sequence[Leftover]) -> bool:
    if named and not sys.stdin.isatty():
        raise typer.BadParameter(f"{_what(named)} would be lost for good; without a terminal to ask on, give --yes")
    return not named or await asyncio.to_thread(agree, f"Lose {_what(named)} for good?")


def _what(named: Sequence[Leftover]) -> str:
    return ", ".join(f"{each.table} with {count(each.rows, 'row')}" for each in named)
