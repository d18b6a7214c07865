"""The shape of an answer that is data: a JSON Schema, in the front matter or in a file, or a Pydantic model."""

import functools
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from agent_server.errors import Mistake, quote_value
from agent_server.prompts.parts import find_link_out, read_text

_MODEL = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_MOST_NAMED = 5
"""Of what is wrong with an answer so much is named."""
_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n\s*```\s*", re.DOTALL)
EXAMPLE = "{type: object, properties: {city: {type: string}}, required: [city]}"


@dataclass(frozen=True, kw_only=True)
class Output:
    """What an answer has to be. `schema` describes an object; `find_problems` says what is wrong with a value."""

    schema: Mapping[str, Any]
    find_problems: Callable[[Any], Iterator[str]] = field(compare=False)

    def read(self, text: str) -> Any:
        """The value that an answer spells. Raises ValueError, which says what is wrong with it."""
        try:
            value = json.loads(strip_fence(text), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not JSON: {error}") from None
        problems = list(self.find_problems(value))
        if problems:
            more = f"; and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
            raise ValueError("; ".join(problems[:_MOST_NAMED]) + more)
        return value


def strip_fence(text: str) -> str:
    """The text within a Markdown fence: many models write JSON in one, whatever they are told."""
    found = _FENCE.fullmatch(text)
    return found[1] if found else text.strip()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def read_output(value: Any, folder: Path, root: Path) -> tuple[Output | None, Mistake | str | None]:
    """The shape that the key `output` gives. Instead of one: what is wrong with the key, or with the file it names."""
    if isinstance(value, Mapping):
        return _of_schema(value)
    if _MODEL.fullmatch(value):
        return _of_model(value)
    path = folder / value
    if Path(value).is_absolute() or ".." in Path(value).parts or path.suffix != ".json":
        return None, (
            "must be a JSON Schema, the path of one below prompts/, as in schemas/order.json, or a Pydantic model, as in "
            "tools.orders:Order"
        )
    if not path.is_file():
        return (
            None,
            f"there is no file {value!r} in prompts/; write one, or the schema itself, as in `output: {EXAMPLE}`",
        )
    if problem := find_link_out(path, folder):
        return None, f"{value!r} {problem}"
    return _of_file(path, path.relative_to(root).as_posix())


def _of_file(path: Path, file: str) -> tuple[Output | None, Mistake | str | None]:
    text, mistake = read_text(path, file)
    if mistake is not None:
        return None, mistake
    try:
        schema = json.loads(text)
    except json.JSONDecodeError as error:
        return None, Mistake(file, error.lineno, f"is not JSON: {error.msg}")
    except RecursionError:
        return None, Mistake(file, 1, "is nested too deeply")
    output, problem = _of_schema(schema)
    return output, Mistake(file, None, problem) if problem else None


def _of_schema(schema: Any) -> tuple[Output | None, str | None]:
    """The shape of a JSON Schema, or what is wrong with it."""
    problem = _find_wrong_schema(schema)
    return (None, problem) if problem else (Output(schema=schema, find_problems=_compile(schema)), None)


def _find_wrong_schema(schema: Any) -> str | None:
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        return f"must describe an object, as in `output: {EXAMPLE}`"
    # Imported here: most workspaces have no schema of their own, and loading it takes a while.
    jsonschema: Any = importlib.import_module("jsonschema")
    try:
        plain = json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError):
        return "is not JSON; put dates in quotation marks"
    try:
        jsonschema.Draft202012Validator.check_schema(plain)
    except jsonschema.SchemaError as error:
        at = ".".join(map(str, error.absolute_path))
        return f"is not a JSON Schema: {at + ': ' if at else ''}{quote_value(error.message)}"
    for reference in _list_references(plain):
        if not _leads_somewhere(reference, plain):
            return f"$ref {quote_value(reference)} leads nowhere; one begins with #, as in #/$defs/city"
    return None


def _list_references(part: Any) -> Iterator[str]:
    match part:
        case dict():
            for key, value in part.items():
                if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                    yield value
                else:
                    yield from _list_references(value)
        case list():
            for value in part:
                yield from _list_references(value)


def _leads_somewhere(reference: str, schema: Any) -> bool:
    # Nothing is ever fetched for a schema.
    if reference != "#" and not reference.startswith("#/"):
        return False
    for step in reference.removeprefix("#").split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        schema = schema.get(step) if isinstance(schema, dict) else None
    return isinstance(schema, dict | bool)


def _compile(schema: Mapping[str, Any]) -> Callable[[Any], Iterator[str]]:
    @functools.cache
    def validator() -> Any:
        jsonschema, referencing = importlib.import_module("jsonschema"), importlib.import_module("referencing")
        return jsonschema.Draft202012Validator(schema, registry=referencing.Registry())

    def find_problems(value: Any) -> Iterator[str]:
        for error in validator().iter_errors(value):
            at = ".".join(map(str, error.absolute_path))
            yield f"{at}: {error.message}" if at else error.message

    return find_problems


def _of_model(name: str) -> tuple[Output | None, str | None]:
    """The shape of a Pydantic model by its name, or what is wrong with it."""
    module, _, attribute = name.partition(":")
    try:
        model = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # noqa: BLE001  # a module may raise anything at import
        return None, f"{module} does not import: {type(error).__name__}: {error}"
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        return None, f"{module} has no Pydantic model {attribute!r}; name one, as in tools.orders:Order"
    schema = model.model_json_schema()
    if schema.get("type") != "object":
        return None, f"{name} is no object; name a model with fields"

    def find_problems(value: Any) -> Iterator[str]:
        try:
            model.model_validate_json(json.dumps(value))
        except ValidationError as error:
            for e in error.errors():
                at = ".".join(map(str, e["loc"]))
                yield f"{at}: {e['msg']}" if at else e["msg"]

    return Output(schema=schema, find_problems=find_problems), None
