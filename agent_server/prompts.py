"""prompts/*.md -> AgentPrompt: an agent is one Markdown file, front matter and a Jinja2 body."""

import functools
import hashlib
import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agent_server.errors import Mistake, ModelFailed

_TEMPLATE_FAILS = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a template may raise: it can divide, index, compare and recurse."""
VARIABLES: Mapping[str, Any] = {"profile": {}, "today": "2026-01-31"}
"""What a body may use, with an example of each: what is known of the caller, and the date (ISO 8601)."""


class _Stored(str):
    """Text that the caller or a model has stored. In a prompt it stands as a JSON string, on one line and in quotes."""

    # Stored text must not pass for instructions. It is still a `str`, so that a template can compare it.

    __slots__ = ()


def _quote(value: Any) -> Any:
    if not isinstance(value, _Stored | Mapping | list):
        return value
    # Without "<" the text cannot close a tag that the prompt puts around it.
    return json.dumps(value, ensure_ascii=False, default=str).replace("<", "\\u003c")


def _mark(value: Any) -> Any:
    match value:
        case str():
            return _Stored(value)
        case Mapping():
            return {_Stored(key): _mark(item) for key, item in value.items()}
        case list():
            return [_mark(item) for item in value]
        case _:
            return value


class _Known(dict[str, Any]):
    """A profile, in which what is not known is empty: a template may ask `{% if profile.level %}`."""

    def __missing__(self, key: str) -> str:
        return ""


# A sandbox, because a prompt may be written by somebody who must not run code on the server. Strict, so that a
# misspelt variable is a mistake and not an empty place.
_TEMPLATES = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_quote)


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
            return _template(self.body).render(**{**known, "profile": _Known(_mark(known["profile"]))})
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
    data = path.read_bytes()
    try:
        text = data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return None, [Mistake(file, line, f"is not UTF-8 text (byte {error.start}); save it as UTF-8")]
    head, body, first_line = _split(text)
    if head is None:
        return None, [Mistake(file, 1, "starts with front matter: `---`, `name: ...`, `description: ...`, `---`")]
    try:
        values, lines = _mapping(head)
    except yaml.reader.ReaderError as error:
        line = head.count("\n", 0, error.position) + 2
        return None, [Mistake(file, line, f"front matter is not YAML: {error.reason}")]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 2 if mark else 2
        return None, [Mistake(file, line, f"front matter is not YAML: {getattr(error, 'problem', error)}")]
    try:
        front = FrontMatter.model_validate(values)
    except ValidationError as error:
        keys = ", ".join(FrontMatter.model_fields)
        return None, [
            Mistake(file, lines.get(str(e["loc"][0]), 2), f"{e['loc'][0]}: {_explain(e['type'], e['msg'], keys)}")
            for e in error.errors()
        ]
    problems = []
    if front.name != path.stem:
        problems.append(
            Mistake(file, lines["name"], f"name: is {front.name!r}, the file is {path.name}; make them the same")
        )
    prompt = AgentPrompt(
        **front.model_dump(),
        body=body,
        sha=hashlib.sha256(text.encode()).hexdigest()[:16],
        file=file,
        lines=lines,
    )
    problems += _find_template_mistakes(prompt, first_line)
    return prompt, problems


def _split(text: str) -> tuple[str | None, str, int]:
    """The front matter, the body, and the body's first line number."""
    lines = text.lstrip("\ufeff").splitlines(keepends=True)
    if not lines or lines[0].rstrip() != "---":
        return None, text, 1
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() == "---":
            return "".join(lines[1:number]), "".join(lines[number + 1 :]), number + 2
    return None, text, 1


def _mapping(head: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The values of a YAML mapping, and the line in the file of each key. Raises yaml.YAMLError."""
    loader = yaml.SafeLoader(head)
    node = loader.get_single_node()
    if not isinstance(node, yaml.MappingNode):
        raise yaml.YAMLError("write `key: value` lines")
    values = loader.construct_document(node)
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 2
        # YAML itself keeps the last of two equal keys without a word.
        if lines.setdefault(str(key.value), line) != line:
            said = f"{key.value!r} is on line {lines[str(key.value)]} too"
            raise yaml.MarkedYAMLError(problem=said, problem_mark=key.start_mark)
    return values, lines


def _explain(kind: str, message: str, keys: str) -> str:
    match kind:
        case "extra_forbidden":
            return f"not a key of an agent; there are {keys}"
        case "missing":
            return "is missing"
        case "string_pattern_mismatch":
            return "1 to 40 of a-z, 0-9, - and _, starting with a letter"
        case _:
            return message


def _find_template_mistakes(prompt: AgentPrompt, first_line: int) -> Sequence[Mistake]:
    if not prompt.body.strip():
        return [Mistake(prompt.file, first_line, "has no body: the instructions go below the front matter")]
    try:
        # Rendered with an empty profile, as for a new guest: what fails there would fail in the first conversation.
        _TEMPLATES.from_string(prompt.body).render(**{**VARIABLES, "profile": _Known()})
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
