"""What commands print, and what they ask: results on standard output, all else on standard error."""

import json
import os
import select
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


def is_unread() -> bool:
    """Whether nobody reads any more what this process prints."""
    if sys.platform == "win32":  # where there is no such signal either
        return True
    streams = select.poll()
    for stream in (sys.stdout, sys.stderr):
        streams.register(stream, 0)
    return any(state & select.POLLERR for _, state in streams.poll(0))


def drop_unread() -> bool:
    """Write out what was printed. True where nobody reads that: then it is dropped."""
    dropped = False
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            dropped = True
            # What could not be written is kept, and Python would complain of it at the end.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
    return dropped


def fail(text: str) -> None:
    """A line for a person on standard error."""
    print(text, file=sys.stderr)  # noqa: T201  # a command's complaint
