"""Variables that are meant for this server and that it does not read."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dotenv.parser import parse_stream

from agent_server.errors import Mistake, find_near

PREFIX = "AGENT_SERVER_"
NO_SETTINGS = ("AGENT_SERVER_KEY", "AGENT_SERVER_RECORD", "AGENT_SERVER_TEST_DATABASE_URL")
"""Variables that are read elsewhere than in the settings: by commands, by `agent_server.testing`, by this project's tests."""
# Kubernetes tells each container of each service: one that is called agent-server makes these.
_OF_KUBERNETES = re.compile(r"AGENT_SERVER_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")


@dataclass(frozen=True)
class Variable:
    """A variable as it was found. `file` and `line` are those of an `.env`; one of the environment has none."""

    name: str
    file: str | None = None
    line: int | None = None


def list_variables(environment: Iterable[str], files: Iterable[Path]) -> list[Variable]:
    """The variables of the environment and of these `.env` files."""
    found = [Variable(name) for name in environment]
    for file in files:
        if file.is_file():  # a pipe can be read once only, which the settings have done
            with file.open(encoding="utf-8-sig", errors="replace") as stream:
                found += [Variable(b.key, str(file), b.original.line) for b in parse_stream(stream) if b.key]
    return found


def find_misspelt(variables: Iterable[Variable], known: Iterable[str]) -> Iterator[Mistake]:
    """The variables that begin as ours do and are none of the `known` ones.

    Variables of other programs are none of our business.
    """
    read = {*known, *NO_SETTINGS}
    for variable in variables:
        name = variable.name.upper()
        if not name.startswith(PREFIX) or name in read or _OF_KUBERNETES.fullmatch(name):
            continue
        # Without the beginning, which makes any two of them alike.
        names = {other.removeprefix(PREFIX).lower(): other.upper() for other in sorted(read, key=len)}
        near = find_near(name.removeprefix(PREFIX), names)
        meant = f"did you mean {names[near]}?" if near else "docs/settings.md has all that there are"
        if variable.file is None:
            yield Mistake(variable.name, None, f"there is no such setting; {meant}")
        else:
            yield Mistake(variable.file, variable.line, f"{variable.name}: there is no such setting; {meant}")
