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
        # The look-up of an imported module takes microseconds, and some are asked for in loops.
        self._module = self._module or importlib.import_module(self._name)
        return getattr(self._module, name)
