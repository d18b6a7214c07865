"""Parts of a tool's declaration that are checked by themselves."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

_ROUTE = re.compile(r"/api/([a-z]+(?:-[a-z]+)*)")
ENGINE_ROUTES = frozenset(
    {
        "admin",
        "audit",
        "auth",
        "chat",
        "confirmations",
        "conversations",
        "documents",
        "files",
        "guest",
        "health",
        "keys",
    }
    | {"me", "page", "passages", "session", "tools", "turns", "users"}
)
"""What may follow `/api/` in a tool's `route` no more: the engine answers there, or may one day."""


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
