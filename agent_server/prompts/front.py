"""The keys of an agent's front matter, and what is wrong with them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from agent_server.errors import name_known
from agent_server.prompts.inputs import WORDS, Input, InputName
from agent_server.prompts.output import EXAMPLE

MOST_TURNS = 200
"""The most model calls that `max_turns` may allow."""
ROUTING = ("description", "examples", "handoffs", "mcp")
"""The keys that a candidate takes from the file of its agent: messages are routed before a version is chosen."""
AGENTS_ALONE = ("knowledge", "examples", "handoffs", "model", "temperature", "max_turns", "output", "rephrase")
"""The keys that mean nothing for a prompt that is no agent."""
_EXAMPLES = {
    "name": "baker",
    "description": "Answers questions about bread.",
    "tools": "[search_knowledge]",
    "knowledge": "[baking]",
    "model": "openai/gpt-5.4-mini",
    "examples": '["How long should dough rise?"]',
    "handoffs": "[triage]",
    "version": '"2026-02"',
    "temperature": "0.3",
    "max_turns": "6",
    "inputs": "{language: {default: English}}",
    "output": EXAMPLE,
    "rephrase": "true",
    "mcp": "true",
    "share": "10",
}
_TEXTS = ("name", "description", "model", "version")
_LISTS = ("tools", "knowledge", "examples", "handoffs")


Text = Annotated[str, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


def _read_whole(value: Any) -> Any:
    # As JSON Schema has it, 2.0 is an integer.
    return int(value) if isinstance(value, float) and math.isfinite(value) and value.is_integer() else value


def _one_or_many(value: Any) -> Any:
    return () if value is None else (value,) if isinstance(value, str) else value


def _all_or_none(value: Any) -> Any:
    # By identity: to Python 1 is true.
    if value is True or value is None or value in ("*", "all"):
        return None
    return () if value is False else (value,) if isinstance(value, str) else value


Names = Annotated[tuple[Text, ...], BeforeValidator(_one_or_many, json_schema_input_type=list[Text] | Text | None)]
Collections = Annotated[
    tuple[Text, ...] | None, BeforeValidator(_all_or_none, json_schema_input_type=list[Text] | Text | bool | None)
]
Exposure = Annotated[bool, Field(strict=True)] | Literal["only"]
Turns = Annotated[
    int,
    Field(strict=True, ge=1, le=MOST_TURNS),
    BeforeValidator(_read_whole, json_schema_input_type=Annotated[int, Field(ge=1, le=MOST_TURNS)]),
]
Inputs = Annotated[
    dict[InputName, Input],
    BeforeValidator(
        lambda value: {} if value is None else value, json_schema_input_type=dict[str, Input | None] | None
    ),
]


class FrontMatter(BaseModel):
    """The keys of an agent's front matter."""

    model_config = ConfigDict(extra="forbid")

    name: Text = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$", description="Its name, the same as the file's.")
    description: Text = Field(
        min_length=1, description="What it takes, in a sentence or two; messages are routed by it."
    )
    tools: Names = Field((), description="The tools it may call.")
    knowledge: Collections = Field(
        None, description="The collections (folders of content/) it answers from; all when absent, none when []."
    )
    model: Text | None = Field(None, description="The model that runs it, where it is not the server's.")
    examples: Names = Field((), description="Messages it should take; messages are routed by them.")
    handoffs: Names = Field((), description="The agents it may hand a conversation to.")
    version: Text | None = Field(
        None, min_length=1, max_length=40, description="What this version is called; it is shown with answers."
    )
    temperature: Number | None = Field(None, ge=0, le=2, description="How freely the model chooses words, 0 to 2.")
    max_turns: Turns | None = Field(None, description="Most model calls of this agent in a turn.")
    inputs: Inputs = Field(default_factory=dict, description="The variables of the body.")
    output: dict[str, Any] | Text | None = Field(
        None,
        description="The shape of its answers: a JSON Schema, the path of one below prompts/, or package.module:Model.",
    )
    rephrase: Annotated[bool, Field(strict=True)] = Field(
        False, description="true: its answers are quotes of the content, which the model says in its own words."
    )
    mcp: Exposure = Field(
        False, description="true: MCP clients are offered it as a prompt; only: they are, and it is no agent."
    )
    share: Number | None = Field(
        None, ge=0, le=100, description="How many percent of new conversations a candidate takes, as in support.v2.md."
    )


@dataclass(frozen=True)
class FileName:
    """What the name of a file says: `support.md` is the agent support, `support.v2.md` its candidate v2."""

    agent: str
    candidate: str | None = None

    @classmethod
    def of(cls, stem: str) -> "FileName":
        agent, point, candidate = stem.partition(".")
        return cls(agent, candidate if point else None)


