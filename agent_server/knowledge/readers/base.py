"""What every reader gives: bytes in, Markdown out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

LONGEST_TEXT = 20_000_000
"""Characters. A file that says more than this is refused."""


@dataclass(frozen=True)
class ReadText:
    """A file as Markdown.

    `title` is what the file itself is called, "" where it does not say. `remarks` say what was guessed or repaired, each
    with its line where there is one.
    """

    text: str
    title: str = ""
    remarks: tuple[tuple[int | None, str], ...] = ()


Reader: TypeAlias = Callable[[bytes], ReadText]


class Unreadable(Exception):
    """Why a file cannot be read, and on which line."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.message, self.line = message, line


class NoContent(Exception):
    """Why a file is no page. It is left out, and that is no mistake."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
