"""What the command line does. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 70 a bug of ours."""

import asyncio
import traceback
from pathlib import Path
from typing import Any

import typer

from agent_server.commands import admin, check, doctor, knowledge, leftovers, serving, talk, tools
from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import fail
from agent_server.errors import AgentServerError, Internal, InvalidInput, WorkspaceInvalid
from agent_server.log import configure_logging, mask
from agent_server.settings import load_settings

_COMMANDS: dict[str, Any] = {
    "serve": serving.serve,
    "mcp": serving.mcp,
    "chat": talk.chat,
    "route": talk.route,
    "content_validate": knowledge.validate,
    "content_ingest": knowledge.ingest,
    "content_search": knowledge.search,
    "content_benchmark": knowledge.benchmark,
    "tool_list": tools.list_tools,
    "tool_call": tools.call,
    "prompt_render": admin.render_prompt,
    "check": check.check,
    "doctor": doctor.doctor,
    "init": admin.init,
    "db_upgrade": admin.db_upgrade,
    "db_downgrade": admin.db_downgrade,
    "db_current": admin.db_current,
    "db_check": admin.db_check,
    "db_revision": admin.db_revision,
    "db_leftovers": leftovers.db_leftovers,
    "key_create": admin.key_create,
    "key_list": admin.key_list,
    "key_revoke": admin.key_revoke,
    "user_create": admin.user_create,
    "user_list": admin.user_list,
    "user_change": admin.user_change,
}
_SELF_LOOPED = frozenset({"serve"})
"""Commands that run an event loop of their own."""


def run(command: str, workspace: Path | None, **options: Any) -> int:
    """Run one command and return its exit code."""
    try:
        given = {"workspace": workspace, "host": options.pop("host", None), "port": options.pop("port", None)}
        try:
            settings = load_settings(**given)
        except InvalidInput as error:
            if command != "check":
                raise
            return check.check_by_defaults(error, workspace, **options)
        # Other commands print results for people: only what goes wrong belongs between them.
        configure_logging(settings.log_level if command in ("serve",) else "WARNING", settings.log_format)
        work = _COMMANDS[command]
        if command in _SELF_LOOPED:
            return int(work(settings, given, **options) or 0)
        return asyncio.run(_run_in_context(CommandContext(settings), work, options))
    except WorkspaceInvalid as error:
        for problem in error.problems:
            fail(str(problem))
        return 1
    except Internal as error:  # its traceback is in the log, which is on standard error too
        fail(error.message)
        return 70
    except AgentServerError as error:
        fail(f"{error.code}: {error.message}")
        return 1
    except typer.BadParameter as error:
        fail(error.message)
        return 2
    except KeyboardInterrupt:
        # 128 and the number of SIGINT, as shells have it.
        return 130
    except Exception:  # noqa: BLE001  # the one catch-all of the command line: a bug is shown whole
        fail(mask(traceback.format_exc()))
        return 70


async def _run_in_context(context: CommandContext, work: Any, options: dict[str, Any]) -> int:
    try:
        return int(await work(context, **options) or 0)
    finally:
        await context.close()
