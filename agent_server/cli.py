"""The command line. Declarations only: what a command does is in `commands`, imported when one runs, so that `--help`
answers at once."""

import atexit
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from agent_server.cli_evals import evals
from agent_server.cli_feedback import feedback
from agent_server.cli_mcp import mcp
from agent_server.cli_options import Inputs, Json, Workspace
from agent_server.cli_options import example as _example
from agent_server.cli_options import group as _group
from agent_server.cli_options import run as _run
from agent_server.cli_prompts import prompts
from agent_server.version import VERSION

app = _group(
    "Write three folders (tools/, prompts/, content/), get a conversational agent server.",
    "serve --workspace ./my-agents",
)
content = _group("The pages in content/: check, index, search, measure.", "content search 'decompression stop'")
db = _group("The database: apply, undo, compare and write migrations.", "db upgrade")
tool = _group("The tools of the workspace: list and call them.", "tool list")
key = _group("API keys: make, list and revoke them.", "key create --name ci")
user = _group("Users, who sign in, hold keys and own what they store.", "user create ann --email ann@example.com")
for name, group in (
    ("mcp", mcp),
    ("content", content),
    ("db", db),
    ("tool", tool),
    ("prompt", prompts),
    ("eval", evals),
    ("feedback", feedback),
    ("key", key),
    ("user", user),
):
    app.add_typer(group, name=name)

User = Annotated[str, typer.Option("--user", help="The user it belongs to.")]
UserName = Annotated[str, typer.Argument(help="The user.")]
Role = Annotated[list[str] | None, typer.Option(help="A role they have; more than once. [default: user]")]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read their password from the first line of standard input.")
]
LOCAL = "local"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"agent-server {VERSION}")
        raise typer.Exit


