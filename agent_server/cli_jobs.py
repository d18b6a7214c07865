"""The declarations of `agent-server job`."""

from typing import Annotated

import typer

from agent_server.cli_options import Json, Workspace, example, group, run

jobs = group("Jobs: calls of long tools, which go on without whoever called.", "job list")
Id = Annotated[str, typer.Argument(help="The job's id.")]


@jobs.command("list", epilog=example("job list --json"))
def job_list(
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many, at most.")] = 50,
    json: Json = False,
    workspace: Workspace = None,
) -> None:
    """Your jobs, newest first, and how far they are."""
    run("job_list", workspace, limit=limit, as_json=json)


@jobs.command("show", epilog=example("job show 019a1c7e-8c6b-7d3f-a1b2-0c3d4e5f6a7b --wait"))
def job_show(
    id: Id,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    json: Json = False,
    workspace: Workspace = None,
) -> None:
    """How a job stands, and what came of it. Exits with 1 where it failed or was cancelled."""
    run("job_show", workspace, id=id, wait=wait, as_json=json)


@jobs.command("cancel", epilog=example("job cancel 019a1c7e-8c6b-7d3f-a1b2-0c3d4e5f6a7b"))
def job_cancel(id: Id, workspace: Workspace = None) -> None:
    """Stop a job. What it has stored is undone."""
    run("job_cancel", workspace, id=id)
