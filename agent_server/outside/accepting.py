"""What a server declares beside what was accepted of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent_server.outside.pins import Declaration, Pin, choose_name, hash_declaration, is_too_long
from agent_server.outside.schemas import Unusable
from agent_server.outside.servers import OutsideServer
from agent_server.outside.tools import make_tool

State = Literal["accepted", "new", "changed", "gone", "unusable"]


@dataclass(frozen=True)
class Comparison:
    """One tool of a server. `pin` is what would be accepted, `before` what is, and `why` says why it cannot be used."""

    tool: str
    state: State
    pin: Pin | None = None
    before: Pin | None = None
    why: str = ""

    @property
    def name(self) -> str:
        """Our name for it; the server's where there is none."""
        known = self.pin or self.before
        return known.name if known else self.tool


def compare(
    server: OutsideServer, declared: Mapping[str, Declaration], accepted: Mapping[str, Pin]
) -> list[Comparison]:
    """The tools that a server may be used for, by its names for them."""
    names = sorted({name for name in {*declared, *accepted} if server.allows(name)})
    found: list[Comparison] = []
    taken = [pin.name for pin in accepted.values()]
    for name in names:
        before = accepted.get(name)
        if name not in declared:
            found.append(Comparison(name, "gone", None, before))
            continue
        one = _compare(server, name, declared[name], before, taken)
        if one.pin is not None:
            taken.append(one.pin.name)
        found.append(one)
    return found


def _compare(
    server: OutsideServer, name: str, declared: Declaration, before: Pin | None, taken: list[str]
) -> Comparison:
    ours = server.find_tool(name).name or (before.name if before else choose_name(server, name, taken))
    pin = Pin(ours, declared, hash_declaration(declared))
    try:
        if is_too_long(declared):
            raise Unusable("what its server says of it is too long")
        make_tool(server, pin, Path(), 1)
    except Unusable as error:
        return Comparison(name, "unusable", None, before, str(error))
    if before is None:
        return Comparison(name, "new", pin)
    return Comparison(name, "accepted" if before.declared == declared else "changed", pin, before)


def find_changes(before: Declaration, after: Declaration) -> Iterator[str]:
    """The parts of a declaration that are not the same."""
    return (key for key in sorted({*before, *after}) if before.get(key) != after.get(key))
