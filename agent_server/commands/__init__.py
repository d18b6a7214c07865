"""What the command line does. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 70 a bug of ours,
141 where nobody reads what it prints."""

import asyncio
import importlib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

import agent_server.lean  # noqa: F401  # first: it is for what is imported after it
from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import drop_unread, fail, is_unread
from agent_server.errors import AgentServerError, Internal, InvalidInput, WorkspaceInvalid
from agent_server.log import configure_logging, mask, recent
from agent_server.settings import load_settings

_COMMANDS = {
    "serve": "serving.serve",
    "mcp": "mcp.mcp",
    "mcp_install": "mcp_clients.install",
    "mcp_inspect": "mcp_offers.inspect",
    "mcp_list": "outside.list_servers",
    "mcp_test": "outside.test",
    "mcp_accept": "outside.accept",
    "chat": "talk.chat",
    "route": "route.route",
    "content_validate": "pages.validate",
    "content_ingest": "ingesting.ingest",
    "content_search": "knowledge.search",
    "content_benchmark": "knowledge.benchmark",
    "content_gaps": "gaps.list_gaps",
    "resource_list": "resources.list_resources",
    "resource_read": "resources.read_resource",
    "tool_list": "folders.list_tools",
    "tool_call": "tools.call",
    "job_list": "jobs.list_jobs",
    "job_show": "jobs.show_job",
    "job_cancel": "jobs.cancel_job",
    "prompt_render": "folders.render_prompt",
    "prompt_list": "prompts.list_prompts",
    "prompt_diff": "prompts.diff_prompts",
    "prompt_schema": "prompts.show_schema",
    "eval_run": "evals.run",
    "eval_replay": "stored.replay_turns",
    "eval_add": "stored.add",
    "eval_schema": "evals.schema",
    "feedback_list": "feedback.list_feedback",
    "prompt_blame": "requests.blame",
    "check": "check.check",
    "doctor": "doctor.doctor",
    "init": "init.init",
    "db_upgrade": "database.db_upgrade",
    "db_downgrade": "database.db_downgrade",
    "db_current": "database.db_current",
    "db_check": "database.db_check",
    "db_revision": "database.db_revision",
    "db_leftovers": "leftovers.db_leftovers",
    "key_create": "accounts.key_create",
    "key_list": "accounts.key_list",
    "key_revoke": "accounts.key_revoke",
    "user_create": "accounts.user_create",
    "user_list": "accounts.user_list",
    "user_change": "accounts.user_change",
}
"""Where each command is. Only the one that runs is imported: what others need takes seconds."""
_UNREAD = 141
"""128 and the number of SIGPIPE, as shells have it."""
_SELF_LOOPED = frozenset({"serve"})
"""Commands that run an event loop of their own."""
_BUSY = frozenset({"eval_run", "eval_replay"})


def run(command: str, workspace: Path | None, **options: Any) -> int:
    """Run one command and return its exit code."""
    try:
        code = _run(command, workspace, options)
    except BrokenPipeError:
        code = _UNREAD
    # What was printed last is still to be written, and `| head` may have enough.
    return _UNREAD if drop_unread() else code


def _run(command: str, workspace: Path | None, options: dict[str, Any]) -> int:
    try:
        given = {"workspace": workspace, "host": options.pop("host", None), "port": options.pop("port", None)}
        try:
            settings = load_settings(**given)
        except InvalidInput as error:
            if command != "check":
                raise
            from agent_server.commands.check import check_by_defaults  # noqa: PLC0415  # heavy

            return check_by_defaults(error, workspace, **options)
        # Other commands print results for people: only what goes wrong belongs between them.
        configure_logging(settings.log_level if command in ("serve",) else "WARNING", settings.log_format)
        recent.keep = settings.environment == "development"
        work = _import_command(command)
        if command in _SELF_LOOPED:
            return int(work(settings, given, **options) or 0)
        with asyncio.Runner(loop_factory=_choose_loop(command)) as runner:
            return runner.run(_run_in_context(CommandContext(settings), work, options))
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
    except Exception as error:  # noqa: BLE001  # the one catch-all of the command line: a bug is shown whole
        if isinstance(error, BrokenPipeError) and is_unread():
            return _UNREAD
        fail(mask(traceback.format_exc()))
        return 70


def _choose_loop(command: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop that a server would run on, where a command works long enough to be worth its import."""
    if command not in _BUSY:
        return None
    from uvicorn.loops.auto import auto_loop_factory  # noqa: PLC0415  # heavy

    return auto_loop_factory()


def _import_command(command: str) -> Any:
    module, _, function = _COMMANDS[command].partition(".")
    return getattr(importlib.import_module(f"{__name__}.{module}"), function)


async def _run_in_context(context: CommandContext, work: Any, options: dict[str, Any]) -> int:
    try:
        return int(await work(context, **options) or 0)
    finally:
        await context.close()
