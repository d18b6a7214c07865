"""The declarations of `agent-server eval`."""

from pathlib import Path
from typing import Annotated

import typer

from agent_server.cli_options import Json, Workspace, example, group, run

evals = group("The cases in evals/: run, record, replay them.", "eval run")


@evals.command("run", epilog=example("eval run evals/safety.yaml --model openai/gpt-5.4-mini"))
def eval_run(
    files: Annotated[
        list[str] | None, typer.Argument(help="Files of cases, or FILE::CASE. [default: all of evals/]")
    ] = None,
    prompt: Annotated[Path | None, typer.Option(help="A prompt file that stands in for the saved one.")] = None,
    vs: Annotated[Path | None, typer.Option(help="Another one: the same cases run with both.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="The model; more than once for several.")] = None,
    recordings: Annotated[
        str | None,
        typer.Option(metavar="MODE", help="replay, record, auto or off. [default: replay where there are some]"),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Run again what each saved file concerns.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit's XML there as well.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="The run to compare with. [default: evals/baseline.json]")
    ] = None,
    save_baseline: Annotated[bool, typer.Option("--save-baseline", help="Keep this run to compare with.")] = False,
    json: Json = False,
    workspace: Workspace = None,
) -> None:
    """Run cases through the agents on a database of their own. Exits with 1 where one fails, 2 for a mistake in what was
    given, 3 where a recording is missing."""
    run(
        "eval_run",
        workspace,
        files=files or [],
        prompt=prompt,
        versus=vs,
        models=model or [],
        recordings=recordings,
        watch=watch,
        as_json=json,
        junit=junit,
        baseline=baseline,
        save=save_baseline,
    )


@evals.command("replay", epilog=example("eval replay --since 2026-11-01 --prompt edited.md"))
def eval_replay(
    conversation: Annotated[str | None, typer.Option(help="The conversation whose turns run again.")] = None,
    since: Annotated[str | None, typer.Option(help="All turns since that date, as in 2026-11-01.")] = None,
    prompt: Annotated[Path | None, typer.Option(help="A prompt file that stands in for the saved one.")] = None,
    model: Annotated[str | None, typer.Option(help="The model. [default: the one that answers]")] = None,
    json: Json = False,
    workspace: Workspace = None,
) -> None:
    """Run stored turns again and show what differs. Tools return what they returned then; nothing is called."""
    run(
        "eval_replay",
        workspace,
        conversation=conversation,
        since=since,
        prompt=prompt,
        model=model,
        as_json=json,
    )


@evals.command("add", epilog=example("eval add --turn 019a1c7e-8c6b-7d3f-a1b2-0c3d4e5f6a7b"))
def eval_add(
    turn: Annotated[str | None, typer.Option(help="The turn, with what was said before it.")] = None,
    conversation: Annotated[str | None, typer.Option(help="The conversation, with its last turn.")] = None,
    feedback: Annotated[
        str | None, typer.Option(help="The turn that was rated; `feedback list` shows the ids.")
    ] = None,
    declined: Annotated[
        bool, typer.Option("--declined", help="The questions that nothing was known about; each expects an answer.")
    ] = False,
    since: Annotated[str | None, typer.Option(help="For --declined: since that date. [default: 30 days]")] = None,
    to: Annotated[Path | None, typer.Option(help="The file. [default: evals/added.yaml]")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="With what is known of the user.")] = False,
    workspace: Workspace = None,
) -> None:
    """Make a case of what was said. What looks like a secret or like personal data is masked."""
    run(
        "eval_add",
        workspace,
        turn=turn,
        conversation=conversation,
        feedback=feedback,
        declined=declined,
        since=since,
        to=to,
        profile=profile,
    )


@evals.command("schema", epilog=example("eval schema"))
def eval_schema(workspace: Workspace = None) -> None:
    """The JSON Schema of a file of cases, for editors."""
    run("eval_schema", workspace)
