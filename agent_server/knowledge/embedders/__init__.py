"""Embedders by name.

A module of this folder is one, and so is what an installed package or the workspace brings along.
"""

import importlib
import inspect
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn

from agent_server.errors import InvalidInput, name_known
from agent_server.knowledge.embedders.base import MAX_DIMENSIONS, Embedder
from agent_server.knowledge.embedders.opened import Embedders, MadeBy
from agent_server.knowledge.embedders.remote import REMOTE, create_remote, find_problem
from agent_server.settings import Settings

GROUP = "agent_server.embedders"
FACTORY = "create_embedder"
_SETTING = "AGENT_SERVER_EMBEDDER"


def open_embedder(settings: Settings) -> Embedders:
    """The embedder of the settings. Raises InvalidInput."""
    default = create_remote(settings) if settings.embedder in REMOTE else get_embedder(settings.embedder)
    return Embedders(default, lambda made_by: _open(settings, made_by))


def _open(settings: Settings, made_by: MadeBy) -> Embedder:
    """An embedder beside that of the settings, which gives it its key and its time."""
    chosen = {f"embedder_{name}": made_by.get(name) for name in ("model", "url", "dimensions")}
    chosen["embedder_weight"] = made_by.get("weight", settings.embedder_weight)
    changed = settings.model_copy(update={"embedder": made_by.get("name", settings.embedder), **chosen})
    return create_remote(changed) if changed.embedder in REMOTE else reopen(made_by)


def reopen(made_by: MadeBy) -> Embedder:
    """An embedder by its name. Raises InvalidInput."""
    name = str(made_by.get("name"))
    module, _, attribute = name.partition(":")
    # What stands in the database is called only where it is the class of an embedder.
    if attribute and not (isinstance(kind := _import_attribute(module, attribute), type) and hasattr(kind, "embed")):
        _refuse(module, f"{attribute} is no class of an embedder", TypeError(name))
    return get_embedder(name)


def gather_embedders(embedder: Embedder) -> Embedders:
    """An embedder with a way to those of before."""
    return embedder if isinstance(embedder, Embedders) else Embedders(embedder, reopen)


def get_embedder(name: str) -> Embedder:
    """The embedder that the setting names.

    The name is that of a module in this folder, of an entry point in `GROUP`, or `package.module:factory`.
    Raises InvalidInput with the names that there are.
    """
    # The setting may name a class, a function that makes an embedder, or one that is made already.
    given = _import_by_name(name)
    embedder = given() if callable(given) else given
    if problem := _find_problem(embedder):
        raise InvalidInput(f"{_SETTING}: {name} gives no embedder: {problem}")
    found: Embedder = embedder
    return found


def find_problem_of_settings(settings: Settings) -> str | None:
    """What keeps the settings from naming an embedder."""
    if settings.embedder in REMOTE:
        return find_problem(settings)
    problem = find_problem_of_name(settings.embedder)
    return f"{_SETTING}: {problem}" if problem else None


def find_problem_of_name(name: str) -> str | None:
    """What keeps a name from being that of an embedder."""
    if name in _list_modules():
        return None  # without the import, which takes a while
    try:
        _import_by_name(name)
    except InvalidInput as error:
        return error.message.removeprefix(f"{_SETTING}: ")
    return None


def _import_by_name(name: str) -> Any:
    """What makes the embedder, or the embedder itself."""
    if ":" in name:
        return _import_attribute(*name.split(":", 1))
    if name in _list_modules():
        return _import_attribute(f"{__name__}.{name}", FACTORY)
    if name in (points := _list_entry_points()):
        return _import_attribute(points[name].module, points[name].attr or FACTORY)
    there = name_known(name, {*_list_modules(), *REMOTE, *points})
    raise InvalidInput(f"{_SETTING}: there is no embedder {name!r}; {there}, or your own as module:factory")


def _list_modules() -> list[str]:
    # `base` is the protocol, `opened` holds what is opened, and `remote` is made of settings
    return [module.name for module in pkgutil.iter_modules(__path__) if module.name not in ("base", "opened", "remote")]


def _list_entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _import_attribute(module: str, attribute: str) -> Any:
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # a missing module may be the one that was named, or one that it imports: the way out is not the same
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            _refuse(module, f"it imports {error.name}, which is not installed", error)
        _refuse(module, "there is no such module", error)
    # ValueError: import_module raises it for an empty name, as in ":factory".
    except (ImportError, SyntaxError, ValueError) as error:
        _refuse(module, str(error), error)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise InvalidInput(f"{_SETTING}: {module} has no {attribute}")
        found = getattr(found, part)
    return found


def _refuse(module: str, reason: str, error: Exception) -> NoReturn:
    raise InvalidInput(f"{_SETTING}: {module} cannot be imported: {reason}") from error


def _find_problem(embedder: Any) -> str | None:
    """What keeps a factory's result from being an embedder."""
    name, dimensions = getattr(embedder, "name", None), getattr(embedder, "dimensions", None)
    if not isinstance(name, str) or not name:
        return "it needs a `name`"
    if not isinstance(dimensions, int) or not 1 <= dimensions <= MAX_DIMENSIONS:
        return f"it needs `dimensions`, 1 to {MAX_DIMENSIONS}"
    # Checked here: a plain `def` would fail only at the first search, with a message that names no setting.
    if not inspect.iscoroutinefunction(getattr(embedder, "embed", None)):
        return "it needs `async def embed(self, texts)`"
    return None
