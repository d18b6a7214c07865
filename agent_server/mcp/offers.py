"""What a server offers beside its tools and documents: prompts, resources of functions, and who may have them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent_server.caller import Caller
from agent_server.changes import LISTS, Changes, name_subject
from agent_server.db import Database
from agent_server.identity.rights import require
from agent_server.mcp.streams import Streams
from agent_server.prompts import AgentPrompt
from agent_server.resource import Resource, find_resource
from agent_server.toolsets import ASK_AGENT, Part
from agent_server.workspace import Workspace

_AT_ADDRESS = ("resources/read", "resources/subscribe")


@dataclass(frozen=True)
class Watching:
    """How clients watch what changes. `renew` gives a caller as its credential is now, or raises Unauthorized.

    It is asked every `seconds` for as long as a stream is open, since nobody says when rights change. `database` keeps
    what the sessions of older clients watch.
    """

    changes: Changes
    renew: Callable[[Caller], Awaitable[Caller]]
    database: Database
    seconds: float = 60.0
    streams: Streams = field(default_factory=Streams)


@dataclass
class Offers:
    """The prompts and resources of `workspace`, and how clients watch them, if they may.

    Another version of the workspace may be put in its place while the process runs. `has_content` says whether the pages
    of content/ are offered, `asks` whether agents can be asked, and `parts` are the offers of its toolsets, by their names.
    """

    workspace: Workspace
    watching: Watching | None = None
    has_content: bool = True
    asks: bool = True
    parts: dict[str, "Offers"] = field(default_factory=dict)

    def narrow(self, toolset: str) -> "Offers":
        """What a toolset offers of these."""
        workspace, part = _narrow(self.workspace, toolset)
        self.parts[toolset] = Offers(workspace, self.watching, part.has_content, part.asks)
        return self.parts[toolset]

    def replace(self, workspace: Workspace) -> None:
        """Offer another version of the workspace with the same toolsets, and tell those who watch its lists."""
        self.workspace = workspace
        for name, part in self.parts.items():
            part.workspace, _ = _narrow(workspace, name)
        if self.watching is not None:
            for each in LISTS:
                self.watching.changes.hear(name_subject(each))

    def has_tool(self, name: str) -> bool:
        return name in self.workspace.tools or (self.asks and name == ASK_AGENT)

    def list_prompts(self, caller: Caller) -> Sequence[AgentPrompt]:
        """The prompts that a caller may have, by name."""
        prompts = self.workspace.prompts
        return [prompts[name] for name in sorted(prompts) if self._find_missing(prompts[name], caller) is None]

    def find_prompt(self, name: str, caller: Caller) -> AgentPrompt | None:
        """The prompt of a name. Raises Forbidden for a caller who may not have it."""
        prompt = self.workspace.prompts.get(name)
        if prompt is not None and (scope := self._find_missing(prompt, caller)) is not None:
            require(caller, scope, f"The prompt {name}")
        return prompt

    def list_resources(self, caller: Caller) -> Sequence[Resource]:
        """The resources that a caller may read, by address."""
        mine = [resource for resource in self.workspace.resources if caller.may(resource.scope)]
        return sorted(mine, key=lambda resource: resource.uri)

    def find_resource(self, uri: str) -> tuple[Resource, dict[str, str]] | None:
        """The resource at an address and the arguments in it."""
        return find_resource(self.workspace.resources, uri)

    def authorise(self, caller: Caller, method: Any, params: Mapping[Any, Any]) -> None:
        """Refuse what this caller may not ask for. Raises Forbidden."""
        match params:
            case {"name": str(name)} if method == "prompts/get":
                self.find_prompt(name, caller)
            case {"uri": str(uri)} if method in _AT_ADDRESS and (found := self.find_resource(uri)) is not None:
                require(caller, found[0].scope, found[0].name)

    def _find_missing(self, prompt: AgentPrompt, caller: Caller) -> str | None:
        """The scope that a caller lacks for what a prompt speaks of."""
        tools = self.workspace.tools
        return next((tools[name].scope for name in prompt.tools if not caller.may(tools[name].scope)), None)


def _narrow(workspace: Workspace, toolset: str) -> tuple[Workspace, Part]:
    """The workspace with what is in a toolset alone."""
    part = workspace.toolsets[toolset].narrow(workspace.tools, workspace.prompts, workspace.resources)
    return replace(workspace, tools=part.tools, prompts=part.prompts, resources=part.resources), part
