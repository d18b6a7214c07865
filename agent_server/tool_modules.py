"""The modules of tools/, imported as `tools.*`."""

import importlib
import re
import sys
import traceback
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from agent_server.errors import Mistake
from agent_server.tool import collect_mistakes

_HINTS: Mapping[type[BaseException], str] = {
    ModuleNotFoundError: "; correct the name, or install the package that has it",
    SystemExit: "; a module of tools/ must not end the program",
}
_DEFINITION = re.compile(r"\bdef\s+(\w+)")


@dataclass(frozen=True)
class Imported:
    """The modules under tools/, imported as `tools.*`, and why those that did not import did not.

    `lost` are names in the modules that did not import: each may be that of a tool.
    """

    modules: Sequence[ModuleType] = ()
    mistakes: Sequence[Mistake] = ()
    lost: Set[str] = frozenset()


def import_tools(root: Path) -> Imported:
    """Import every module of tools/. Those that do not import are named with the reason."""
    folder = root / "tools"
    if not folder.is_dir():
        return Imported()
    _make_importable(root)
    modules: list[ModuleType] = []
    problems: list[Mistake] = []
    lost: set[str] = set()
    with collect_mistakes() as mistakes:
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(root)
            if any(part.startswith((".", "_")) and part != "__init__.py" for part in relative.parts):
                continue
            name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            try:
                modules.append(importlib.import_module(name))
            except (Exception, SystemExit) as error:  # noqa: BLE001  # a user's module may raise anything at import; each is a mistake to report
                problems.append(_import_mistake(error, path, root))
                lost.update(_DEFINITION.findall(path.read_text(encoding="utf-8", errors="replace")))
    problems += [replace(mistake, file=relative_path(mistake.file, root)) for mistake in mistakes]
    if not problems:
        _kept[folder] = (_list_states(folder), {name: sys.modules[name] for name in sys.modules if _is_of_tools(name)})
    return Imported(modules, problems, lost)


# A process may come back to a workspace, as tests do. To import its modules once more would declare its tables twice.
_kept: dict[Path, tuple[Mapping[Path, int], Mapping[str, ModuleType]]] = {}
"""The modules of folders that were imported without a mistake, and the state of their files then."""


def _list_states(folder: Path) -> Mapping[Path, int]:
    """When each module was changed."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.py")}


def _is_of_tools(name: str) -> bool:
    return name == "tools" or name.startswith("tools.")


def _make_importable(root: Path) -> None:
    """Make `tools` the package in `root`; that of another workspace makes way."""
    folder = root / "tools"
    loaded = sys.modules.get("tools")
    if loaded is not None and str(folder) not in [str(Path(p).resolve()) for p in loaded.__path__]:
        for name in list(filter(_is_of_tools, sys.modules)):
            del sys.modules[name]
    states, modules = _kept.get(folder, (None, {}))
    if "tools" not in sys.modules and states == _list_states(folder):
        sys.modules.update(modules)
    # In the first place: an installed package may be called `tools` as well.
    if sys.path[:1] != [str(root)]:
        sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    if "tools" not in sys.modules and not (folder / "__init__.py").is_file():
        # a folder without __init__.py would give way to any package of that name further down the path
        package = ModuleType("tools")
        package.__path__ = [str(folder)]
        sys.modules["tools"] = package


def _import_mistake(error: BaseException, path: Path, root: Path) -> Mistake:
    file, line = path, None
    # A module that cannot be read has no line in the traceback; its place is in the error.
    if isinstance(error, SyntaxError) and error.filename:
        file, line = Path(error.filename), error.lineno
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            # The last line of the author's own: the error may come from deep inside a library.
            if Path(frame.filename).is_relative_to(root / "tools"):
                file, line = Path(frame.filename), frame.lineno
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    hint = next((hint for kind, hint in _HINTS.items() if isinstance(error, kind)), "")
    return Mistake(relative_path(str(file), root), line, f"does not import: {type(error).__name__}: {message}{hint}")


def relative_path(file: str, root: Path) -> str:
    """A file as mistakes name it."""
    path = Path(file)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else file
