"""prompts/*.md -> AgentPrompt: an agent is one Markdown file, front matter and a Jinja2 body."""

import functools
import hashlib
import json
import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, Undefined, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Joiner
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agent_server.errors import Mistake, ModelFailed, name_known
from agent_server.front_matter import read_head

_TEMPLATE_FAILS = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a template may raise: it can divide, index, compare and recurse."""
VARIABLES: Mapping[str, Any] = {"profile": {}, "today": "2026-01-31"}
"""What a body may use, with an example of each: what is known of the caller, and the date (ISO 8601)."""


_EXAMPLES = {
    "name": "baker",
    "description": "Answers questions about bread.",
    "tools": "[search_knowledge]",
    "knowledge": "[baking]",
    "model": "openai/gpt-5.4-mini",
    "examples": '["How long should dough rise?"]',
    "handoffs": "[triage]",
}
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


def _written(text: str) -> str:
    return _Written(text, _KEY)


def _literal(value: Any) -> Any:
    """A constant of a template with its texts marked."""
    match value:
        case str():
            return _written(value)
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
    return _written(quote(value))


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
        # Where nothing is looked up, all of it is the template's.
        looks_up = node.find(nodes.Name) is not None
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
        return _written("".join(pieces))


class _Joiner(Joiner):
    def __call__(self) -> str:
        return super().__call__() or _written("")


# Strict, so that a misspelt variable is a mistake and not an empty place.
_TEMPLATES = _Environment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_finalize)
_TEMPLATES.globals["joiner"] = _Joiner
_TEMPLATES.filters["tojson"] = lambda value: _written(quote(value))


class _Known(dict[str, Any]):
    """A profile, in which what is not known is empty: a template may ask `{% if profile.level %}`."""

    def __missing__(self, key: str) -> str:
        return _written("")


class FrontMatter(BaseModel):
    """The keys of an agent's front matter."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$", description="Its name, the same as the file's.")
    description: str = Field(
        min_length=1, description="What it takes, in a sentence or two; messages are routed by it."
    )
    tools: tuple[str, ...] = Field((), description="The tools it may call.")
    knowledge: tuple[str, ...] | None = Field(
        None, description="The collections (folders of content/) it answers from; all when absent, none when []."
    )
    model: str | None = Field(None, description="The model that runs it, where it is not the server's.")
    examples: tuple[str, ...] = Field((), description="Messages it should take; messages are routed by them.")
    handoffs: tuple[str, ...] = Field((), description="The agents it may hand a conversation to.")

    @field_validator("tools", "examples", "handoffs", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return () if value is None else (value,) if isinstance(value, str) else value

    @field_validator("knowledge", mode="before")
    @classmethod
    def _all_or_none(cls, value: Any) -> Any:
        if value in (True, "*", "all", None):
            return None
        return () if value is False else (value,) if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True)