@app.callback()
def agent_server(
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Write three folders (tools/, prompts/, content/), get a conversational agent server."""


@app.command(epilog=_example("serve --workspace ./my-agents --port 8080 --reload"))
def serve(
    workspace: Workspace = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on. [default: 8000]")] = None,
    workers: Annotated[int, typer.Option(min=1, help="How many processes serve.")] = 1,
    reload: Annotated[
        bool, typer.Option("--reload", help="Take over each change of the workspace; of Python by starting again.")
    ] = False,
) -> None:
    """Serve the page, chat, MCP and REST. Migrations and content/ are brought up to date first."""
    _run("serve", workspace, host=host, port=port, workers=workers, reload=reload)


@app.command(epilog=_example("chat 'How long do I wait before flying?'"))
def chat(
    message: Annotated[
        str | None, typer.Argument(help="What to say; without it, a conversation on the terminal.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="The agent that answers. [default: routed]")] = None,
    conversation: Annotated[
        str | None, typer.Option(help="The conversation to go on with. [default: a new one]")
    ] = None,
    input: Inputs = None,
    trace: Annotated[
        bool,
        typer.Option("--trace", help="Show routing, passages, and each call of a model and a tool after an answer."),
    ] = False,
    json: Json = False,
    workspace: Workspace = None,
) -> None:
    """Talk to the agents."""
    said = {"message": message, "agent": agent, "conversation": conversation, "inputs": input or []}
    _run("chat", workspace, **said, as_json=json, trace=trace)


@app.command(epilog=_example("route 'Can I dive with asthma?'"))
def route(
    message: Annotated[str | None, typer.Argument(help="The message to route.")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="One message per line of standard input.")] = False,
    json: Json = False,
    workspace: Workspace = None,
) -> None:
    """Which agent would take a message, how sure, and by which path."""
    _run("route", workspace, message=message, stdin=stdin, as_json=json)


@app.command(epilog=_example("check --workspace ./my-agents"))
def check(workspace: Workspace = None, json: Json = False) -> None:
    """Name every mistake in the workspace, with file and line."""
    _run("check", workspace, as_json=json)


@app.command(epilog=_example("doctor --workspace ./my-agents"))
def doctor(workspace: Workspace = None) -> None:
    """Try the machine, the port, the database and the model."""
    _run("doctor", workspace)


@app.command(epilog=_example("init my-agents"))
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make; it must be empty or absent.")],
    template: Annotated[str | None, typer.Option(help="A whole example, such as diving.")] = None,
) -> None:
    """Make a small workspace that runs, to change into your own."""
    _run("init", None, folder=folder, template=template)


@content.command("validate", epilog=_example("content validate --json"))
def content_validate(workspace: Workspace = None, json: Json = False) -> None:
    """Name every mistake in content/, with file and line."""
    _run("content_validate", workspace, as_json=json)


@content.command("ingest", epilog=_example("content ingest --workspace ./my-agents"))
def content_ingest(
    source: Annotated[
        Path | None, typer.Argument(help="A folder, or a file with an address in a line: it becomes a collection.")
    ] = None,
    collection: Annotated[
        str | None, typer.Option("--collection", help="The collection's name; without it, the source's.")
    ] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Fetch addresses in private networks and of this machine too.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and ingest again at every change.")] = False,
    workspace: Workspace = None,
    json: Json = False,
) -> None:
    """Bring the index up to date with content/. What has not changed is not touched."""
    _run(
        "content_ingest",
        workspace,
        watch=watch,
        as_json=json,
        source=source,
        collection=collection,
        allow_private=allow_private,
    )


@content.command("benchmark", epilog=_example("content benchmark judged.yaml"))
def content_benchmark(
    questions: Annotated[
        Path, typer.Argument(help="YAML or JSON lines: {question, documents: [path, ...], must: [pattern, ...]}.")
    ],
    workspace: Workspace = None,
    json: Json = False,
) -> None:
    """Measure how well questions that you judged are answered."""
    _run("content_benchmark", workspace, questions=questions, as_json=json)


@content.command("search", epilog=_example("content search 'decompression stop' --limit 3"))
def content_search(
    query: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="One query per line of standard input.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=50, help="How many passages.")] = 5,
    json: Json = False,
    workspace: Workspace = None,
) -> None:
    """The passages that a question would be answered from."""
    _run("content_search", workspace, query=query, stdin=stdin, limit=limit, as_json=json)


@content.command("gaps", epilog=_example("content gaps --since 2026-11-01"))
def content_gaps(
    since: Annotated[str | None, typer.Option(help="From this date on. [default: 30 days ago]")] = None,
    workspace: Workspace = None,
    json: Json = False,
) -> None:
    """What was asked and the content did not answer."""
    _run("content_gaps", workspace, since=since, as_json=json)


@db.command("upgrade", epilog=_example("db upgrade"))
def db_upgrade(workspace: Workspace = None) -> None:
    """Apply every pending migration."""
    _run("db_upgrade", workspace)


@db.command("downgrade", epilog=_example("db downgrade workspace@-1"))
def db_downgrade(
    revision: Annotated[str, typer.Argument(help="Where to go back to, as in engine@base or workspace@-1.")],
    workspace: Workspace = None,
) -> None:
    """Undo migrations, down to a revision."""
    _run("db_downgrade", workspace, revision=revision)


@db.command("current", epilog=_example("db current --json"))
def db_current(workspace: Workspace = None, json: Json = False) -> None:
    """The migrations that the database has, and those it lacks."""
    _run("db_current", workspace, as_json=json)


@db.command("check", epilog=_example("db check"))
def db_check(workspace: Workspace = None) -> None:
    """Compare the tables with what tools/ and the engine declare. Exits with 1 where they differ."""
    _run("db_check", workspace)


@db.command("revision", epilog=_example("db revision 'add notes'"))
def db_revision(
    message: Annotated[str, typer.Argument(help="What the migration does.")], workspace: Workspace = None
) -> None:
    """Write a migration for the tables of tools/. It makes what the database does not have yet."""
    _run("db_revision", workspace, message=message)


@db.command("leftovers", epilog=_example("db leftovers --drop old_notes"))
def db_leftovers(
    drop: Annotated[list[str] | None, typer.Option(help="A table to drop with its rows; more than once.")] = None,
    guard: Annotated[
        list[str] | None, typer.Option(help="A table to keep, its rows for their owners alone; more than once.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before something is lost for good.")] = False,
    workspace: Workspace = None,
    json: Json = False,
) -> None:
    """The tables of tools that are gone, and how many rows they hold."""
    _run("db_leftovers", workspace, drop=drop or [], guard=guard or [], yes=yes, as_json=json)


@tool.command("list", epilog=_example("tool list --json"))
def tool_list(workspace: Workspace = None, json: Json = False) -> None:
    """The tools, with their schemas."""
    _run("tool_list", workspace, as_json=json)


@tool.command(
    "call",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog=_example("tool call create_task --title 'Buy fins'"),
)
def tool_call(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The tool.")],
    json: Annotated[str | None, typer.Option("--json", help="The arguments as one JSON object.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before something is lost for good.")] = False,
    workspace: Workspace = None,
) -> None:
    """Call a tool, each argument as --NAME VALUE. Prints the result as JSON.

    It acts as the local user, or as the owner of the key in AGENT_SERVER_KEY."""
    _run("tool_call", workspace, name=name, arguments=context.args, json_arguments=json, yes=yes)


@key.command("create", epilog=_example("key create --name ci --scope tasks:read --days 30"))
def key_create(
    name: Annotated[str, typer.Option(help="What it is for.")] = "key",
    scope: Annotated[
        list[str] | None, typer.Option(help="A scope it holds; more than once. [default: those of the user's roles]")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="How many days it works. [default: until revoked]")] = None,
    user: User = LOCAL,
    json: Json = False,
    workspace: Workspace = None,
) -> None:
    """Make an API key; its text is shown this once.

    Without --scope it may do what its user's roles allow at the time. The local user is an admin, who may do everything."""
    _run("key_create", workspace, name=name, scopes=scope or [], days=days, user=user, as_json=json)


@key.command("list", epilog=_example("key list"))
def key_list(json: Json = False, workspace: Workspace = None) -> None:
    """The keys, without their texts."""
    _run("key_list", workspace, as_json=json)


@key.command("revoke", epilog=_example("key revoke 019a1c7e-8c6b-7d3f-a1b2-0c3d4e5f6a7b"))
def key_revoke(id: Annotated[str, typer.Argument(help="The key's id.")], workspace: Workspace = None) -> None:
    """End a key and those made with it, at once."""
    _run("key_revoke", workspace, id=id)


@user.command("create", epilog=_example("user create ann --email ann@example.com --role staff"))
def user_create(
    name: Annotated[str, typer.Argument(help="Their name; an e-mail address is a good one.")],
    email: Annotated[str | None, typer.Option(help="What they sign in with.")] = None,
    password_stdin: PasswordStdin = False,
    role: Role = None,
    json: Json = False,
    workspace: Workspace = None,
) -> None:
    """Make a user. One with an e-mail and a password signs in."""
    _run(
        "user_create",
        workspace,
        name=name,
        email=email,
        password_stdin=password_stdin,
        roles=role or [],
        as_json=json,
    )


@user.command("list", epilog=_example("user list --json"))
def user_list(json: Json = False, workspace: Workspace = None) -> None:
    """The users, newest first."""
    _run("user_list", workspace, as_json=json)


@user.command("disable", epilog=_example("user disable ann"))
def user_disable(name: UserName, workspace: Workspace = None) -> None:
    """End the logins of a user. Their keys do not work until they are enabled."""
    _run("user_change", workspace, name=name, disabled=True)


@user.command("enable", epilog=_example("user enable ann"))
def user_enable(name: UserName, workspace: Workspace = None) -> None:
    """Let a user in again. Keys work as before; they sign in anew."""
    _run("user_change", workspace, name=name, disabled=False)


@user.command("password", epilog=_example("user password ann --password-stdin"))
def user_password(name: UserName, password_stdin: PasswordStdin = False, workspace: Workspace = None) -> None:
    """Give a user another password. Their logins end."""
    if not password_stdin:
        raise typer.BadParameter("give --password-stdin, and the password on standard input")
    _run("user_change", workspace, name=name, password_stdin=True)


@user.command("role", epilog=_example("user role ann --role staff --role user"))
def user_role(name: UserName, role: Role = None, workspace: Workspace = None) -> None:
    """Give a user these roles. They are in place of the ones before."""
    _run("user_change", workspace, name=name, roles=role or [])


def main() -> None:
    """The entry point of `agent-server`."""
    try:
        app()
    except SystemExit as end:
        if isinstance(end.code, int):
            _leave(end.code)
        raise


def _leave(code: int) -> None:
    """End the process, unless threads still run or nobody takes what it has printed."""
    # Python would take apart all that was imported, object by object: an eighth of what a command takes.
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        return
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):  # which Python then says itself
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
