"""Modules that are imported when they are first used."""

import importlib
from types import ModuleType
from typing import Any


class Late:
    """The module of that name, with whatever it holds. For one that takes long to import and that few processes use."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._module: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        self._module = self._module or importlib.import_module(self._name)
        # Kept, so that this is not called again for it: some are asked for in loops.
        value = vars(self)[name] = getattr(self._module, name)
        return value
