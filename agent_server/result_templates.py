"""The template beside a tool that says how its result reads.

    @tool(..., result="**{{ title }}**{% if due %}, by {{ due | date }}{% endif %}")

It is Jinja2 in a sandbox, and what it makes is Markdown. Its variables are the fields of the result, and `result` is all
of it. What stands in `{{ }}` is data and is escaped, so that it cannot make a link, a table's cell or a heading.
"""

import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, Undefined, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agent_server.shapes import ANYTHING, Shape
from agent_server.wording import (
    escape_markdown,
    is_month,
    join_words,
    one_line,
    shorten,
    word_months,
    word_value,
)

LONGEST_RESULT = 8_000
"""Characters of what a template makes. It is cut at the end of a line."""

_FAILS = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_ALONE = re.compile(r"^[ \t]*(\{%(?:(?!%\}).)*%\})[ \t]*\n", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n\s*\n\s*\n")
_KEEPING = frozenset({"sort", "list", "reverse", "unique", "selectattr", "rejectattr", "default", "d"})
_TAKING_ONE = frozenset({"first", "last", "min", "max"})


class TemplateFailed(Exception):
    """A template that cannot tell this result."""


def _date(value: Any) -> str:
    return word_value(value)


def _months(value: Any) -> str:
    if is_month(value):
        return word_value(value, "month")
    return word_months([month for month in value or () if is_month(month)])


def _words(value: Any) -> str:
    """`open_water` as "open water"; of a list, "reef, wall and wreck"."""
    if isinstance(value, list):
        return join_words([_words(entry) for entry in value])
    return word_value(value).replace("_", " ")


def _short(value: Any, longest: int = 160) -> str:
    return shorten(one_line(word_value(value)), longest)


FILTERS = {"date": _date, "months": _months, "words": _words, "short": _short}
"""Filters beside those of Jinja: a date or a time as people write it, months by their numbers, `snake_case` in words,
the beginning of a text."""


def _finalize(value: Any) -> Any:
    return value if isinstance(value, Undefined) else escape_markdown(word_value(value))


class _Environment(ImmutableSandboxedEnvironment):
    # The value is JSON: a field named `items` is the field, and not the method of the dict.
    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)


_TEMPLATES = _Environment(undefined=StrictUndefined, finalize=_finalize)
_TEMPLATES.globals.clear()
_TEMPLATES.filters |= FILTERS
# A result reads the same each time: a stream that is resumed is the rest of the first.
del _TEMPLATES.filters["random"]


def _lay_out(template: str) -> str:
    """The template without its indentation, and with no line for a tag that has the line to itself."""
    # In a comment the line end is gone from the text, and the lines of the template keep their numbers.
    return _ALONE.sub("\\1{#\n#}", inspect.cleandoc(template))


@functools.lru_cache(maxsize=1024)
def _compile(template: str) -> Template:
    return _TEMPLATES.from_string(_lay_out(template))


def render_result(template: str, value: Any) -> str:
    """What `template` says of a result, as Markdown. Raises TemplateFailed."""
    variables = {**value, "result": value} if isinstance(value, Mapping) else {"result": value}
    pieces: list[str] = []
    length = 0
    try:
        for piece in _compile(template).generate(variables):
            pieces.append(piece)
            length += len(piece)
            if length > LONGEST_RESULT:
                # Whole lines: half a row of a table, or half an escape, would read as something else.
                whole, _, _ = "".join(pieces)[:LONGEST_RESULT].rpartition("\n")
                pieces = [whole, "\n\n…"]
                break
    except _FAILS as error:
        raise TemplateFailed(str(error)) from error
    return _BLANK_LINES.sub("\n\n", "".join(pieces)).strip()


def find_template_mistakes(template: str, shape: Shape) -> Iterator[str]:
    """What is wrong with the template of a tool whose result has this shape."""
    try:
        tree = _TEMPLATES.parse(_lay_out(template))
        # A filter that is not there is found only here. Raw: what it is compiled to is compiled when it is first used.
        _TEMPLATES.compile(_lay_out(template), raw=True)
    except TemplateSyntaxError as error:
        yield f"result: line {error.lineno} of the template: {error.message}{_name_filters(error.message)}"
        return
    fields = shape.fields()
    names = None if fields is None else {**fields, "result": shape}
    yield from _Reader(names).read(tree.body)


