"""A tool is one typed function, which agents, MCP, REST and the command line are offered.

    @tool(scope="tasks:write", effect="stored")
    async def create_task(context: ToolContext, title: Title, description: str = "") -> TaskView:
        \"\"\"Add a task to the caller's to-do list.\"\"\"

The signature is the only source: its parameters become the arguments model and the input schema, its return type the
output schema, its docstring the description that models read. `context` is absent from all of them.
"""

import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError

from agent_server.arguments import read_as_meant, read_object
from agent_server.bodies import refuse_unstorable
from agent_server.declaration import (
    find_caller,
    is_function,
    mistakes_of_companion,
    mistakes_of_reconcile,
    mistakes_of_route,
    mistakes_of_signature,
    read_options,
)
from agent_server.errors import (
    MOST_FIELDS,
    FieldError,
    InvalidInput,
    Mistake,
    WorkspaceInvalid,
    name_fields,
)
from agent_server.media import returns_parts
from agent_server.model_calls import refused_arguments
from agent_server.result_templates import find_template_mistakes
from agent_server.shapes import Shape
from agent_server.tool_context import Loss as Loss
from agent_server.tool_context import ToolContext as ToolContext

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Q = ParamSpec("Q")

Effect = Literal["read", "stored", "keyed", "once"]
"""What a call changes: nothing; only our database (exactly once); something outside that knows our idempotency key;
something outside that does not (at most once)."""
OUTSIDE: frozenset[Effect] = frozenset({"keyed", "once"})


# The longest name that OpenAI's API takes for a function.
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,63}")
_SCOPE = re.compile(r"[a-z_]+:[a-z_]+")


@dataclass(frozen=True)
class Declared:
    """What a tool takes whose function has no signature of its own: the schema is somebody else's. `check` gives the
    arguments that fit. It raises InvalidInput."""

    input_schema: dict[str, Any]
    check: Callable[[Mapping[str, Any]], dict[str, Any]]


class _Anything(BaseModel):
    """The arguments of a tool with a `Declared`."""

    model_config = ConfigDict(extra="allow")


