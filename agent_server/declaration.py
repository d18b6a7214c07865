"""Parts of a tool's declaration that are checked by themselves."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agent_server.errors import find_near

_ROUTE = re.compile(r"/api/([a-z]+(?:-[a-z]+)*)")
ENGINE_ROUTES = frozenset(
    {
        "admin",
        "audit",
        "auth",
        "chat",
        "clients",
        "confirmations",
        "conversations",
        "documents",
        "feedback",
        "files",
        "guest",
        "health",
        "hooks",
        "jobs",
        "keys",
    }
    | {"me", "page", "passages", "resources", "session", "tools", "turns", "users"}
)
"""What may follow `/api/` in a tool's `route` no more: the engine answers there, or may one day."""


_TEXT, _YES_OR_NO, _COMPANION = "text in quotation marks", "True or False", "an `async def` function"
_OPTIONS: Mapping[str, tuple[str, Callable[[Any], bool], str]] = {
    "scope": (_TEXT, lambda value: isinstance(value, str), '"tasks:read"'),
    "effect": (_TEXT, lambda value: isinstance(value, str), '"read"'),
    "destructive": (_YES_OR_NO, lambda value: isinstance(value, bool), "True"),
    "staff": (_YES_OR_NO, lambda value: isinstance(value, bool), "True"),
    "title": (_TEXT, lambda value: value is None or isinstance(value, str), '"Add a task"'),
    "form": (_TEXT, lambda value: isinstance(value, str), '"Leave your address."'),
    "route": (_TEXT, lambda value: value is None or isinstance(value, str), '"/api/lead"'),
    "phrases": ("a list of texts", lambda value: _is_texts(value), '["add {title}"]'),
    "reconcile": (_COMPANION, lambda value: value is None or callable(value), "find_call"),
    "losses": (_COMPANION, lambda value: value is None or callable(value), "find_losses"),
    "result": (_TEXT, lambda value: isinstance(value, str), '"**{{ title }}** is on the list."'),
    "per_hour": ("a whole number", lambda value: value is None or type(value) is int, "10"),
}
"""Options of `@tool`: what each is, whether a value is that, and an example."""
STAND_INS: Mapping[str, Any] = {"scope": "stand:in", "effect": "read"}
"""What a declaration is read with in place of an option that it must have and lacks, so that its other mistakes show."""
EXAMPLE = '@tool(scope="tasks:read", effect="read")'


def _is_texts(value: Any) -> bool:
    # A text is a sequence of texts as well: each of its letters would be a phrase.
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, str) for one in value)


def read_options(
    declare: Callable[..., Any], given: Sequence[Any], options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The options that `declare` can take, and what is wrong with the others. `given` came without a name."""
    parameters = inspect.signature(declare).parameters
    right, wrong, meant = dict(options), [], set()
    for name in [name for name in options if name not in parameters]:
        del right[name]
        near = find_near(name, [other for other in parameters if other not in options])
        meant.add(near)
        wrong.append(
            f"there is no option {name}; did you mean {near}?"
            if near
            else f"there is no option {name}; there are {', '.join(parameters)}"
        )
    for name, value in list(right.items()):
        kind, fits, example = _OPTIONS.get(name, ("", lambda _: True, ""))
        if not fits(value):
            del right[name]
            wrong.append(f"{name} must be {kind}, as in {name}={example}")
    required = [name for name, p in parameters.items() if p.default is p.empty]
    missing = [name for name in required if name not in options and name not in meant]
    if given and not callable(given[0]):
        wrong.append(f"its options have names, as in {EXAMPLE}")
    elif missing:
        wrong.append(f"needs {' and '.join(f'{name}=...' for name in missing)}, as in {EXAMPLE}")
    return {**{name: value for name, value in STAND_INS.items() if name in required}, **right}, wrong


def is_function(value: Any) -> bool:
    """Whether this can be a tool's function."""
    return not isinstance(value, type) and inspect.isfunction(inspect.unwrap(value)) and hasattr(value, "__name__")


def find_caller() -> tuple[str, int]:
    """The file and line from which a declaration was made."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__") in (__name__, "agent_server.tool") and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def mistakes_of_signature(function: Callable[..., Any], name: str) -> Iterator[str]:
    """What is wrong with the function of a tool."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if not inspect.iscoroutinefunction(function):
        yield f"must be `async def`, as in `async def {name}(context: ToolContext, ...)`"
    if not parameters or parameters[0].name != "context":
        yield f"its first parameter must be `context: ToolContext`, as in `async def {name}(context: ToolContext, ...)`"
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY) for p in parameters):
        yield "*args, **kwargs and positional-only parameters have no schema; name each argument"
    arguments = parameters[1:] if parameters and parameters[0].name == "context" else parameters
    for argument in arguments:
        if argument.annotation is argument.empty:
            yield f"{argument.name} has no type; write one, as in `{argument.name}: str`"
    if signature.return_annotation is signature.empty:
        yield "needs a return type, as in `-> str`: it becomes the output schema"


def mistakes_of_route(route: str, *, has_form: bool) -> Iterator[str]:
    """What is wrong with the short address of a tool's form."""
    if not has_form:
        yield "route is the address of a form: declare form, what a person is told above it, beside it"
    if (parts := _ROUTE.fullmatch(route)) is None:
        yield f"route {route!r} is not /api/ and one word, as in /api/lead"
    elif parts[1] in ENGINE_ROUTES:
        yield f"route {route!r} is the server's own; choose another word"


def mistakes_of_companion(name: str, companion: Callable[..., Any], tool: inspect.Signature) -> Iterator[str]:
    """What is wrong with a function that a tool declares beside itself. It takes what the tool takes."""
    if not inspect.iscoroutinefunction(companion):
        yield f"{name} must be `async def`"
    if list(inspect.signature(companion).parameters) != list(tool.parameters):
        yield f"{name} must take what the tool takes: ({', '.join(tool.parameters)})"


def mistakes_of_reconcile(effect: str, reconcile: Callable[..., Any], tool: inspect.Signature) -> Iterator[str]:
    """What is wrong with a tool's `reconcile`."""
    if effect != "once":
        yield "reconcile is for the effect once: after a call of another effect nothing is in doubt"
    yield from mistakes_of_companion("reconcile", reconcile, tool)
    if tool.return_annotation in (None, "None"):
        yield "with reconcile it must return something: None from reconcile says that nobody knows"
