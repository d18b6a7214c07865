"""The declarations of `agent-server resource`."""

from typing import Annotated

import typer

from agent_server.cli_options import Json, Workspace, example, group, run

resources = group("What MCP clients read by an address: list and read it.", "resource list")


@resources.command("list", epilog=example("resource list"))
def resource_list(json: Json = False, workspace: Workspace = None) -> None:
    """List the addresses that can be read, and the templates of more."""
    run("resource_list", workspace, as_json=json)


@resources.command("read", epilog=example("resource read content://safety/flying.md"))
def resource_read(
    uri: Annotated[str, typer.Argument(help="The address.")], json: Json = False, workspace: Workspace = None
) -> None:
    """Print what is at an address."""
    run("resource_read", workspace, uri=uri, as_json=json)
