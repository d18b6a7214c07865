"""One thing is in order without a comparison.

The SDK sorts the agents of one name by all that they are, with every tool, setting and hand-off, some three times a turn.
Here each agent has a name of its own, so that each is sorted alone: that was a seventh of what a turn costs. Importing this
module spares it; the order is the same.
"""

import builtins
import importlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any


def sort(items: Iterable[Any], *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> list[Any]:
    """As `sorted`, which asks for the key of a single item as well."""
    listed = list(items)
    return listed if len(listed) < 2 else builtins.sorted(listed, key=key, reverse=reverse)


# Another version of the SDK may have it elsewhere, and then sorts as it did.
with suppress(ImportError):
    vars(importlib.import_module("agents._run_state_agent_identity"))["sorted"] = sort
