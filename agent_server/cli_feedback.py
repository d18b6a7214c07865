"""The declarations of `agent-server feedback`."""

from typing import Annotated

import typer

from agent_server.cli_options import Json, Workspace, example, group, run

feedback = group("What people think of the answers that they were given.", "feedback list --rating bad")


@feedback.command("list", epilog=example("feedback list --rating bad --since 2026-11-01"))
def feedback_list(
    rating: Annotated[str | None, typer.Option(help="good or bad. [default: both]")] = None,
    since: Annotated[str | None, typer.Option(help="What was given since that date, as in 2026-11-01.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, at most.")] = 50,
    json: Json = False,
    workspace: Workspace = None,
) -> None:
    """How answers were rated, and in words why.

    The newest is first, each with what was asked. `eval add --feedback ID` makes a case of one."""
    run("feedback_list", workspace, rating=rating, since=since, limit=limit, as_json=json)
