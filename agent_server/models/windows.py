"""How many tokens a model takes at once."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from agent_server.settings import Settings

UNKNOWN = 8_192
"""Tokens that a model is taken to hold of which nothing is known: what small models on one's own machine are run with."""


def find_window(name: str, settings: Settings) -> int:
    """The context window of the model `provider/model`, tokens.

    It is what the setting says, or else what litellm's table of models does. Reading that table takes a while the first
    time.
    """
    if settings.context_window is not None:
        return settings.context_window
    provider, _, model = name.partition("/")
    windows = _read_windows()
    if provider.startswith("ollama"):
        # Ollama makes room for as much as it is asked to, in the memory of one's own machine.
        return min(windows.get(f"ollama/{model}", UNKNOWN), UNKNOWN)
    # Each provider's models are there under their own name, or after the provider's.
    return windows.get(name) or windows.get(model) or UNKNOWN


@cache
def _read_windows() -> Mapping[str, int]:
    """litellm's table. It is read as a file, because importing the package takes seconds."""
    spec = find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        return {}
    path = Path(next(iter(spec.submodule_search_locations))) / "model_prices_and_context_window_backup.json"
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError):  # a later version may keep it elsewhere
        return {}
    sizes = {name: entry.get("max_input_tokens") for name, entry in table.items() if isinstance(entry, dict)}
    return {name: size for name, size in sizes.items() if isinstance(size, int) and size > 0}
