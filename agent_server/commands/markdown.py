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


class MarkdownWriter:
    """Markdown that comes in pieces. On a terminal its tables are laid out; all else is written as it comes."""

    def __init__(self) -> None:
        self._lays_out = sys.stdout.isatty()
        self._table = ""
        self._starts_line = True

    def write(self, text: str) -> None:
        """Write a piece. A table is held back until the line after it."""
        for part in text.splitlines(keepends=True):
            if self._lays_out and (self._table or (self._starts_line and part.startswith("|"))):
                self._hold(part)
            else:
                sys.stdout.write(part)
            self._starts_line = part.endswith("\n")
        sys.stdout.flush()

    def end(self) -> None:
        """Write what is held back: the text is complete, or something else comes between."""
        table, self._table = self._table, ""
        if table:
            show_markdown(table)
            sys.stdout.flush()

    def _hold(self, part: str) -> None:
        if self._starts_line and not part.startswith("|"):
            self.end()
            sys.stdout.write(part)
        else:
            self._table += part
