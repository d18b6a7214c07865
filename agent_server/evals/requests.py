"""What reaches a model, in parts that are compared, and the values in it that are others in each run."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from agents.agent_output import AgentOutputSchemaBase
from agents.handoffs import Handoff
from agents.items import TResponseInputItem
from agents.model_settings import ModelSettings
from agents.tool import FunctionTool
from agents.tool import Tool as SDKTool

from agent_server.log import mask, mask_value

_UUID = r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"
_TIME = r"(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"
_NUMBER = r"\+?\d[\d ()/-]{6,}\d"
_VALUE = re.compile(
    rf"(?<![^\s\"'(<\[,])(?:{_UUID}|[\w.+-]+@[\w-]+(?:\.[\w-]+)+|\d{{4}}-\d\d-\d\d{_TIME}|{_NUMBER})(?=[\s\"')>\],.;:!?]|$)"
)
"""Ids, addresses, dates and numbers of telephones: what an answer may take from its request. Each stands alone:
a piece of a key must not be taken out of it, or the rest would not be known for one."""
_REFERENCE = re.compile(r"<value (\d+)>")
PARTS = ("model", "prompt", "passages", "input", "tools", "settings", "output_schema")


@dataclass(frozen=True)
class Asked:
    """A request of a model. Two are the same that differ in ids and the present time alone."""

    model: str
    instructions: str
    input: str | Sequence[TResponseInputItem]
    settings: ModelSettings
    tools: Sequence[SDKTool]
    schema: AgentOutputSchemaBase | None
    handoffs: Sequence[Handoff[Any, Any]]

    @cached_property
    def parts(self) -> Mapping[str, str]:
        """A digest of each part."""
        before, tag, after = self.instructions.partition("\n<passages>\n")
        passages, _, rest = after.partition("\n</passages>\n")
        texts = {
            "model": self.model,
            "prompt": before + tag + rest,
            "passages": passages,
            "input": self._input_text,
            "tools": _dump([*map(_tool_json, self.tools), *map(_handoff_json, self.handoffs)]),
            "settings": _settings_text(self.settings),
            "output_schema": "" if self.schema is None else _dump(_schema_json(self.schema)),
        }
        ids: dict[str, str] = {}
        today = re.compile(datetime.now(UTC).date().isoformat() + _TIME)

        def plain(text: str) -> str:
            # by the order of their first appearance: two ids that are the same stay the same
            text = re.sub(_UUID, lambda found: ids.setdefault(found[0], f"<id {len(ids) + 1}>"), text)
            return today.sub("<now>", text)

        return {
            name: hashlib.sha256(plain(text).encode(errors="replace")).hexdigest()[:12] for name, text in texts.items()
        }

    @cached_property
    def key(self) -> str:
        return hashlib.sha256(_dump(self.parts).encode()).hexdigest()[:16]

    @property
    def last_message(self) -> str:
        """What the user said last."""
        said = [self.input] if isinstance(self.input, str) else [_said(item) for item in self.input]
        return next((text for text in reversed(said) if text), "")

    @cached_property
    def _input_text(self) -> str:
        return self.input if isinstance(self.input, str) else _dump(self.input)

    @cached_property
    def _values(self) -> Sequence[str]:
        return list(dict.fromkeys(_VALUE.findall(f"{self.instructions}\n{self._input_text}")))

    def without_values(self, text: str) -> str:
        """`text` for a file that others read: what is of the request refers to it, and what is secret is masked."""
        known = {value: n for n, value in enumerate(self._values)}
        text = _VALUE.sub(lambda found: f"<value {known[found[0]]}>" if found[0] in known else found[0], text)
        return "\n".join(map(mask, text.split("\n")))

    def without_values_of(self, arguments: str) -> str:
        """The same for arguments, which are JSON."""
        try:
            values = json.loads(arguments)
        except (ValueError, RecursionError):
            return self.without_values(arguments)
        return json.dumps(_walk(values, self.without_values), ensure_ascii=False)

    def with_values(self, text: str) -> str:
        """`text` as it was, with the values of this request."""

        def give(found: re.Match[str]) -> str:
            # Looked for here: most texts refer to none.
            return self._values[n] if (n := int(found[1])) < len(self._values) else found[0]

        return _REFERENCE.sub(give, text)


def _walk(value: Any, change: Any, name: str = "") -> Any:
    match value:
        case str():
            changed = change(value)
            # what is called a password has no shape of its own
            return changed if _REFERENCE.search(changed) else mask_value(name, changed)
        case list():
            return [_walk(one, change, name) for one in value]
        case dict():
            return {key: _walk(one, change, key) for key, one in value.items()}
    return value


def _said(item: Any) -> str:
    content = item.get("content") if isinstance(item, Mapping) and item.get("role") == "user" else None
    return content if isinstance(content, str) else ""


def _settings_text(settings: ModelSettings) -> str:
    given = {name: value for name, value in vars(settings).items() if value is not None}
    # `asdict` of the whole would go through some thirty settings that nobody has set.
    return _dump(
        {
            name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
            for name, value in given.items()
        }
    )


def _tool_json(tool: SDKTool) -> Any:
    if isinstance(tool, FunctionTool):
        return [tool.name, tool.description, tool.params_json_schema, tool.strict_json_schema]
    return tool.name


def _handoff_json(handoff: Handoff[Any, Any]) -> Any:
    return [handoff.tool_name, handoff.tool_description, handoff.input_json_schema]


def _schema_json(schema: AgentOutputSchemaBase) -> Any:
    return None if schema.is_plain_text() else [schema.name(), schema.json_schema(), schema.is_strict_json_schema()]


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
