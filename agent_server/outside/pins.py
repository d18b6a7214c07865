"""mcp.lock: the tools of outside servers as somebody has accepted them.

It stands beside mcp.yaml and goes wherever the workspace goes, so that every replica offers the same tools, also one
that cannot reach the server, and a change of what a server declares is read before it is accepted. It is written by
`agent-server mcp accept`.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_server.db import storable
from agent_server.errors import Mistake
from agent_server.outside.servers import OutsideServer

FILE = "mcp.lock"
VERSION = 1
_PINNED = ("name", "title", "description", "inputSchema", "outputSchema")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_NAME = re.compile(r"[^a-z0-9_]+")
_LONGEST_NAME = 64
_LONGEST_DECLARATION = 40_000

Declaration = Mapping[str, Any]
"""A tool as its server lists it, as far as it is pinned."""


@dataclass(frozen=True)
class Pin:
    """A tool that was accepted. `name` is ours, `declared` is all that its server said of it."""

    name: str
    declared: Declaration
    sha: str

    @property
    def their_name(self) -> str:
        return str(self.declared["name"])


Pins = Mapping[str, Mapping[str, Pin]]
"""By the names of the servers, and those that these have for their tools."""


def declaration_of(listed: Mapping[str, Any]) -> Declaration:
    """What is pinned of an entry of a server's list."""
    return storable({key: listed[key] for key in _PINNED if listed.get(key) is not None})  # type: ignore[no-any-return]  # `storable` keeps the type


def hash_declaration(declared: Declaration) -> str:
    """The same for declarations that differ in the order of their keys alone."""
    text = json.dumps(declared, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def is_too_long(declared: Declaration) -> bool:
    return len(json.dumps(declared)) > _LONGEST_DECLARATION


def choose_name(server: OutsideServer, tool: str, taken: Iterable[str]) -> str:
    """Our name for a tool of a server: its own one where that can be, else one with a hash of it."""
    if said := server.find_tool(tool).name:
        return said
    plain = _NO_NAME.sub("_", _HUMP.sub("_", tool).lower())
    name = f"{server.names_before}{plain}"
    if not name[:1].isalpha():
        name = f"_{name}".replace("__", "_")
    if len(name) <= _LONGEST_NAME and name not in {*taken}:
        return name
    return f"{name[: _LONGEST_NAME - 9]}_{hashlib.sha256(tool.encode()).hexdigest()[:8]}"


def read_pins(root: Path) -> tuple[Pins, list[Mistake]]:
    """What was accepted, and what is wrong with the file."""
    try:
        text = (root / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}, []
    except (UnicodeDecodeError, OSError) as error:
        return {}, [Mistake(FILE, None, f"cannot be read ({type(error).__name__})")]
    try:
        read = json.loads(text)
        if read["version"] != VERSION:
            raise ValueError
        pins = {
            str(server): {
                str(tool): Pin(str(entry["name"]), dict(entry["declared"]), str(entry["sha256"]))
                for tool, entry in entries.items()
            }
            for server, entries in read["servers"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        message = "is not as `agent-server mcp accept` writes it; remove it and accept the tools again"
        return {}, [Mistake(FILE, None, message)]
    edited = [
        Mistake(FILE, None, f"{server}: {tool} was edited by hand; run `agent-server mcp accept {server}`")
        for server, entries in pins.items()
        for tool, pin in entries.items()
        if pin.sha != hash_declaration(pin.declared) or pin.declared.get("name") != tool
    ]
    return pins, edited


def write_pins(root: Path, pins: Pins) -> None:
    """Write the file, whole or not at all."""
    servers = {
        server: {
            tool: {"name": pin.name, "sha256": pin.sha, "declared": dict(pin.declared)}
            for tool, pin in sorted(entries.items())
        }
        for server, entries in sorted(pins.items())
        if entries
    }
    text = json.dumps({"version": VERSION, "servers": servers}, indent=2, ensure_ascii=False)
    new = root / f"{FILE}.new"
    new.write_text(f"{text}\n", encoding="utf-8")
    os.replace(new, root / FILE)
