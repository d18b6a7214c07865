"""Modules that are imported when they are first used."""

import importlib
from typing import Any


class Late:
    """The module of that name, with whatever it holds. For one that takes long to import and that few processes use."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)
