"""Two prompts side by side: the front matter key by key, and the rendered text line by line."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from agent_server.prompts.agent import AgentPrompt
from agent_server.prompts.front import FrontMatter


@dataclass(frozen=True)
class KeyDifference:
    """A key of the front matter and what it is in either prompt."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Comparison:
    """What differs. `text` are the lines of a unified difference of what a model is told, with three lines around."""

    keys: Sequence[KeyDifference]
    text: Sequence[str]

    @property
    def is_same(self) -> bool:
        return not self.keys and not self.text


def compare(before: AgentPrompt, after: AgentPrompt, *, text_only: bool = False) -> Comparison:
    """What differs between two prompts, with `text_only` in what they say. Bodies are rendered for an empty profile, with samples for inputs."""
    keys = [
        KeyDifference(key, one, other)
        for key in ([] if text_only else FrontMatter.model_fields)
        if (one := _value(before, key)) != (other := _value(after, key))
    ]
    lines = difflib.unified_diff(_lines(before), _lines(after), before.file, after.file, lineterm="")
    return Comparison(keys, list(lines))


def _value(prompt: AgentPrompt, key: str) -> Any:
    """What a key says, as JSON has it."""
    value: Any = getattr(prompt, key)
    match key:
        case "output":
            return value and value.schema
        case "inputs":
            return {name: _plain(declared) for name, declared in value.items()}
        case _:
            return list(value) if isinstance(value, tuple) else value


def _plain(declared: BaseModel) -> dict[str, Any]:
    return declared.model_dump(exclude_none=True)


def _lines(prompt: AgentPrompt) -> list[str]:
    samples = {name: declared.sample for name, declared in prompt.inputs.items()}
    return prompt.render(inputs=samples).splitlines()