def _name_filters(message: str | None) -> str:
    return f" Beside Jinja's own there are {', '.join(FILTERS)}." if message and message.startswith("No filter") else ""


class _Reader:
    """Follows a template through the shape of what it tells. `names` is None where any name may be there."""

    def __init__(self, names: Mapping[str, Shape] | None) -> None:
        self._any = names is None
        self._names: dict[str, Shape] = dict(names or {})
        self._mistakes: list[str] = []

    def read(self, body: list[nodes.Node]) -> Iterator[str]:
        """The mistakes in `body`, each once."""
        self._walk(body)
        return iter(dict.fromkeys(self._mistakes))

    def _walk(self, body: list[nodes.Node]) -> None:
        for node in body:
            match node:
                case nodes.Output():
                    for part in node.nodes:
                        self._shape_of(part)
                case nodes.If():
                    self._shape_of(node.test)
                    self._walk([*node.body, *node.elif_, *node.else_])
                case nodes.For():
                    self._loop(node)
                case nodes.Assign():
                    self._bind(node.target, self._shape_of(node.node))
                case _:
                    kind = type(node).__name__.lower()
                    self._note(node, f"{{% {kind} %}} cannot be used here; there are {{{{ }}}}, if, for and set")

    def _loop(self, node: nodes.For) -> None:
        each = self._shape_of(node.iter).entries()
        outside = dict(self._names)
        self._bind(node.target, each)
        self._names["loop"] = ANYTHING
        if node.test is not None:
            self._shape_of(node.test)
        self._walk(node.body)
        self._names = outside
        self._walk(node.else_)

    def _bind(self, target: nodes.Node, shape: Shape) -> None:
        if isinstance(target, nodes.Name):
            self._names[target.name] = shape
        else:
            self._names |= {name.name: ANYTHING for name in target.find_all(nodes.Name)}

    def _shape_of(self, node: nodes.Node) -> Shape:
        match node:
            case nodes.Name(name=name):
                return self._look_up(node, name)
            case nodes.Getattr(node=base, attr=name):
                return self._field(node, self._shape_of(base), name)
            case nodes.Getitem(node=base, arg=nodes.Const(value=str(name))):
                return self._field(node, self._shape_of(base), name)
            case nodes.Getitem(node=base, arg=nodes.Slice()):
                return self._shape_of(base)
            case nodes.Getitem(node=base):
                return self._shape_of(base).entries()
            case nodes.Call():
                self._note(node, "nothing can be called here; use a filter, as in {{ due | date }}")
                return ANYTHING
            case nodes.Filter(node=base, name=name) if base is not None:
                shape = self._shape_of(base)
                for argument in [*node.args, *node.kwargs]:
                    self._shape_of(argument)
                if name in _TAKING_ONE:
                    return shape.entries()
                return shape if name in _KEEPING else ANYTHING
            case _:
                for child in node.iter_child_nodes():
                    self._shape_of(child)
                return ANYTHING

    def _look_up(self, node: nodes.Node, name: str) -> Shape:
        if name in self._names:
            return self._names[name]
        if not self._any:
            self._note(node, f"the result has no field {name!r}; there are {', '.join(sorted(self._names))}")
        return ANYTHING

    def _field(self, node: nodes.Node, base: Shape, name: str) -> Shape:
        fields = base.fields()
        if fields is None:
            return ANYTHING
        if name not in fields:
            there = f"there are {', '.join(sorted(fields))}" if fields else "it has none"
            self._note(node, f"there is no field {name!r} here; {there}")
        return fields.get(name, ANYTHING)

    def _note(self, node: nodes.Node, message: str) -> None:
        self._mistakes.append(f"result: line {node.lineno} of the template: {message}")
