"""What the run loop asks of a model -> the body of a request for Chat Completions.

The SDK's own converters make the parts, so that a server is sent what the SDK's client would send. What is left out is
that client's walk over the typed whole.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.agent_output import AgentOutputSchemaBase
from agents.handoffs import Handoff
from agents.items import TResponseInputItem
from agents.model_settings import ModelSettings
from agents.models.chatcmpl_converter import Converter
from agents.models.reasoning_content_replay import ReasoningContentReplayContext
from agents.tool import Tool
from openai import Omit
from pydantic import BaseModel

from agent_server.conversations.budget import count_tokens

# Those that Chat Completions has under the same name.
_SAME_NAME = (
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "max_tokens",
    "store",
    "verbosity",
    "top_logprobs",
    "prompt_cache_retention",
    "prompt_cache_options",
    "metadata",
)
_MOST_TOOL_SETS = 200


def returns_thoughts(context: ReasoningContentReplayContext) -> bool:
    """Whether a server is given back what its model thought. Those of DeepSeek and Kimi refuse a tool's result without
    it, and a server that sends the field reads it, too."""
    return context.model == context.reasoning.origin_model


class ToolSets:
    """Tools as JSON. Those of one agent are the same objects with every call, and are written down once."""

    def __init__(self) -> None:
        self._written: dict[tuple[int, ...], _Written] = {}

    def write(self, tools: Sequence[Tool], handoffs: Sequence[Handoff[Any, Any]]) -> bytes:
        """The JSON text of tools and handoffs. It is empty where there are none."""
        return self._find(tools, handoffs).text

    def count(self, tools: Sequence[Tool], handoffs: Sequence[Handoff[Any, Any]]) -> int:
        """About how many tokens the tools and handoffs of a request are."""
        return self._find(tools, handoffs).tokens

    def _find(self, tools: Sequence[Tool], handoffs: Sequence[Handoff[Any, Any]]) -> "_Written":
        both = [*tools, *handoffs]
        key = tuple(map(id, both))
        if key not in self._written:
            if len(self._written) >= _MOST_TOOL_SETS:
                self._written.clear()
            parts = [*map(Converter.tool_to_openai, tools), *map(Converter.convert_handoff_tool, handoffs)]
            text = _encode(parts) if parts else b""
            self._written[key] = _Written(both, text, count_tokens(text.decode()) if text else 0)
        return self._written[key]


@dataclass(frozen=True)
class _Written:
    """Tools with their JSON text. They are kept, so that no other object has the id of one."""

    tools: Sequence[Any]
    text: bytes
    tokens: int


def write_body(
    model: str,
    base_url: str,
    instructions: str | None,
    input: str | list[TResponseInputItem],
    settings: ModelSettings,
    tools: bytes,
    schema: AgentOutputSchemaBase | None,
    *,
    official: bool,
) -> bytes:
    """The body of a request. `tools` is as `ToolSets` writes it; `official` says that it is for OpenAI itself."""
    more: dict[str, Any] = {
        "model": model,
        "messages": _write_messages(instructions, input, model, base_url),
        "stream": True,
        # Servers count tokens only when they are asked to.
        "stream_options": {"include_usage": True},
    }
    more |= {name: value for name in _SAME_NAME if (value := getattr(settings, name, None)) is not None}
    if official:
        more.setdefault("store", True)
    if settings.top_logprobs is not None:
        more["logprobs"] = True
    if settings.reasoning is not None and settings.reasoning.effort is not None:
        more["reasoning_effort"] = settings.reasoning.effort
    if tools and settings.parallel_tool_calls is not None:
        more["parallel_tool_calls"] = settings.parallel_tool_calls
    for name, value in (
        ("tool_choice", Converter.convert_tool_choice(settings.tool_choice)),
        ("response_format", Converter.convert_response_format(schema)),
    ):
        if not isinstance(value, Omit):
            more[name] = value
    extra: Any = settings.extra_body or {}
    more |= {**(settings.extra_args or {}), **extra}
    body = _encode(more)
    return body if not tools or "tools" in more else body[:-1] + b',"tools":' + tools + b"}"


def fill_body(empty: bytes, instructions: str | None, items: list[TResponseInputItem]) -> bytes:
    """The body that `write_body` writes, from the one that it writes without instructions and items."""
    body: dict[str, Any] = json.loads(empty)
    body["messages"] = _write_messages(instructions, items, body["model"], None)
    return _encode(body)


def _write_messages(
    instructions: str | None, items: str | list[TResponseInputItem], model: str, base_url: str | None
) -> list[Any]:
    messages: list[Any] = list(
        Converter.items_to_messages(
            items, model=model, base_url=base_url, should_replay_reasoning_content=returns_thoughts
        )
    )
    if instructions:
        messages.insert(0, {"role": "system", "content": instructions})
    return messages


def _encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
