"""The three folders -> one frozen Workspace; all mistakes reported together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from agent_server.calls import forms, jobs
from agent_server.conversations import resources as conversation_resources
from agent_server.conversations import tools as conversation_tools
from agent_server.documents import tools as document_tools
from agent_server.errors import Mistake, WorkspaceInvalid, name_known
from agent_server.folders import find_root
from agent_server.knowledge import resources as knowledge_resources
from agent_server.knowledge import tools as knowledge_tools
from agent_server.knowledge.files import list_collections
from agent_server.late import Late
from agent_server.phrases import template_problems
from agent_server.prompts import AgentPrompt, list_agents, load_prompts
from agent_server.prompts.inputs import Input
from agent_server.resource import Resource, collect_resources
from agent_server.seed import SeedFile
from agent_server.slices import LeftOut, find_wrong_claims, leave_out, read_slices
from agent_server.tool import Tool
from agent_server.tool_modules import import_tools, relative_path
from agent_server.toolsets import Toolset, read_toolsets
from agent_server.webhook import Webhook, collect_webhooks

if TYPE_CHECKING:
    from agent_server.outside import tools as outside
    from agent_server.outside.servers import OutsideServer
else:
    outside = Late("agent_server.outside.tools")  # few workspaces have such servers

TRIAGE = "triage"
OUTSIDE_FILES = ("mcp.yaml", "mcp.lock")
"""What names the outside servers, and what is accepted of their tools."""
_WITH_RESOURCES = (conversation_resources, knowledge_resources)

_DEFAULT_AGENT = AgentPrompt(
    name="assistant",
    description="Answers questions from the content and uses the tools.",
    tools=(),
    knowledge=None,
    model=None,
    examples=(),
    handoffs=(),
    body="You answer questions from the passages you are given, and use your tools when the user asks for something "
    "that they do. Be short and exact. When the passages do not hold the answer, say so.\n",
    sha="default",
    file="prompts/",
)
_DEFAULT_TRIAGE = replace(
    _DEFAULT_AGENT,
    name=TRIAGE,
    description="Decides which specialist takes a message.",
    knowledge=(),
    body="You decide which specialist takes the user's message, and hand the conversation to it at once, without a word "
    "of your own. If none fits, answer briefly and say what the specialists can help with.\n",
)


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """What a user wrote, loaded. Tools and agents stand by name, the engine's tools among them; `entry` is the agent that
    takes a message when routing is not sure. `prompts` are what MCP clients are offered as such, by name,
    `resources` what they read by an address and `toolsets` the parts that they are served apart. `webhooks` are what other
    services tell, `outside` the servers of others whose tools are among these, both by name. Nothing of what is `left_out`
    is among all these."""

    root: Path
    name: str
    tools: Mapping[str, Tool[..., Any]]
    agents: Mapping[str, AgentPrompt]
    entry: str
    seeds: Sequence[SeedFile[Any]] = field(default_factory=tuple)
    prompts: Mapping[str, AgentPrompt] = field(default_factory=dict)
    resources: Sequence[Resource] = ()
    toolsets: Mapping[str, Toolset] = field(default_factory=dict)
    webhooks: Mapping[str, Webhook] = field(default_factory=dict)
    outside: "Mapping[str, OutsideServer]" = field(default_factory=dict)
    outside_remarks: Sequence[Mistake] = ()
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def content(self) -> Path:
        return self.root / "content"

    @property
    def specialists(self) -> Sequence[AgentPrompt]:
        """The agents that messages are routed to: all but the triage agent, unless it is the only one."""
        others = [agent for agent in self.agents.values() if agent.name != TRIAGE]
        return others or list(self.agents.values())

    def with_prompt(self, prompt: AgentPrompt) -> "Workspace":
        """This workspace with `prompt` in place of the agent of its name, or beside the others."""
        return replace(self, agents=MappingProxyType({**self.agents, prompt.name: prompt}))

    @property
    def routed_by(self) -> Sequence[Any]:
        """What messages are routed by. Workspaces where it is the same route alike."""
        return [
            (agent.name, agent.description, agent.examples, agent.knowledge, agent.tools) for agent in self.specialists
        ]

    @property
    def suggestions(self) -> Sequence[str]:
        """What somebody may ask first: an example of each agent but those whose tools are all for staff."""
        return [agent.examples[0] for agent in self.specialists if agent.examples and not self._is_for_staff(agent)]

    def _is_for_staff(self, agent: AgentPrompt) -> bool:
        own = [
            tool for name in agent.tools if (tool := self.tools.get(name)) and tool.scope != knowledge_tools.KNOWLEDGE
        ]
        return bool(own) and all(tool.staff for tool in own)

    @property
    def agent_scopes(self) -> frozenset[str]:
        """The scopes of every tool that some agent may call, and that of passages where one answers from them."""
        versions = [version for agent in self.agents.values() for version in agent.versions]
        passages = {knowledge_tools.KNOWLEDGE} if any(each.knowledge != () for each in versions) else set[str]()
        return frozenset(passages | {self.tools[name].scope for each in versions for name in each.tools})

    @property
    def inputs(self) -> Mapping[str, Input]:
        """The inputs of all agents by name. One that several declare is of the same type in all of them."""
        versions = [version for agent in self.agents.values() for version in agent.versions]
        return {name: declared for each in versions for name, declared in each.inputs.items()}

    @property
    def most_turns(self) -> int:
        """The most model calls in a turn that some agent may make. It is 0 where none says how many."""
        return max((agent.max_turns or 0 for agent in self.agents.values()), default=0)

    def find_responsible(self, collection: str) -> AgentPrompt | None:
        """The agent that answers from a collection. One that names it first goes before the others."""
        agents = self.agents.values()
        return next(
            (a for a in agents if a.knowledge and a.knowledge[0] == collection),
            next((a for a in agents if collection in (a.knowledge or ())), None),
        )

    def choose(self, conversation_id: UUID) -> "Workspace":
        """The workspace with the versions of its agents that take a conversation."""
        chosen = {name: agent.choose(conversation_id) for name, agent in self.agents.items()}
        # The same object where there is nothing to choose, as nearly everywhere.
        if all(chosen[name] is agent for name, agent in self.agents.items()):
            return self
        return replace(self, agents=MappingProxyType(chosen))

    @property
    def staff_scopes(self) -> frozenset[str]:
        """The scopes of the tools that are for staff."""
        return frozenset(tool.scope for tool in self.tools.values() if tool.staff)


def load_workspace(root: Path, slices: Sequence[str] = ()) -> Workspace:
    """Load `root`. Raises WorkspaceInvalid with every mistake in tools/ and prompts/, each with file and line."""
    workspace, mistakes = read_workspace(root, slices)
    if mistakes:
        raise WorkspaceInvalid(mistakes)
    return workspace


def read_workspace(root: Path, slices: Sequence[str] = ()) -> tuple[Workspace, list[Mistake]]:
    """What could be loaded of `root`, and every mistake in tools/ and prompts/. Where `slices` are named, the others are
    left out. Raises WorkspaceInvalid where there is nothing to load, and for a slice that is not there."""
    root = find_root(root)
    found, problems = read_slices(root)
    problems += find_wrong_claims(root, found, list_agents(root / "prompts"))
    # The modules of all slices are imported: their tables stay declared, and are not taken for left over.
    imported = import_tools(root)
    modules, left_out = _part_modules(imported.modules, leave_out(found, slices))
    needed = [jobs] if any(tool.long for tool in _of_type(modules, Tool)) else []
    engine_tools = list(_of_type([conversation_tools, knowledge_tools, document_tools, forms, *needed], Tool))
    others = outside.load_outside(root) if (root / OUTSIDE_FILES[0]).is_file() else None
    tools, clashes = _collect_tools(modules, engine_tools, others.tools if others else (), root)
    # A module of a slice may have imported a tool of the engine, which is there.
    there = {name for tool in tools.values() for name in (tool.name, tool.scope)}
    left_out = replace(left_out, tools=left_out.tools - there)
    loaded, mistakes = load_prompts(root / "prompts", root, without=left_out.agents)
    loaded = {name: _without_left_out(prompt, left_out, tools) for name, prompt in loaded.items()}
    resources, twice = collect_resources(list(_of_type([*_WITH_RESOURCES, *modules], Resource)), root)
    webhooks, same = collect_webhooks(list(_of_type(modules, Webhook)), root)
    problems += [*imported.mistakes, *clashes, *twice, *same, *mistakes, *(others.mistakes if others else ())]
    problems += _wrong_phrases(tools, root, imported.mistakes)
    problems += _unknown_names(loaded, root, {*tools, *imported.lost}, left_out)
    problems += _clashing_inputs(loaded)
    prompts = {name: prompt for name, prompt in loaded.items() if prompt.mcp}
    absent = imported.lost | left_out.tools | left_out.agents
    toolsets, wrong = read_toolsets(root, tools, prompts, resources, lost=absent)
    problems += wrong
    agents = {name: agent for name, agent in loaded.items() if agent.mcp != "only"}
    if not agents:
        own = tuple(name for name, tool in tools.items() if tool not in engine_tools)
        agents = {_DEFAULT_AGENT.name: replace(_DEFAULT_AGENT, tools=own)}
    agents = _with_triage(agents)
    workspace = Workspace(
        root=root,
        name=root.name,
        # Read-only, because every request of the process reads the same workspace.
        tools=MappingProxyType(tools),
        agents=MappingProxyType(agents),
        entry=TRIAGE if TRIAGE in agents else next(iter(agents)),
        seeds=tuple(_of_type(modules, SeedFile)),
        prompts=MappingProxyType(prompts),
        resources=resources,
        toolsets=MappingProxyType(toolsets),
        webhooks=MappingProxyType(webhooks),
        outside=others.servers if others else {},
        outside_remarks=others.remarks if others else (),
        left_out=left_out,
    )
    return workspace, sort_mistakes(problems)


def _part_modules(modules: Sequence[ModuleType], left_out: LeftOut) -> tuple[Sequence[ModuleType], LeftOut]:
    """The modules that are not left out, and what is left out with the names that the other modules give."""
    kept = [module for module in modules if not left_out.has_module(module.__name__)]
    others = [module for module in modules if left_out.has_module(module.__name__)]
    named = {name for tool in _of_type(others, Tool) for name in (tool.name, tool.scope)}
    named |= {name for resource in _of_type(others, Resource) for name in (resource.uri, resource.scope)}
    return kept, replace(left_out, tools=frozenset(named))


def _without_left_out(prompt: AgentPrompt, left_out: LeftOut, tools: Mapping[str, Tool[..., Any]]) -> AgentPrompt:
    """An agent without the tools, agents and collections of slices that are left out."""
    if not left_out.slices:
        return prompt
    return replace(
        prompt,
        # Another slice may have a tool of the same name.
        tools=tuple(name for name in prompt.tools if name in tools or name not in left_out.tools),
        handoffs=tuple(name for name in prompt.handoffs if name not in left_out.agents),
        knowledge=prompt.knowledge and tuple(name for name in prompt.knowledge if name not in left_out.collections),
        candidates=tuple(_without_left_out(each, left_out, tools) for each in prompt.candidates),
    )


def sort_mistakes(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """Each mistake once, by file and line."""
    # As a set: a tool that two modules import has its mistake once.
    return sorted(set(mistakes), key=lambda mistake: (mistake.file, mistake.line or 0, mistake.message))


def _with_triage(agents: Mapping[str, AgentPrompt]) -> dict[str, AgentPrompt]:
    """Where there are several agents, one decides; it hands off to all the others unless it says to whom."""
    if len(agents) == 1:
        # What an agent hands over to where there are others, as `triage`, is not there.
        return {name: _without_handoffs(agent) for name, agent in agents.items()}
    triage = agents.get(TRIAGE, _DEFAULT_TRIAGE)
    others = tuple(name for name in agents if name != TRIAGE)
    handoffs = triage.handoffs or others
    candidates = tuple(replace(candidate, handoffs=handoffs) for candidate in triage.candidates)
    return {**agents, TRIAGE: replace(triage, handoffs=handoffs, candidates=candidates)}


def _without_handoffs(agent: AgentPrompt) -> AgentPrompt:
    return replace(agent, handoffs=(), candidates=tuple(map(_without_handoffs, agent.candidates)))


def _collect_tools(
    modules: Sequence[ModuleType],
    engine_tools: Sequence[Tool[..., Any]],
    others: Sequence[Tool[..., Any]],
    root: Path,
) -> tuple[dict[str, Tool[..., Any]], list[Mistake]]:
    tools = {tool.name: tool for tool in engine_tools}
    problems: list[Mistake] = []
    routes: dict[str, Tool[..., Any]] = {}
    for tool in (*_of_type(modules, Tool), *others):
        other = tools.setdefault(tool.name, tool)
        if other is not tool:
            problems.append(_mistake(tool, root, f"there is one already, {_place(other, root)}; rename one"))
        elif tool.route is not None and (other := routes.setdefault(tool.route, tool)) is not tool:
            problems.append(
                _mistake(tool, root, f"route {tool.route!r} is that of {other.name} already, {_place(other, root)}")
            )
    return tools, problems


def _mistake(tool: Tool[..., Any], root: Path, message: str) -> Mistake:
    return Mistake(relative_path(tool.file, root), tool.line, f"tool {tool.name}: {message}")


def _place(tool: Tool[..., Any], root: Path) -> str:
    return f"{relative_path(tool.file, root)}:{tool.line}"


def _wrong_phrases(tools: Mapping[str, Tool[..., Any]], root: Path, found: Sequence[Mistake]) -> Iterator[Mistake]:
    """What is wrong with the phrases of the tools that have no mistake of `found` in their declaration."""
    places = {(problem.file, problem.line) for problem in found}
    for tool in tools.values():
        # the phrases of a tool are read by its schema, which a tool with a wrong declaration may not have
        if (relative_path(tool.file, root), tool.line) not in places:
            yield from (_mistake(tool, root, message) for message in template_problems(tool))


def _of_type(modules: Sequence[ModuleType], cls: type[Any]) -> Iterator[Any]:
    """The distinct values of `cls` at the top level of `modules`, in the order of their definition."""
    seen: set[int] = set()
    for module in modules:
        for value in vars(module).values():
            # By identity: one module may import a tool of another, and a value need not be hashable.
            if isinstance(value, cls) and id(value) not in seen:
                seen.add(id(value))
                yield value


def _unknown_names(
    agents: Mapping[str, AgentPrompt], root: Path, tools: Set[str], left_out: LeftOut
) -> Iterator[Mistake]:
    """Names in the front matter of agents that stand for nothing."""
    # By the files: an agent with a mistake may not have loaded.
    alone = {name for name, prompt in agents.items() if prompt.mcp == "only"}
    others = (list_agents(root / "prompts") | {TRIAGE}) - alone - left_out.agents
    collections = list_collections(root / "content", left_out.collections)
    for agent in (version for each in agents.values() for version in each.versions):
        for key, noun, names, known in (
            ("tools", "tool", agent.tools, tools),
            ("handoffs", "agent", agent.handoffs, others),
            ("knowledge", "collection", agent.knowledge or (), collections),
        ):
            # What a candidate has from the file of its agent is named there.
            for name in names if agent.share is None or key in agent.lines else ():
                if name not in known:
                    message = f"{key}: there is no {noun} {name!r}; {name_known(name, known)}"
                    if key == "knowledge":
                        message += (
                            " (a collection is a folder of content/ with a page in it, as in content/guide/first.md)"
                        )
                    yield Mistake(agent.file, agent.lines.get(key), message)


def _clashing_inputs(agents: Mapping[str, AgentPrompt]) -> Iterator[Mistake]:
    """Inputs that two agents declare with different types: a request gives one value to all agents."""
    first: dict[str, tuple[AgentPrompt, Input]] = {}
    for agent in (version for each in agents.values() for version in each.versions):
        for name, declared in agent.inputs.items():
            other, before = first.setdefault(name, (agent, declared))
            if before.type != declared.type:
                message = (
                    f"inputs: {name} is of type {declared.type}, and {before.type} in {other.file}; make them the same"
                )
                yield Mistake(agent.file, agent.lines.get("inputs"), message)
            elif before.enum != declared.enum:
                message = f"inputs: {name} has another enum in {other.file}; make them the same"
                yield Mistake(agent.file, agent.lines.get("inputs"), message)
