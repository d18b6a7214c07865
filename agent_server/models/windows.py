"""What litellm knows of models and providers. It is read from its files, because importing the package takes seconds."""

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agent_server.settings import Settings

# An enumeration in the source, from its first line to the next one at the margin.
_PROVIDERS = re.compile(r"^class LlmProviders\(.*?(?=^\S)", re.MULTILINE | re.DOTALL)
_VALUE = re.compile(r'^ +\w+ = "([^"]+)"', re.MULTILINE)
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


def list_providers() -> frozenset[str]:
    """The providers that litellm names. Without its list, which a later version may keep elsewhere, there are none."""
    return _read_providers()


def is_provider(name: str) -> bool:
    """Whether a model may be written `name/model`. Where nothing is known of providers, any name may be one."""
    providers = _read_providers()
    # The table has names of models that begin with more than the list has, `bedrock_converse/` for one.
    return not providers or name in providers or any(model.startswith(f"{name}/") for model in _read_windows())


@cache
def _read_providers() -> frozenset[str]:
    found = _PROVIDERS.search(_read("types/utils.py").decode(errors="replace"))
    try:
        like_openai = json.loads(_read("llms/openai_like/providers.json") or b"{}")
    except ValueError:
        like_openai = {}
    return frozenset(_VALUE.findall(found[0])) | frozenset(like_openai) if found else frozenset()


@cache
def find_price(name: str) -> tuple[float, float] | None:
    """What a token costs that the model `provider/model` reads, and one that it writes: US dollars. None where litellm's
    table does not say it."""
    table = _read_table()
    entry = table.get(name) or table.get(name.partition("/")[2])
    price = (entry.get("input_cost_per_token"), entry.get("output_cost_per_token")) if entry else (None, None)
    return (price[0], price[1]) if isinstance(price[0], int | float) and isinstance(price[1], int | float) else None


def _read_table() -> Mapping[str, Mapping[str, Any]]:
    try:
        table = json.loads(_read("model_prices_and_context_window_backup.json") or b"{}")
    except ValueError:
        return {}
    return {name: entry for name, entry in table.items() if isinstance(entry, dict)}


@cache
def _read_windows() -> Mapping[str, int]:
    sizes = {name: entry.get("max_input_tokens") for name, entry in _read_table().items()}
    return {name: size for name, size in sizes.items() if isinstance(size, int) and size > 0}


def _read(name: str) -> bytes:
    """A file of the package. It is empty where there is none: a later version may keep it elsewhere."""
    spec = find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        return b""
    try:
        return (Path(next(iter(spec.submodule_search_locations))) / name).read_bytes()
    except OSError:
        return b""
