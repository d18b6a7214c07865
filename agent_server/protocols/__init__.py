"""The protocols that chat clients speak.

Each is a folder over the same events: `request` in, `stream` out, its errors and its routes. A folder here that has a
`PROTOCOL` is spoken, and so is what an installed package names as an entry point of `GROUP`.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from agent_server.protocols.base import Protocol

GROUP = "agent_server.protocols"


def find_protocols() -> Sequence[Protocol]:
    """Every protocol that there is, in the order of their names."""
    own = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__) if module.ispkg]
    installed = [point.load() for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)]
    return tuple(module.PROTOCOL for module in own) + tuple(installed)