class AgentPrompt:
    """An agent as its file declares it. `sha` identifies the file's text; every message it makes carries it."""

    name: str
    description: str
    tools: tuple[str, ...]
    knowledge: tuple[str, ...] | None
    model: str | None
    examples: tuple[str, ...]
    handoffs: tuple[str, ...]
    body: str
    sha: str
    file: str
    lines: Mapping[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.name.replace("_", " ").replace("-", " ").capitalize()

    def render(self, **variables: Any) -> str:
        """The instructions. Raises ModelFailed when the template fails with these variables."""
        try:
            known = {**VARIABLES, **variables}
            return str(_template(self.body).render(profile=_Known(known["profile"]), today=_written(known["today"])))
        except _TEMPLATE_FAILS as error:
            raise ModelFailed(f"The prompt of {self.name} does not render: {error}") from error


# Compiling a template takes far longer than rendering it, and each model call renders one.
@functools.lru_cache(maxsize=1024)
def _template(body: str) -> Template:
    return _TEMPLATES.from_string(body)


def load_prompts(folder: Path, root: Path) -> tuple[dict[str, AgentPrompt], list[Mistake]]:
    """Every agent in `folder`, and every mistake, with files relative to `root`."""
    prompts: dict[str, AgentPrompt] = {}
    problems: list[Mistake] = []
    for path in sorted(folder.glob("*.md")):
        if path.stem.lower() == "readme":
            continue
        file = path.relative_to(root).as_posix()
        if not path.resolve().is_relative_to(folder.resolve()):
            problems.append(Mistake(file, None, "is a link out of this folder; copy the file"))
            continue
        prompt, found = _load(path, file)
        problems += found
        if prompt is not None:
            prompts[prompt.name] = prompt
    return prompts, problems


def _load(path: Path, file: str) -> tuple[AgentPrompt | None, Sequence[Mistake]]:
    """The agent of a file and every mistake in it. With a mistake it is what could be read, for the names in it."""
    data = path.read_bytes()
    try:
        text = data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return None, [Mistake(file, line, f"is not UTF-8 text (byte {error.start}); save it as UTF-8")]
    text = text.removeprefix("\ufeff")
    head, body, first_line = _split(text)
    if head is None:
        return None, [Mistake(file, 1, _explain_no_head(text))]
    found = read_head(head, 2)
    problems = [Mistake(file, line, message) for line, message in found.mistakes]
    problems += [Mistake(file, line, f"{key}: is on line {other} too; keep one") for key, line, other in found.repeated]
    front: dict[str, Any] = {}
    if not found.mistakes:
        front, wrong = _validate(found.values, path.stem)
        problems += [Mistake(file, found.lines.get(key, 2), f"{key}: {message}") for key, message in wrong]
    prompt = AgentPrompt(
        **FrontMatter.model_construct(**{"name": path.stem, "description": "", **front}).model_dump(),
        body=body,
        sha=hashlib.sha256(text.encode()).hexdigest()[:16],
        file=file,
        lines=found.lines,
    )
    problems += _find_template_mistakes(prompt, first_line)
    # Of a head that is not YAML nothing is known: such an agent would seem to list no tool.
    return (None if found.mistakes else prompt), problems


def _validate(values: Mapping[str, Any], stem: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The values that are as they should be, and what is wrong with the other keys."""
    wrong: dict[str, str] = {}
    try:
        front = FrontMatter.model_validate(values).model_dump()
    except ValidationError as error:
        for e in error.errors():
            wrong.setdefault(str(e["loc"][0]), _explain(str(e["loc"][0]), e["type"]))
        right = {key: value for key, value in values.items() if key not in wrong}
        # Once more without them: what the validators make of the others is wanted too.
        stand_in = {key: "stand-in" for key in ("name", "description") if key not in right}
        validated = FrontMatter.model_validate({**right, **stand_in}).model_dump()
        front = {key: value for key, value in validated.items() if key in right}
    if "name" not in wrong and front["name"] != stem:
        wrong["name"] = f"is {front['name']!r}, the file is {stem}.md; make them the same"
    # By the file: two files whose names are the same would hide each other.
    return {**front, "name": stem}, list(wrong.items())


def _split(text: str) -> tuple[str | None, str, int]:
    """The front matter, the body, and the body's first line number."""
    lines = text.splitlines(keepends=True)
    if not lines or lines[0].rstrip() != "---":
        return None, text, 1
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() == "---":
            return "".join(lines[1:number]), "".join(lines[number + 1 :]), number + 2
    return None, text, 1


def _explain_no_head(text: str) -> str:
    first = text.split("\n", 1)[0].strip()
    if first == "---":
        return "its front matter does not end: write a line `---` below it"
    if re.match(r"[A-Za-z_]+:", first):
        return "its front matter does not begin: write a line `---` above it"
    return (
        "starts with front matter: `---`, `name: ...`, `description: ...`, `---`, and the instructions go below, as in "
        "`You answer questions about bread.`"
    )


def _explain(key: str, kind: str) -> str:
    """What is wrong with a key of the front matter, and what would be right."""
    match kind:
        case "extra_forbidden":
            return f"not a key of an agent; {name_known(key, FrontMatter.model_fields)}"
        case "missing":
            return f"is missing; write one, as in `{key}: {_EXAMPLES[key]}`"
        case "string_pattern_mismatch":
            return "must be 1 to 40 of a-z, 0-9, - and _, starting with a letter, as in safety-adviser"
        case "string_too_short":
            return f"is empty; write one, as in `{key}: {_EXAMPLES[key]}`"
        case _ if key in ("name", "description", "model"):
            return f"must be text, as in `{key}: {_EXAMPLES[key]}`; put a number or a yes in quotation marks"
        case _:
            return f"must be a list of texts, as in `{key}: {_EXAMPLES[key]}`; put one with a colon in quotation marks"


def _find_template_mistakes(prompt: AgentPrompt, first_line: int) -> Sequence[Mistake]:
    if not prompt.body.strip():
        return [Mistake(prompt.file, first_line, "has no body: the instructions go below the front matter")]
    try:
        # Rendered with an empty profile, as for a new guest: what fails there would fail in the first conversation.
        _TEMPLATES.from_string(prompt.body).render(profile=_Known(), today=_written(VARIABLES["today"]))
    except TemplateSyntaxError as error:
        return [Mistake(prompt.file, first_line + error.lineno - 1, f"template: {error.message}")]
    except _TEMPLATE_FAILS as error:
        at = [
            frame.lineno or 1 for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"
        ]
        allowed = ", ".join(VARIABLES)
        return [
            Mistake(
                prompt.file,
                first_line + at[-1] - 1 if at else first_line,
                f"template: {error} (a body may use {allowed})",
            )
        ]
    return []
