"""What commands print, and what they ask: results on standard output, all else on standard error."""

import json
import sys
from typing import Any


def show(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, ensure_ascii=False, default=str))  # noqa: T201  # a command's result


def say(text: str = "") -> None:
    """A line for a person on standard output."""
    print(text)  # noqa: T201  # a command's result


def agree(question: str) -> bool:
    """Whether the answer typed is a yes; the end of input is a no."""
    # Not typer's `confirm`: it writes a space to standard output, which is for a command's result alone.
    while True:
        print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)  # noqa: T201  # a command's question
        try:
            answer = input().strip().lower()
        except EOFError:
            answer = ""
        if answer in ("y", "yes", "n", "no", ""):
            return answer.startswith("y")
        fail("Answer y or n")


def fail(text: str) -> None:
    """A line for a person on standard error."""
    print(text, file=sys.stderr)  # noqa: T201  # a command's complaint
