"""The declarations of `agent-server mcp`."""

from pathlib import Path
from typing import Annotated

import typer

from agent_server.cli_options import Json, Workspace, example, run

Toolset = Annotated[str | None, typer.Option(help="The toolset to serve, in place of all tools.")]

mcp = typer.Typer(
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=example("mcp --workspace ./my-agents"),
)


@mcp.callback()
def serve(context: typer.Context, toolset: Toolset = None, workspace: Workspace = None) -> None:
    """Serve MCP on standard input and output. An MCP client starts this command itself."""
    if context.invoked_subcommand is None:
        run("mcp", workspace, toolset=toolset)
    context.obj = workspace, toolset


@mcp.command("install", epilog=example("mcp install cursor --workspace ./my-agents"))
def install(
    context: typer.Context,
    client: Annotated[str, typer.Argument(help="claude-code, claude-desktop, cursor or vscode.")],
    url: Annotated[
        str | None, typer.Option(help="Where the server runs. [default: the client starts one of its own]")
    ] = None,
    name: Annotated[str, typer.Option(help="What the client calls the server.")] = "agent-server",
    project: Annotated[
        Path | None, typer.Option(help="The folder of a project, to write its file. [default: the user's file]")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    toolset: Toolset = None,
    workspace: Workspace = None,
) -> None:
    """Add this server to the configuration of an MCP client.

    It shows what it would write, asks first, and keeps the file as it was beside the new one."""
    chosen = {"client": client, "url": url, "name": name, "project": project, "yes": yes}
    run("mcp_install", workspace or context.obj[0], **chosen, toolset=toolset or context.obj[1])


@mcp.command("inspect", epilog=example("mcp inspect --json"))
def inspect(context: typer.Context, json: Json = False, toolset: Toolset = None, workspace: Workspace = None) -> None:
    """Show what a client is offered, and what tools cost in tokens."""
    run("mcp_inspect", workspace or context.obj[0], toolset=toolset or context.obj[1], as_json=json)


Server = Annotated[str | None, typer.Argument(help="A server of mcp.yaml. [default: all]")]


@mcp.command("list", epilog=example("mcp list"))
def list_servers(context: typer.Context, json: Json = False, workspace: Workspace = None) -> None:
    """List the servers of mcp.yaml and their accepted tools.

    None of them is asked anything."""
    run("mcp_list", workspace or context.obj[0], as_json=json)


@mcp.command("test", epilog=example("mcp test tickets"))
def try_servers(context: typer.Context, server: Server = None, json: Json = False, workspace: Workspace = None) -> None:
    """Compare the tools of servers with those accepted.

    It connects to them, and exits with 1 where one is away or a tool is held back."""
    run("mcp_test", workspace or context.obj[0], server=server, as_json=json)


@mcp.command("accept", epilog=example("mcp accept tickets"))
def accept(
    context: typer.Context,
    server: Server = None,
    tools: Annotated[list[str] | None, typer.Argument(help="Its tools. [default: all]")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    workspace: Workspace = None,
) -> None:
    """Accept the tools of servers into mcp.lock.

    It shows what each server says of them, and asks.
    Only accepted tools are offered, and one that has changed since is held back."""
    run("mcp_accept", workspace or context.obj[0], server=server, tools=tools or [], yes=yes)
