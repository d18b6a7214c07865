"""What libraries import for features that nothing here uses, kept out of the process.

Importing this module does it, for the libraries that are imported after it. Together it is 25 MB of a server's memory.

    agents      the MCP SDK, for the exception of MCP servers that are not given to it here; `/mcp` imports it when asked
                griffe, which reads docstrings of functions that are given to it as tools; it comes with the first one
    structlog   rich, for tracebacks that `log` writes itself
    httpx       rich and Pygments, for a command line of its own
    mako        Pygments, for pages that show an error of a template
    uvicorn     watchfiles, for restarts that are made here

Where a library has been imported before, or does not get by without, it has what it asks for.
"""

import importlib
import importlib.abc
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_LEFT_OUT: Mapping[str, str] = {
    "agents.function_schema": "griffe",
    "agents.mcp._compat": "mcp.shared.exceptions",
    "httpx": "httpx._main",
    "mako.exceptions": "mako.ext.pygmentplugin",
    "structlog.dev": "rich",
    "structlog.tracebacks": "rich",
    "uvicorn.supervisors": "uvicorn.supervisors.watchfilesreload",
}
"""What a module does without."""


class MCPError(Exception):
    """Stands in for the exception of the MCP SDK that agents catches."""


def _make_docstring(*given: Any, **options: Any) -> Any:
    return importlib.import_module("griffe").Docstring(*given, **options)


class _SectionKinds:
    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("griffe").DocstringSectionKind, name)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, _: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _LEFT_OUT or _LEFT_OUT[name] in sys.modules:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Runs a module while what it does without cannot be imported. It lasts no longer: others may want it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        try:
            with _leave_out(_LEFT_OUT[module.__name__]):
                self._loader.exec_module(module)
        except (ImportError, AttributeError, KeyError):
            # Another version of the library needs it.
            self._loader.exec_module(module)


@contextmanager
def _leave_out(name: str) -> Iterator[None]:
    stand_in: Any = None  # whoever imports it is told that there is no such module
    if name == "mcp.shared.exceptions":
        stand_in = ModuleType(name)
        stand_in.MCPError = MCPError
    elif name == "griffe":
        stand_in = ModuleType(name)
        stand_in.Docstring, stand_in.DocstringSectionKind = _make_docstring, _SectionKinds()
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]


sys.meta_path.insert(0, _Finder())
