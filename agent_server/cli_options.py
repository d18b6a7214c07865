"""What every declaration of a command is made of."""

import gc
import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

Workspace = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        help="The folder with tools/, prompts/ and content/. [default: .]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="NAME=VALUE", help="A value for an input of the prompt; more than once."),
]
_MANY_OBJECTS = 100_000
"""So many new objects before the collector looks for garbage; Python's own 700 are many times fewer than one import
makes."""


def example(words: str) -> str:
    """An example at the end of a command's help, in a line of its own."""
    return f"\b\nExample: agent-server {words}"


def group(help: str, words: str) -> typer.Typer:
    """A group of commands. `words` are an example of one."""
    # Help is plain text: Rich would take "[default: 8000]" for markup and drop it.
    return typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help=help,
        epilog=example(words),
    )


def run(command: str, workspace: Path | None, **options: Any) -> None:
    """Run a command of `commands` and end with its exit code."""
    # What is imported stays: to look for garbage among it again and again is a seventh of what a command takes.
    gc.set_threshold(_MANY_OBJECTS)
    # Imported here: `--help` must not wait for the database toolkit and the models.
    commands = importlib.import_module("agent_server.commands")
    sys.exit(commands.run(command, workspace, **options))
