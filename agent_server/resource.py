"""A resource is one typed function, whose result MCP clients read by its address.

    @resource("orders://{id}", scope="orders:read")
    async def order(context: ToolContext, id: UUID) -> OrderView:
        \"\"\"An order of the caller's.\"\"\"

It is read as a tool is called, with the same context, authorisation, time limit and record. What stands in braces in the
address are the function's parameters; `{+path}` takes slashes as well. A text is sent as text, bytes as they are, anything
else as JSON.
"""

import base64
import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import quote, unquote

from pydantic import BaseModel, TypeAdapter

from agent_server.changes import Changes
from agent_server.errors import Mistake
from agent_server.tool import Tool, ToolContext, collect_mistakes, report_mistakes, tool

_VARIABLE = re.compile(r"\{(\+?)([A-Za-z_][A-Za-z0-9_]*)\}")
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*):\S+")
_MIME = re.compile(r"[a-z]+/[A-Za-z0-9.+-]+(; ?charset=[A-Za-z0-9-]+)?")
RESERVED = frozenset({"content"})
"""Schemes of addresses that are the engine's alone."""
Function = Callable[..., Awaitable[Any]]


class Contents(BaseModel):
    """What is read at an address: a text, or bytes in base64."""

    mime_type: str
    text: str | None = None
    blob: str | None = None


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One declared resource. Call it like the function it was made from; `reader` is what surfaces call.

    `uri` is an address, or a template of some. `completers` give values of parameters, by their names, for what a user
    has begun to type.
    """

    uri: str
    function: Function
    reader: Tool[..., Any]
    completers: Mapping[str, Tool[..., Any]]
    mime_type: str
    icon: str | None

    async def __call__(self, context: ToolContext, *args: Any, **kwargs: Any) -> Any:
        return await self.function(context, *args, **kwargs)

    @property
    def name(self) -> str:
        return self.reader.name

    @property
    def scope(self) -> str:
        return self.reader.scope

    @cached_property
    def parameters(self) -> Sequence[str]:
        """The names in the address, in their order."""
        return tuple(found[2] for found in _VARIABLE.finditer(self.uri))

    @cached_property
    def shape(self) -> str:
        """The address without names: of two that have one shape nobody can say which is meant."""
        return _VARIABLE.sub("{}", self.uri)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts = _VARIABLE.split(self.uri)
        pattern = re.escape(parts[0])
        # Each variable is split into its sign and its name.
        for sign, name, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            # It ends where the text behind it begins: an address is read from left to right, whatever a client sends.
            pattern += f"(?P<{name}>{'.+' if sign else f'[^/?#{re.escape(text[:1])}]+'})" + re.escape(text)
        return re.compile(pattern, re.DOTALL)

    def match(self, uri: str) -> dict[str, str] | None:
        """The arguments in an address. None where it is none of this resource's."""
        found = self._pattern.fullmatch(uri)
        return None if found is None else {name: unquote(value) for name, value in found.groupdict().items()}

    def address(self, **values: Any) -> str:
        """The address with these values."""
        parts = _VARIABLE.split(self.uri)
        address = parts[0]
        for sign, name, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            value = quote(str(values[name]), safe="/" if sign else "")
            if text and not sign:
                value = value.replace(text[0], f"%{ord(text[0]):02X}")
            address += value + text
        return address


def announce(context: ToolContext, uri: str) -> None:
    """Tell the clients that watch an address that something else is read there, once this call has committed. `uri` may
    also be the name of a list (`changes.LISTS`)."""
    from agent_server.db import after_commit  # noqa: PLC0415  # a workspace is loaded where there is no way to a database

    changes: Changes | None = context.resources.get(Changes)
    if changes is not None:
        after_commit(context.session, functools.partial(changes.announce, uri))


def find_resource(resources: Sequence[Resource], uri: str) -> tuple[Resource, dict[str, str]] | None:
    """The resource at an address and its arguments. One without a template goes before the others."""
    for resource in sorted(resources, key=lambda resource: len(resource.parameters)):
        if (arguments := resource.match(uri)) is not None:
            return resource, arguments
    return None


def resource(
    uri: str,
    *,
    scope: str,
    title: str | None = None,
    mime_type: str | None = None,
    complete: Mapping[str, Callable[..., Awaitable[Sequence[str]]]] | None = None,
    icon: str | None = None,
) -> Callable[[Function], Resource]:
    """Declare a resource. Raises WorkspaceInvalid for what cannot work, with file and line.

    Args:
        uri: its address, as in "orders://open", or a template of addresses, as in "orders://{id}".
        scope: what a caller must hold, `resource:verb`.
        title: its name for people; by default its name in words.
        mime_type: what its contents are; by default text/plain of a text, application/octet-stream of bytes, and
            application/json of anything else.
        complete: for parameters of the address a function each, which takes the context and what a user has typed of
            one, and returns values that may be meant.
        icon: the address of a picture, https or data.
    """

    def declare(function: Function) -> Resource:
        code = inspect.unwrap(function).__code__
        name = function.__name__
        mime = mime_type or _mime_of(function)
        with collect_mistakes() as found:
            reader = tool(scope=scope, effect="read", title=title)(_reading(function, mime))
            completers = {key: _completer(name, key, each, scope) for key, each in (complete or {}).items()}
        declared = Resource(uri=uri, function=function, reader=reader, completers=completers, mime_type=mime, icon=icon)
        kept = [mistake.message.removeprefix(f"tool {name}: ") for mistake in found]
        wrong = [*_mistakes(declared, complete or {}), *kept]
        report_mistakes([Mistake(code.co_filename, code.co_firstlineno, f"resource {name}: {m}") for m in wrong])
        return declared

    return declare


