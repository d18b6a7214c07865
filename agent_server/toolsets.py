"""toolsets.yaml -> the parts of a workspace that MCP clients are served apart, each at `/mcp/` and its name.

    desk:
      description: What the front desk needs.
      tools: [create_task, list_tasks]
    look:
      effect: read
      scopes: [tasks:read]

`tools`, `effect` and `scopes` each narrow what is offered: a tool is in the set if it has all that is said. Resources
and prompts follow from the tools, unless the set names them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_server.errors import Mistake, name_known
from agent_server.front_matter import read_head
from agent_server.knowledge.resources import SCHEME
from agent_server.knowledge.tools import KNOWLEDGE
from agent_server.prompts import AgentPrompt
from agent_server.resource import Resource
from agent_server.tool import Tool

FILE = "toolsets.yaml"
CONTENT = SCHEME + "{+path}"
"""What stands in `resources` for the pages of content/."""
ASK_AGENT = "ask_agent"
"""The tool that asks an agent, which may do what no tool of the set does: a set has it only by its name."""
FIND_TOOLS = "find_tools"
"""The tool that finds others for clients of MCP."""
OWN_TOOLS = {ASK_AGENT: "asks an agent", FIND_TOOLS: "finds the others"}
"""The tools of MCP's own, and what each does."""
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")

Names = Annotated[tuple[str, ...], Field(min_length=1)]


class Toolset(BaseModel):
    """A part of the workspace, as its file declares it. What is None is not said there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str | None = None
    tools: Names | None = None
    effect: Literal["read"] | None = None
    scopes: Names | None = None
    prompts: tuple[str, ...] | None = None
    resources: tuple[str, ...] | None = None

    def narrow(
        self, tools: Mapping[str, Tool[..., Any]], prompts: Mapping[str, AgentPrompt], resources: Sequence[Resource]
    ) -> "Part":
        """What is in it of all that there is."""
        own = {name: tool for name, tool in tools.items() if self._has_tool(tool)}
        scopes = frozenset(self.scopes or (tool.scope for tool in own.values()))
        named = self.prompts
        return Part(
            tools=own,
            prompts={
                name: prompt
                for name, prompt in prompts.items()
                if (named is None or name in named) and own.keys() >= set(prompt.tools)
            },
            resources=tuple(each for each in resources if self._has_resource(each.uri, each.scope, scopes)),
            has_content=self._has_resource(CONTENT, KNOWLEDGE, scopes),
            asks=ASK_AGENT in (self.tools or ()),
        )

    def _has_tool(self, tool: Tool[..., Any]) -> bool:
        return (
            (self.tools is None or tool.name in self.tools)
            and (self.effect is None or tool.effect == self.effect)
            and (self.scopes is None or tool.scope in self.scopes)
        )

    def _has_resource(self, uri: str, scope: str, scopes: Set[str]) -> bool:
        return scope in scopes if self.resources is None else uri in self.resources


@dataclass(frozen=True)
class Part:
    """The tools, prompts and resources of a toolset. `has_content` says whether the pages of content/ are among them, and
    `asks` whether agents can be asked."""

    tools: Mapping[str, Tool[..., Any]]
    prompts: Mapping[str, AgentPrompt]
    resources: Sequence[Resource]
    has_content: bool
    asks: bool


def read_toolsets(
    root: Path,
    tools: Mapping[str, Tool[..., Any]],
    prompts: Mapping[str, AgentPrompt],
    resources: Sequence[Resource],
    *,
    lost: Iterable[str] = (),
) -> tuple[dict[str, Toolset], list[Mistake]]:
    """The toolsets of a workspace by name, and what is wrong with them. `lost` are names that may be those of tools in
    modules that could not be read, and of what is left out with its slice."""
    try:
        text = (root / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}, []
    except (UnicodeDecodeError, OSError) as error:
        return {}, [Mistake(FILE, None, f"cannot be read ({type(error).__name__}); save it as a file of UTF-8 text")]
    head = read_head(text, 1)
    mistakes = [Mistake(FILE, line, message.replace("front matter is", "is", 1)) for line, message in head.mistakes]
    mistakes += [
        Mistake(FILE, line, f"{name}: stands in line {first} already; name each toolset once")
        for name, line, first in head.repeated
    ]
    found: dict[str, Toolset] = {}
    for name, value in head.values.items():
        try:
            toolset = Toolset.model_validate(value or {})
        except ValidationError as error:
            wrong = list(_explain(error))
        else:
            wrong = list(_find_wrong(name, toolset, tools, prompts, resources, frozenset(lost)))
            found[name] = toolset
        mistakes += [Mistake(FILE, head.lines.get(name), f"{name}: {message}") for message in wrong]
    return found, mistakes


def _explain(error: ValidationError) -> Iterator[str]:
    keys = list(Toolset.model_fields)
    for one in error.errors(include_url=False):
        key = str(one["loc"][0]) if one["loc"] else ""
        match one["type"]:
            case "extra_forbidden":
                yield f"{key} is no key of a toolset; {name_known(key, keys)}"
            case "literal_error":
                yield f"{key}: there is only `{key}: read`, which leaves out the tools that change something"
            case _ if key in ("tools", "scopes", "prompts", "resources"):
                yield f"{key} is a list of names, as in `{key}: [one, two]`"
            case _:
                yield f"{key or 'it'} cannot be read: {one['msg']}; there are the keys {', '.join(keys)}"


def _find_wrong(
    name: str,
    toolset: Toolset,
    tools: Mapping[str, Tool[..., Any]],
    prompts: Mapping[str, AgentPrompt],
    resources: Sequence[Resource],
    lost: Set[str],
) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        yield "is no name of a toolset: it is part of an address, as in `front-desk`, of a-z, 0-9, - and _"
    if toolset.tools is None and toolset.effect is None and toolset.scopes is None:
        yield "says nothing of its tools; give it `tools`, `effect: read` or `scopes`"
        return
    addresses = [CONTENT, *(each.uri for each in resources)]
    scopes = [KNOWLEDGE, *(tool.scope for tool in tools.values()), *(each.scope for each in resources)]
    for noun, named, known in (
        ("tool", toolset.tools, {*tools, *lost, ASK_AGENT}),
        ("prompt", toolset.prompts, {*prompts, *lost}),
        ("resource", toolset.resources, {*addresses, *lost}),
        # Of a module that was not read nobody knows the scopes.
        ("scope", None if lost else toolset.scopes, sorted({*scopes})),
    ):
        for one in named or ():
            if one not in known:
                yield f"there is no {noun} {one!r}; {name_known(one, known)}"
    part = toolset.narrow(tools, prompts, resources)
    for one in toolset.prompts or ():
        missing = [tool for tool in (prompts[one].tools if one in prompts else ()) if tool not in {*part.tools, *lost}]
        if missing:
            yield f"the prompt {one} needs {', '.join(missing)}, which the set does not have; add it, or leave it out"
    is_known = all(one in tools for one in toolset.tools or ()) and all(one in scopes for one in toolset.scopes or ())
    if not part.tools and not part.asks and not lost and is_known:
        yield "has no tool: none fits all that it says; take out a key"
