"""agent-server db"""

from collections.abc import Sequence

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import say, show
from agent_server.db import Database
from agent_server.db.leftovers import list_leftovers
from agent_server.db.revisions import revisions


async def db_upgrade(context: CommandContext) -> None:
    from agent_server.db.migrate import upgrade  # noqa: PLC0415  # heavy

    database = await context.raw_database()
    await upgrade(database, context.workspace.root)
    await db_current(context, as_json=False)


async def db_downgrade(context: CommandContext, revision: str) -> None:
    from agent_server.db.migrate import downgrade  # noqa: PLC0415  # heavy

    database = await context.raw_database()
    await downgrade(database, context.workspace.root, revision)
    await db_current(context, as_json=False)


async def db_current(context: CommandContext, as_json: bool) -> None:
    database = await context.raw_database()
    found = await revisions(database, context.root)
    if as_json:
        show({"current": list(found.current), "pending": list(found.pending)})
    else:
        say(
            f"The database is at {', '.join(found.current) or 'nothing'}; pending: {', '.join(found.pending) or 'nothing'}"
        )


async def db_check(context: CommandContext) -> int:
    database = await context.raw_database()
    # A database that lacks migrations differs from the models in any case; the list would be noise.
    missing = (await revisions(database, context.workspace.root)).pending
    found = [] if missing else await _list_differences(database)
    for line in [*(f"pending migration {revision}" for revision in missing), *found]:
        say(line)
    if left := await list_leftovers(database):
        say(f"Left over of tools that are gone: {', '.join(left)}; see `agent-server db leftovers`")
    if not missing and not found:
        say("The tables are as tools/ and the engine declare them")
    return 1 if missing or found else 0


async def _list_differences(database: Database) -> Sequence[str]:
    from agent_server.db.migrate import differences  # noqa: PLC0415  # heavy

    return await differences(database)


async def db_revision(context: CommandContext, message: str) -> None:
    from agent_server.db.migrate import revise  # noqa: PLC0415  # heavy

    database = await context.raw_database()
    path = await revise(database, context.workspace.root, message)
    say(f"Wrote {path}; read it, then run `agent-server db upgrade`")