# Compared as objects: what is kept of a tool is looked up for each message, and its fields would be hashed each time.
@dataclass(frozen=True, kw_only=True, eq=False)
class Tool(Generic[P, R]):
    """One declared tool. Call it like the function it was made from; `call_tool` is what surfaces use."""

    name: str
    title: str
    description: str
    scope: str
    effect: Effect
    destructive: bool
    staff: bool
    form: str
    route: str | None
    phrases: tuple[str, ...]
    result: str
    function: Callable[Concatenate[ToolContext, P], Awaitable[R]]
    reconcile: Callable[..., Awaitable[Any]] | None
    losses: Callable[..., Awaitable[Sequence[Loss]]] | None
    per_hour: int | None
    long: bool
    file: str
    line: int
    declared: Declared | None = None
    recorded: str = "ok"
    """What the audit says of a call that was made."""

    async def __call__(self, context: ToolContext, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self.function(context, *args, **kwargs)

    @property
    def is_job(self) -> bool:
        """Whether its calls go on without whoever called."""
        return self.long

    # Made when first used: a type may be defined further down in the module of the tool.
    @cached_property
    def arguments(self) -> type[BaseModel]:
        if self.declared is not None:
            return _Anything
        hints = get_type_hints(self.function, include_extras=True)
        parameters = list(inspect.signature(self.function).parameters.values())[1:]
        fields: dict[str, Any] = {
            p.name: (hints[p.name], ... if p.default is p.empty else p.default) for p in parameters
        }
        # "forbid": a misspelt argument that has a default would otherwise be dropped without a word.
        # pydantic reads the text "NaN" as a number, which JSON and the database do not have.
        return create_model(self.name, __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)

    def has_result(self, cls: type[Any]) -> bool:
        """Whether the declared result is a `cls`."""
        declared = get_type_hints(self.function)["return"]
        return isinstance(declared, type) and issubclass(declared, cls)

    @cached_property
    def has_parts(self) -> bool:
        """Whether the result is an image or the like, or a list with some (`agent_server.media`)."""
        return returns_parts(get_type_hints(self.function, include_extras=True)["return"])

    @cached_property
    def returns(self) -> TypeAdapter[R]:
        return TypeAdapter(get_type_hints(self.function, include_extras=True)["return"])

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema 2020-12 of the arguments, without pydantic's titles (they cost a model tokens)."""
        if self.declared is not None:
            return self.declared.input_schema
        schema = strip_titles(self.arguments.model_json_schema())
        return {"type": "object", "properties": {}, **schema}

    @cached_property
    def output_schema(self) -> dict[str, Any]:
        """JSON Schema of the result as REST and the command line give it."""
        schema: dict[str, Any] = strip_titles(self.returns.json_schema(mode="serialization"))
        return schema

    @cached_property
    def shape(self) -> Shape:
        """What is known of the result, for those who say it in words."""
        return Shape.of(self.returns.json_schema(mode="serialization"))

    def validate(self, arguments: Mapping[str, Any] | str) -> dict[str, Any]:
        """The arguments (or the JSON text a model wrote), typed, as `read_as_meant` reads them. Raises InvalidInput that
        names each wrong one and does not echo its value."""
        if isinstance(arguments, str):
            arguments = read_object(self.name, arguments)
        if wrong := refused_arguments(arguments):
            raise InvalidInput(wrong)
        if self.declared is not None:
            refuse_unstorable(arguments, ())
            return self.declared.check(read_as_meant(arguments, self.input_schema))
        # Each that is unknown takes its time, and few are named.
        unnamed = frozenset([name for name in arguments if name not in self.arguments.model_fields][MOST_FIELDS:])
        arguments = {name: value for name, value in arguments.items() if name not in unnamed}
        # Before pydantic: it takes a NUL byte for text, and the database would fail in the middle of the call.
        refuse_unstorable(arguments, ())
        arguments = read_as_meant(arguments, self.input_schema)
        try:
            validated = self.arguments.model_validate(arguments)
        except ValidationError as error:
            # "from None": the text of pydantic's error quotes the values, which may be private.
            expected = f"{self.name} takes {_names(self.arguments)}"
            raise invalid_input(error, expected, unnamed=len(unnamed)) from None
        # Not `model_dump`: a nested model has to arrive in the tool as the model and not as a dict.
        return {name: getattr(validated, name) for name in type(validated).model_fields}

    def dump(self, value: R) -> Any:
        """`value` as JSON-ready data."""
        return self.returns.dump_python(value, mode="json")


# Not an argument: the tools declare themselves while their module is imported.
_COLLECTED: ContextVar[list[Mistake] | None] = ContextVar("collected", default=None)


@contextmanager
def collect_mistakes() -> Iterator[list[Mistake]]:
    """The mistakes of the tools declared in this block, which are noted there instead of raised at the first."""
    collected: list[Mistake] = []
    token = _COLLECTED.set(collected)
    try:
        yield collected
    finally:
        _COLLECTED.reset(token)


def _report_wrong_use(declare: Callable[Q, T]) -> Callable[Q, T]:
    """`declare`, which reports what Python would raise a TypeError for: as mistakes of the tool, in its file and line."""

    @functools.wraps(declare)
    def use(*given: Any, **options: Any) -> Any:
        right, wrong = read_options(declare, given, options)

        def apply(function: Any) -> Any:
            with collect_mistakes() as found:
                made = declare(**right)(function) if is_function(function) else function  # type: ignore[call-arg, operator]  # checked by `read_options`
            name = getattr(function, "__name__", type(function).__name__)
            file, line = (made.file, made.line) if isinstance(made, Tool) else find_caller()
            if made is function:
                wrong.append("is no function; @tool stands above an `async def`")
            report_mistakes([*(Mistake(file, line, f"tool {name}: {message}") for message in wrong), *found])
            return made

        # Without parentheses Python hands the function to `tool` itself.
        bare = len(given) == 1 and callable(given[0])
        return apply(given[0]) if bare else apply

    return use


@_report_wrong_use
def tool(
    *,
    scope: str,
    effect: Effect,
    destructive: bool = False,
    staff: bool = False,
    title: str | None = None,
    form: str = "",
    route: str | None = None,
    phrases: Sequence[str] = (),
    result: str = "",
    reconcile: Callable[..., Awaitable[Any]] | None = None,
    losses: Callable[..., Awaitable[Sequence[Loss]]] | None = None,
    per_hour: int | None = None,
    long: bool = False,
) -> Callable[[Callable[Concatenate[ToolContext, P], Awaitable[R]]], Tool[P, R]]:
    """Declare a tool. Raises WorkspaceInvalid for what cannot work, with file and line.

    Args:
        scope: what a caller must hold, `resource:verb`.
        effect: what a call changes (see `Effect`); there is no default.
        destructive: True where a call loses something for good.
        staff: True where its scope is for staff: the role `staff` holds it, and no user or guest does by default.
        title: its name for people; by default its name in words.
        form: what a person is told above a form of the arguments, which guests may send. The offline model offers it.
        route: a short address of the form, as in "/api/lead"; whoever has no credential is made a guest there.
        phrases: sentences by which the offline model calls it, with `{argument}` and `[...]` around words that may miss.
        result: how the result reads, as a Jinja2 template of Markdown over its fields. Without one, labels and values.
        reconcile: for the effect `once`: what became of a call that was cut off (docs/tools.md). It changes nothing.
        losses: for a destructive tool: what a call would lose, with its rows locked. Both take what the tool takes.
        per_hour: how often a caller may call it in an hour, and by REST an address.
        long: True where a call may take minutes: it is a job, which goes on without whoever called.
    """

    def declare(function: Callable[Concatenate[ToolContext, P], Awaitable[R]]) -> Tool[P, R]:
        code = inspect.unwrap(function).__code__
        declared: Tool[P, R] = Tool(
            name=function.__name__,
            title=title or function.__name__.replace("_", " ").capitalize(),
            description=inspect.getdoc(function) or "",
            scope=scope,
            effect=effect,
            destructive=destructive,
            staff=staff,
            form=form,
            route=route,
            phrases=tuple(phrases),
            result=result,
            function=function,
            reconcile=reconcile,
            losses=losses,
            per_hour=per_hour,
            long=long,
            file=code.co_filename,
            line=code.co_firstlineno,
        )
        report_mistakes([Mistake(code.co_filename, declared.line, message) for message in _mistakes(declared)])
        return declared

    return declare


def report_mistakes(mistakes: Sequence[Mistake]) -> None:
    """Add mistakes to those that are collected. Raises WorkspaceInvalid where nobody collects them."""
    collected = _COLLECTED.get()
    if collected is not None:
        collected += mistakes
    elif mistakes:
        raise WorkspaceInvalid(mistakes)


def _mistakes(tool: Tool[Any, Any]) -> Sequence[str]:
    return [f"tool {tool.name}: {message}" for message in _find_wrong(tool)]


def _find_wrong(tool: Tool[Any, Any]) -> Sequence[str]:
    found: list[str] = []
    signature = inspect.signature(tool.function)
    if not _NAME.fullmatch(tool.name):
        found.append("a name is 1 to 64 of a-z, 0-9 and _, and begins with no digit, as in add_task")
    if not _SCOPE.fullmatch(tool.scope):
        found.append(f"scope {tool.scope!r} is not resource:verb, as in tasks:write")
    if tool.effect not in ("read", "stored", "keyed", "once"):
        found.append(
            f"effect {tool.effect!r} is not one of read, stored, keyed, once; one that changes nothing is read"
        )
    if not tool.description:
        found.append(f'needs a docstring, as in """{tool.title}.""": models choose a tool by it')
    found += mistakes_of_signature(tool.function, tool.name)
    if tool.per_hour is not None and tool.per_hour < 1:
        found.append("per_hour is a number from 1; leave it out for no limit")
    if tool.long and tool.destructive:
        found.append("long is for a tool that is not destructive: nobody is there to be asked before a task begins")
    if tool.route is not None:
        found += mistakes_of_route(tool.route, has_form=bool(tool.form))
    if tool.reconcile is not None:
        found += mistakes_of_reconcile(tool.effect, tool.reconcile, signature)
    if tool.losses is not None:
        found += mistakes_of_companion("losses", tool.losses, signature)
        if not tool.destructive:
            found.append("losses is for a tool that is destructive: nobody is asked about another")
    # A wrong signature would fail here again, with a message that says less.
    if not found:
        try:
            _ = tool.input_schema, tool.output_schema
            found += find_template_mistakes(tool.result, tool.shape) if tool.result else ()
        except (PydanticUserError, SchemaError, NameError, TypeError, ValueError, AttributeError) as error:
            found.append(f"its types have no JSON schema: {str(error).splitlines()[0]}")
    return found


def invalid_input(error: ValidationError, expected: str, *, unnamed: int = 0) -> InvalidInput:
    """pydantic's complaints as ours: what is wrong and where, never the value that was sent. `unnamed` counts others
    that it was not asked about."""
    fields = [
        FieldError(".".join(str(part) for part in e["loc"]) or "body", e["msg"].removeprefix("Value error, "))
        for e in error.errors(include_input=False, include_url=False)[:MOST_FIELDS]
    ]
    return InvalidInput(f"{name_fields(fields, error.error_count() + unnamed)} ({expected})", fields)


def _names(model: type[BaseModel]) -> str:
    fields = model.model_fields.items()
    return ", ".join(name if info.is_required() else f"{name} (optional)" for name, info in fields) or "no arguments"


def strip_titles(schema: Any) -> Any:
    """A JSON Schema without the `title` keywords; a property that is called title stays."""
    if isinstance(schema, list):
        return [strip_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: strip_titles(item) for name, item in value.items()}
        # In these the keys are names of the author's: an argument may be called title.
        if key in ("properties", "$defs") and isinstance(value, dict)
        else strip_titles(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }


def describe(tool: Tool[..., Any]) -> dict[str, Any]:
    """A tool as `GET /api/tools` and `agent-server tool list` show it."""
    return {
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.input_schema,
        "output_schema": tool.output_schema,
        "scope": tool.scope,
        "effect": tool.effect,
        "destructive": tool.destructive,
    }