def validate(values: Mapping[str, Any], name: FileName, *, named: bool) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The values that are as they should be, each of a key that is there, and what is wrong with the other keys.

    A file that is not `named` after its agent is a copy with any name, and is of the agent that it says.
    """
    wrong: dict[str, str] = {}
    # What a candidate leaves out is as in the file of its agent.
    needed = {"name": name.agent, "description": "stand-in"} if name.candidate is not None else {}
    try:
        front = FrontMatter.model_validate({**needed, **values})
    except ValidationError as error:
        for e in error.errors():
            wrong.setdefault(str(e["loc"][0]), _explain(e))
        right = {key: value for key, value in values.items() if key not in wrong}
        # Once more without them: what the validators make of the others is wanted too.
        stand_in = {key: "stand-in" for key in ("name", "description") if key not in right}
        front = FrontMatter.model_validate({**right, **stand_in})
    said = {key: getattr(front, key) for key in values if key in FrontMatter.model_fields and key not in wrong}
    if named:
        wrong |= _find_misnamed(said, name, wrong)
    # By the file: two files whose names are the same would hide each other.
    return {**said, "name": name.agent if named else said.get("name", name.agent)}, list(wrong.items())


def _find_misnamed(front: Mapping[str, Any], name: FileName, wrong: Iterable[str]) -> dict[str, str]:
    """What the front matter says otherwise than the name of the file."""
    found: dict[str, str] = {}
    if front.get("rephrase") and front.get("output") is not None:
        found["rephrase"] = "is for answers that are text, and `output` says that they are data; take one of them out"
    if front.get("mcp") == "only":
        found |= {
            key: "is for an agent, and `mcp: only` says that this is none; take one of them out"
            for key in AGENTS_ALONE
            if key in front
        }
    file = f"{name.agent}.md" if name.candidate is None else f"{name.agent}.{name.candidate}.md"
    if "name" not in wrong and front.get("name", name.agent) != name.agent:
        meant = f"the file is {file}" if name.candidate is None else f"{file} is a candidate of {name.agent}"
        found["name"] = f"is {front['name']!r}, {meant}; make them the same"
    if name.candidate is None:
        if "share" in front:
            found["share"] = f"is for a candidate, in a file of its own, as in {name.agent}.v2.md; take it out here"
        return found
    if "share" not in wrong and front.get("share") is None:
        found["share"] = (
            f"is missing; {file} is a candidate of {name.agent}: write how many percent of new conversations it takes, as in `share: 10`"
        )
    if "version" not in wrong and front.get("version") not in (None, name.candidate):
        found["version"] = f"is {front['version']!r}, the file is {file}; make them the same, or leave it out"
    return found


def _explain(error: ErrorDetails) -> str:
    """What is wrong with a key of the front matter, and what would be right."""
    key, kind = str(error["loc"][0]), error["type"]
    example = f"as in `{key}: {_EXAMPLES.get(key, '')}`"
    match kind:
        case "extra_forbidden" if len(error["loc"]) == 1:
            return f"not a key of an agent; {name_known(key, FrontMatter.model_fields)}"
        case "missing":
            return f"is missing; write one, {example}"
        case "string_pattern_mismatch" if key == "name":
            return "must be 1 to 40 of a-z, 0-9, - and _, starting with a letter, as in safety-adviser"
        case "string_too_short":
            return f"is empty; write one, {example}"
        case "string_too_long":
            return f"is longer than 40 characters; shorten it, {example}"
        case _ if key in _TEXTS:
            return f"must be text, {example}; put a number or a yes in quotation marks"
        case _ if key in _LISTS:
            return f"must be a list of texts, {example}; put one with a colon in quotation marks"
        case _ if key == "inputs":
            return _explain_input(error)
        case _ if key == "rephrase":
            return f"must be true or false, {example}"
        case _ if key == "mcp":
            return f"must be true, false or only, {example}"
        case _ if key == "output":
            return f"must be a JSON Schema, the path of one, or a Pydantic model, {example} or `output: tools.orders:Order`"
        case _:
            most = {"temperature": "0 to 2", "max_turns": f"1 to {MOST_TURNS}, without a point", "share": "0 to 100"}
            return f"must be a number, {most[key]}, {example}"


def _explain_input(error: ErrorDetails) -> str:
    """What is wrong with the declaration of an input."""
    example = f"as in `inputs: {_EXAMPLES['inputs']}`"
    if len(error["loc"]) < 2:
        return f"must be names with what each may be, {example}"
    name, key = str(error["loc"][1]), str(error["loc"][2]) if len(error["loc"]) > 2 else ""
    match error["type"]:
        case "reserved":
            return f"{name!r} means something else in a body; choose another name"
        case "string_pattern_mismatch" | "string_type" if key == "[key]":
            return f"{name!r} must be 1 to 40 letters, digits and _, not starting with a digit, {example}"
        case "extra_forbidden":
            return f"{name}: {key!r} says nothing of an input; {name_known(key, Input.model_fields)}"
        case "literal_error":
            return f"{name}: type must be one of {', '.join(WORDS)}"
        case _ if error["type"] == "values" or key in ("enum", "examples"):
            return f"{name}: enum and examples are lists of values of its type, and a default is one of enum, as in `enum: [red, green]`"
        case "default":
            return f"{name}: default must be a value of its type; leave it out where one must be given, and put a date in quotation marks"
        case _ if key == "description":
            return f"{name}: description must be text"
        case _:
            return f"{name}: must be a mapping of {', '.join(Input.model_fields)}, {example}"