def _reading(function: Function, mime_type: str) -> Function:
    """`function`, which returns its result as contents."""

    @functools.wraps(function)
    async def read(context: ToolContext, **arguments: Any) -> Contents:
        value = await function(context, **arguments)
        if isinstance(value, bytes):
            return Contents(mime_type=mime_type, blob=base64.b64encode(value).decode())
        if not isinstance(value, str):
            returns = TypeAdapter(get_type_hints(function, include_extras=True).get("return", Any))
            value = returns.dump_json(value).decode()
        return Contents(mime_type=mime_type, text=value)

    if "return" in function.__annotations__:
        # What is sent is this, whatever the author's function returns.
        read.__annotations__ = {**function.__annotations__, "return": Contents}
        read.__signature__ = inspect.signature(function).replace(return_annotation=Contents)  # type: ignore[attr-defined]
    return read


def _completer(resource: str, parameter: str, complete: Function, scope: str) -> Tool[..., Any]:
    """What finds values of a parameter for what was typed of it."""

    async def find(context: ToolContext, value: str) -> list[str]:
        return list(await complete(context, value))

    find.__name__ = f"complete_{resource}_{parameter}"[:64].lower()
    find.__doc__ = f"Values of {parameter} for what was typed of it."
    return tool(scope=scope, effect="read")(find)


def _mime_of(function: Function) -> str:
    match function.__annotations__.get("return"):
        case t if t is str or t == "str":
            return "text/plain"
        case t if t is bytes or t == "bytes":
            return "application/octet-stream"
    return "application/json"


def _mistakes(declared: Resource, complete: Mapping[str, Any]) -> Iterator[str]:
    address = _ADDRESS.fullmatch(_VARIABLE.sub("x", declared.uri))
    if address is None or set("{}") & set(_VARIABLE.sub("", declared.uri)):
        yield f'{declared.uri!r} is no address; one is a scheme and what it names, as in "orders://open" or "orders://{{id}}"'
    elif address[1] in RESERVED:
        yield f"{address[1]}: is the server's own; choose another scheme"
    names, taken = declared.parameters, list(inspect.signature(declared.function).parameters)[1:]
    if re.search(r"\}[{A-Za-z0-9%]", declared.uri):
        yield "behind a name in the address comes a sign, as in {a}/{b} or {a}-{b}; write one"
    if declared.uri.count("{+") > 1:
        yield "two names in the address take slashes; nobody could say where the first one ends"
    if twice := sorted({name for name in names if names.count(name) > 1}):
        yield f"{twice[0]} is twice in the address; name each once"
    for name in sorted({*names} - {*taken}):
        yield f"{{{name}}} in the address is no parameter; it takes {', '.join(taken) or 'none'}"
    for name in taken:
        if name not in names:
            yield f"{name} is not in the address; write it there, as in {declared.uri}/{{{name}}}, or take it out"
    for name, each in complete.items():
        if name not in names:
            yield f"complete: {name} is no parameter; there are {', '.join(names) or 'none'}"
        if not inspect.iscoroutinefunction(each) or len(inspect.signature(each).parameters) != 2:
            yield f"complete: {name} must be `async def` and take (context: ToolContext, value: str)"
    if not _MIME.fullmatch(declared.mime_type):
        yield f"mime_type {declared.mime_type!r} is none, as in text/markdown"
    if declared.icon is not None and not declared.icon.startswith(("https://", "data:image/")):
        yield "icon is the address of a picture, https: or data:image/"


def collect_resources(found: Sequence[Resource], root: Path) -> tuple[tuple[Resource, ...], list[Mistake]]:
    """The resources that clients are offered, and those that have the address or the name of another one."""
    kept: dict[str, Resource] = {}
    problems: list[Mistake] = []
    for resource in found:
        other = kept.setdefault(resource.shape, resource)
        same = next((each for each in kept.values() if each.name == resource.name and each is not resource), None)
        if other is not resource:
            whose = f"{resource.uri} is the address of {other.name} already, {_place(other, root)}"
            problems.append(_clash(resource, whose, root))
        elif same is not None:
            problems.append(_clash(resource, f"there is one of this name already, {_place(same, root)}", root))
    return tuple(kept.values()), problems


def _clash(resource: Resource, message: str, root: Path) -> Mistake:
    path = Path(resource.reader.file)
    file = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return Mistake(file, resource.reader.line, f"resource {resource.name}: {message}; change one")


def _place(resource: Resource, root: Path) -> str:
    path = Path(resource.reader.file)
    if not path.is_relative_to(root):
        return "the server's own"
    return f"{path.relative_to(root).as_posix()}:{resource.reader.line}"
