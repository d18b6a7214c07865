"""The sandbox in which bodies of prompts are rendered, and how what others wrote stands in them."""

import functools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined, Template, TemplateError, TemplateNotFound, Undefined, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Joiner

TEMPLATE_FAILS = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a template may raise: it can divide, index, compare and recurse."""
VARIABLES: Mapping[str, Any] = {"profile": {}, "today": "2026-01-31"}
"""What a body may use, with an example of each: what is known of the caller, and the date (ISO 8601)."""

_KEY = object()
_LINE_END = re.compile("[\x85\u2028\u2029]")
"""What ends a line beside the control characters, which JSON escapes itself."""


class _Written(str):
    """Text that stands in a prompt as it is: a literal of the template, the date, or what was rendered before.

    Whatever is made of one, by a method, a filter or an operator, is a plain text again and is quoted.
    """

    __slots__ = ()

    # Jinja's `format` makes a text of the type of the text that it formats. Without the key that is a plain one.
    def __new__(cls, text: str, key: object = None) -> "_Written":
        return super().__new__(cls if key is _KEY else str, text)  # type: ignore[return-value]

    # Inside of `{% autoescape %}` it is not escaped once more.
    def __html__(self) -> str:
        return str(self)


def write_plainly(text: str) -> str:
    """Text that stands in a prompt as it is."""
    return _Written(text, _KEY)


def _literal(value: Any) -> Any:
    """A constant of a template with its texts marked."""
    match value:
        case str():
            return write_plainly(value)
        case tuple() | list():
            return type(value)(_literal(item) for item in value)
        case dict():
            return {_literal(key): _literal(item) for key, item in value.items()}
        case _:
            return value


def quote(value: Any) -> str:
    """A value as JSON on one line, for a prompt. Without "<" it cannot close a tag that the prompt puts around it."""
    text = json.dumps(value, ensure_ascii=False, default=_plain).replace("<", "\\u003c")
    return _LINE_END.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _plain(value: Any) -> Any:
    # Of an object that a filter makes only what it yields is said: its address would be another in each process.
    return list(value) if isinstance(value, Iterable) else str(value)


def _finalize(value: Any) -> Any:
    """What stands in the prompt for the value of an expression.

    Everything may be of somebody's making that is no literal of the template: text that a caller or a model has stored
    must not pass for instructions, however the template has turned it.
    """
    if value is None or isinstance(value, _Written | bool | int | float | Undefined):
        return value
    return write_plainly(quote(value))


def _finalize_constant(value: Any) -> str:
    return value if isinstance(value, str) else str(_finalize(value))


class _CodeGenerator(CodeGenerator):
    """Marks the literals of a template, so that they are known when it is rendered."""

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:
        if isinstance(node.value, str | tuple | list | dict):
            self.write(f"environment.literal({node.value!r})")
        else:
            super().visit_Const(node, frame)

    # Jinja does not finalize what the filter of a block makes of the block.
    def visit_FilterBlock(self, node: nodes.FilterBlock, frame: Frame) -> None:
        inner = frame.inner()
        inner.symbols.analyze_node(node)
        self.enter_frame(inner)
        self.buffer(inner)
        self.blockvisit(node.body, inner)
        self.start_write(frame, node)
        # Where nothing is looked up, all of it is the template's. What is included may look up anything.
        looks_up = node.find(nodes.Name) is not None or node.find(nodes.Include) is not None
        self.write("str(environment.finalize(" if looks_up else "str((")
        self.visit_Filter(node.filter, inner)
        self.write("))")
        self.end_write(frame)
        self.leave_frame(inner)

    def _make_finalize(self) -> Any:
        return super()._make_finalize()._replace(const=_finalize_constant)


# A sandbox, because a prompt may be written by somebody who must not run code on the server.
class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = _CodeGenerator
    literal = staticmethod(_literal)

    # What Jinja joins are pieces that were finalized: the texts of macros, of `{% set %}` and of recursive loops.
    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        return write_plainly("".join(pieces))


class _Joiner(Joiner):
    def __call__(self) -> str:
        return super().__call__() or write_plainly("")


# Strict, so that a misspelt variable is a mistake and not an empty place.
TEMPLATES = _Environment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_finalize)
TEMPLATES.globals["joiner"] = _Joiner
TEMPLATES.filters["tojson"] = lambda value: write_plainly(quote(value))


class Known(dict[str, Any]):
    """A profile, in which what is not known is empty: a template may ask `{% if profile.level %}`."""

    def __missing__(self, key: str) -> str:
        return write_plainly("")


class _Parts(BaseLoader):
    """Gives a template the files that it includes, from memory: they are those that its hash covers."""

    def __init__(self, parts: Mapping[str, str]) -> None:
        self._parts = parts

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Any]:
        if template not in self._parts:
            raise TemplateNotFound(template)
        # The name stands for the file in a traceback.
        return self._parts[template], template, None


# Compiling a template takes far longer than rendering it, and each model call renders one.
@functools.lru_cache(maxsize=1024)
def compile_template(body: str, parts: tuple[tuple[str, str], ...] = ()) -> Template:
    """The template of a body with the files that it includes, each by its name. Raises TemplateSyntaxError."""
    environment = TEMPLATES.overlay(loader=_Parts(dict(parts))) if parts else TEMPLATES
    return environment.from_string(body)
