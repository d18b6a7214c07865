"""What commands say in Markdown, on standard output."""

import sys

from rich.console import Console
from rich.markdown import Markdown

from agent_server.commands.terminal import say


def show_markdown(text: str) -> None:
    """Markdown for a person: laid out on a terminal, as it stands elsewhere."""
    if sys.stdout.isatty():
        Console().print(Markdown(text))
    else:
        say(text)
