"""find_tools: of a large catalogue a client is listed a few tools, and finds the others by what it wants to do.

A tool is ranked by the BM25 of its words for those that are asked, where a word of its name counts more than one of its
description. Words that stand for one another (delete, remove) count half. Nobody finds a tool that they may not use.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mcp_types as types

from agent_server.caller import Caller
from agent_server.errors import InvalidInput
from agent_server.folding import fold
from agent_server.knowledge.synonyms import synonyms
from agent_server.knowledge.words import content_words, language_of, stem_in, words
from agent_server.mcp.own import Call, OwnTool, read_text
from agent_server.tool import Tool
from agent_server.toolsets import FIND_TOOLS

NAME = FIND_TOOLS
MOST = 5
"""Tools that are found by one request."""
_NAMES_TOLD = 100
_WITH_HYPHEN = re.compile(r"\b\w{1,40}(?:-\w{1,40}){1,5}\b")
_SYNONYM = 0.5
_WEIGHTS = {"name": 3.0, "title": 2.0, "description": 1.0, "phrases": 0.5, "arguments": 0.5}
_ENTRY = types.Tool(
    name=NAME,
    title="Find tools",
    description="Find tools by what you want to do. More tools can be called than are listed: this returns those that fit, "
    "with the arguments that they take. Ask once for each thing to be done, before you say that it cannot be done.",
    input_schema={
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "What is to be done, in a few words: `cancel an order`."}
        },
        "required": ["query"],
    },
    annotations=types.ToolAnnotations(read_only_hint=True, open_world_hint=False),
)


class ToolIndex:
    """The words of some tools, read when they are first asked for."""

    def __init__(self, tools: Sequence[Tool[..., Any]]) -> None:
        self._tools = tools

    def rank(self, query: str) -> list[Tool[..., Any]]:
        """The tools that have a word of what is asked, the best first."""
        asked = _weigh_words(query)
        scored = [(self._score(place, asked), tool) for place, tool in enumerate(self._tools)]
        return [tool for score, tool in sorted(scored, key=lambda pair: (-pair[0], pair[1].name)) if score > 0]

    @cached_property
    def _counts(self) -> Sequence[Mapping[str, float]]:
        return [_count_words(tool) for tool in self._tools]

    @cached_property
    def _norms(self) -> Sequence[float]:
        lengths = [sum(count.values()) for count in self._counts]
        mean = max(sum(lengths) / max(len(lengths), 1), 1.0)
        # BM25 with k1 1.2 and b 0.75, as in the search.
        return [1.2 * (0.25 + 0.75 * length / mean) for length in lengths]

    @cached_property
    def _having(self) -> Mapping[str, int]:
        """How many tools have each word."""
        return Counter(word for count in self._counts for word in count)

    def _score(self, place: int, asked: Mapping[str, float]) -> float:
        count, n = self._counts[place], len(self._tools)
        score = 0.0
        for word, weight in asked.items():
            if tf := count.get(word, 0.0):
                df = self._having[word]
                score += weight * math.log(1 + (n - df + 0.5) / (df + 0.5)) * 2.2 * tf / (tf + self._norms[place])
        return score


def _weigh_words(query: str) -> dict[str, float]:
    """The stems of what is asked, and of words that stand for it."""
    language = language_of(query)
    said = [*(content_words(query, language) or words(query)), *_join_parts(query)]
    asked = {stem_in(word, language): 1.0 for word in said}
    for word in said:
        for other in synonyms(word, language):
            asked.setdefault(stem_in(other, language), _SYNONYM)
    return asked


def _join_parts(text: str) -> Sequence[str]:
    """Words with a hyphen as one: each part of "to-do" is a word that says nothing."""
    return [word.replace("-", "") for word in _WITH_HYPHEN.findall(text.lower())]


def _count_words(tool: Tool[..., Any]) -> Mapping[str, float]:
    arguments = tool.input_schema.get("properties", {})
    texts = {
        "name": tool.name.replace("_", " "),
        "title": tool.title,
        "description": tool.description,
        "phrases": " ".join(tool.phrases),
        "arguments": " ".join(
            f"{name.replace('_', ' ')} {about.get('description', '')}" for name, about in arguments.items()
        ),
    }
    counts: dict[str, float] = defaultdict(float)
    for key, text in texts.items():
        language = language_of(text) if key == "description" else "en"
        # Of the phrases each word once: a tool with many of them is asked for no oftener.
        text = f"{text} {' '.join(_join_parts(text))}"
        found: Iterable[str] = words(fold(text)) if key != "phrases" else dict.fromkeys(words(fold(text)))
        for word in found:
            counts[stem_in(word, language)] += _WEIGHTS[key]
    return counts


@dataclass(frozen=True)
class FindTools(OwnTool):
    """The tool that finds those of `listed`, which are tools with their entries."""

    listed: Sequence[tuple[Tool[..., Any], types.Tool]]

    @property
    def entry(self) -> types.Tool:
        return _ENTRY

    def may(self, caller: Caller) -> bool:
        return True

    @cached_property
    def _index(self) -> ToolIndex:
        return ToolIndex([tool for tool, _ in self.listed])

    async def call(self, call: Call) -> types.CallToolResult:
        query = read_text(call.arguments, "query")
        if not query:
            raise InvalidInput("query: is missing; say in a few words what is to be done")
        entries = {tool.name: entry for tool, entry in self.listed if call.caller.may(tool.scope)}
        found = [tool for tool in self._index.rank(query) if tool.name in entries][:MOST]
        described = [entries[tool.name].model_dump(mode="json", by_alias=True, exclude_none=True) for tool in found]
        structured: dict[str, Any] = {"tools": described}
        if not described:
            structured["note"] = "No tool has these words; the names of all tools are in `names`"
            structured["names"] = list(entries)[:_NAMES_TOLD]
        text = json.dumps(structured, ensure_ascii=False, separators=(",", ":"))
        return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=structured)


def choose_listed(
    listed: Sequence[tuple[Tool[..., Any], types.Tool]], caller: Caller, most: int | None, always: Sequence[str]
) -> tuple[list[types.Tool], bool]:
    """The entries that a caller is listed, and whether there are others to be found."""
    mine = [(tool.name, entry) for tool, entry in listed if caller.may(tool.scope)]
    if most is None or len(mine) <= most:
        return [entry for _, entry in mine], False
    return [entry for name, entry in mine if name in always], True
