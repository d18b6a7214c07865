"""The declarations of `agent-server prompt`."""

from pathlib import Path
from typing import Annotated

import typer

from agent_server.cli_options import Inputs, Json, Workspace, example, group, run

prompts = group("The agents in prompts/: list, compare, show, explain.", "prompt render safety")


@prompts.command("render", epilog=example("prompt render safety --message 'Can I fly tomorrow?'"))
def prompt_render(
    name: Annotated[str, typer.Argument(help="The agent.")],
    message: Annotated[
        str | None, typer.Option(help="What a user says; without it, the instructions of the file alone.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="A JSON file with what is known of the user. [default: what is stored]")
    ] = None,
    conversation: Annotated[str | None, typer.Option(help="The conversation that it goes on. [default: none]")] = None,
    input: Inputs = None,
    json: Json = False,
    workspace: Workspace = None,
) -> None:
    """What an agent's model would be sent for a message.

    That is the prompt, rules of the server, passages, history and tools. Nobody is asked. With --json it is the body of
    the request."""
    given = {"message": message, "profile": profile, "conversation": conversation, "inputs": input or []}
    run("prompt_render", workspace, name=name, as_json=json, **given)


@prompts.command("blame", epilog=example("prompt blame 01a224b5-10d6-7360-89ba-b879cb65c7e1 --call 1"))
def prompt_blame(
    message: Annotated[str, typer.Argument(help="The id of a message or of a turn.")],
    call: Annotated[int | None, typer.Option(min=1, help="Which model call. [default: the one of the message]")] = None,
    owner: Annotated[str | None, typer.Option(help="The id of whose message it is. [default: you]")] = None,
    json: Json = False,
    workspace: Workspace = None,
) -> None:
    """What a model was sent for a stored message.

    It is the same whatever has changed since. With --json it is the body of the request."""
    run("prompt_blame", workspace, message=message, call=call, owner=owner, as_json=json)


@prompts.command("list", epilog=example("prompt list --json"))
def prompt_list(workspace: Workspace = None, json: Json = False) -> None:
    """The agents with their versions.

    Each with its share of new conversations, its hash, its file and its model."""
    run("prompt_list", workspace, as_json=json)


@prompts.command("diff", epilog=example("prompt diff support support.v2"))
def prompt_diff(
    before: Annotated[str, typer.Argument(help="An agent, a candidate as in support.v2, a file, or a hash.")],
    after: Annotated[str, typer.Argument(help="What it is compared with, by any of these.")],
    cases: Annotated[bool, typer.Option("--cases", help="Run the cases with both, too.")] = False,
    json: Json = False,
    workspace: Workspace = None,
) -> None:
    """What differs between two prompts.

    The front matter is compared key by key, the rendered text line by line."""
    run("prompt_diff", workspace, before=before, after=after, cases=cases, as_json=json)


@prompts.command("schema", epilog=example("prompt schema"))
def prompt_schema(workspace: Workspace = None) -> None:
    """The JSON Schema of the front matter of an agent, for editors."""
    run("prompt_schema", workspace)
