"""The three folders -> one frozen Workspace; all mistakes reported together."""

import importlib
import re
import sys
import traceback
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
from agent_server.tool import Tool, collect_mistakes
from agent_server.toolsets import Toolset, read_toolsets

if TYPE_CHECKING:
    from agent_server.outside import tools as outside
    from agent_server.outside.servers import OutsideServer
else:
    outside = Late("agent_server.outside.tools")  # few workspaces have such servers

TRIAGE = "triage"
OUTSIDE_FILES = ("mcp.yaml", "mcp.lock")
"""What names the outside servers, and what is accepted of their tools."""
_HINTS: Mapping[type[BaseException], str] = {
    ModuleNotFoundError: "; correct the name, or install the package that has it",
    SystemExit: "; a module of tools/ must not end the program",
}
_WITH_RESOURCES = (conversation_resources, knowledge_resources)
_DEFINITION = re.compile(r"\bdef\s+(\w+)")

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
    `resources` what they read by an address and `toolsets` the parts that they are served apart. `outside` are the servers
    of others whose tools are among these, by name."""

    root: Path
    name: str
    tools: Mapping[str, Tool[..., Any]]
    agents: Mapping[str, AgentPrompt]
    entry: str
    seeds: Sequence[SeedFile[Any]] = field(default_factory=tuple)
    prompts: Mapping[str, AgentPrompt] = field(default_factory=dict)
    resources: Sequence[Resource] = ()
    toolsets: Mapping[str, Toolset] = field(default_factory=dict)
    outside: "Mapping[str, OutsideServer]" = field(default_factory=dict)
    outside_remarks: Sequence[Mistake] = ()

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
        """What somebody may ask first: an example of each agent."""
        return [agent.examples[0] for agent in self.specialists if agent.examples]

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


def load_workspace(root: Path) -> Workspace:
    """Load `root`. Raises WorkspaceInvalid with every mistake in tools/ and prompts/, each with file and line."""
    workspace, mistakes = read_workspace(root)
    if mistakes:
        raise WorkspaceInvalid(mistakes)
    return workspace


def read_workspace(root: Path) -> tuple[Workspace, list[Mistake]]:
    """What could be loaded of `root`, and every mistake in tools/ and prompts/. Raises WorkspaceInvalid where there is
    nothing to load."""
    root = find_root(root)
    imported = _import_tools(root)
    needed = [jobs] if any(tool.long for tool in _of_type(imported.modules, Tool)) else []
    engine_tools = list(_of_type([conversation_tools, knowledge_tools, document_tools, forms, *needed], Tool))
    others = outside.load_outside(root) if (root / OUTSIDE_FILES[0]).is_file() else None
    tools, clashes = _collect_tools(imported.modules, engine_tools, others.tools if others else (), root)
    loaded, mistakes = load_prompts(root / "prompts", root)
    resources, twice = collect_resources(list(_of_type([*_WITH_RESOURCES, *imported.modules], Resource)), root)
    problems = [*imported.mistakes, *clashes, *twice, *mistakes, *(others.mistakes if others else ())]
    problems += _wrong_phrases(tools, root, imported.mistakes)
    problems += _unknown_names(loaded, root, {*tools, *imported.lost})
    problems += _clashing_inputs(loaded)
    prompts = {name: prompt for name, prompt in loaded.items() if prompt.mcp}
    toolsets, wrong = read_toolsets(root, tools, prompts, resources, lost=imported.lost)
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
        seeds=tuple(_of_type(imported.modules, SeedFile)),
        prompts=MappingProxyType(prompts),
        resources=resources,
        toolsets=MappingProxyType(toolsets),
        outside=others.servers if others else {},
        outside_remarks=others.remarks if others else (),
    )
    return workspace, sort_mistakes(problems)


def sort_mistakes(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """Each mistake once, by file and line."""
    # As a set: a tool that two modules import has its mistake once.
    return sorted(set(mistakes), key=lambda mistake: (mistake.file, mistake.line or 0, mistake.message))


def _with_triage(agents: Mapping[str, AgentPrompt]) -> dict[str, AgentPrompt]:
    """Where there are several agents, one decides; it hands off to all the others unless it says to whom."""
    if len(agents) == 1:
        return dict(agents)
    triage = agents.get(TRIAGE, _DEFAULT_TRIAGE)
    others = tuple(name for name in agents if name != TRIAGE)
    handoffs = triage.handoffs or others
    candidates = tuple(replace(candidate, handoffs=handoffs) for candidate in triage.candidates)
    return {**agents, TRIAGE: replace(triage, handoffs=handoffs, candidates=candidates)}


@dataclass(frozen=True)
class _Imported:
    """The modules under tools/, imported as `tools.*`, and why those that did not import did not.

    `lost` are names in the modules that did not import: each may be that of a tool.
    """

    modules: Sequence[ModuleType] = ()
    mistakes: Sequence[Mistake] = ()
    lost: Set[str] = frozenset()


def _import_tools(root: Path) -> _Imported:
    folder = root / "tools"
    if not folder.is_dir():
        return _Imported()
    _make_importable(root)
    modules: list[ModuleType] = []
    problems: list[Mistake] = []
    lost: set[str] = set()
    with collect_mistakes() as mistakes:
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(root)
            if any(part.startswith((".", "_")) and part != "__init__.py" for part in relative.parts):
                continue
            name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            try:
                modules.append(importlib.import_module(name))
            except (Exception, SystemExit) as error:  # noqa: BLE001  # a user's module may raise anything at import; each is a mistake to report
                problems.append(_import_mistake(error, path, root))
                lost.update(_DEFINITION.findall(path.read_text(encoding="utf-8", errors="replace")))
    problems += [replace(mistake, file=_relative(mistake.file, root)) for mistake in mistakes]
    if not problems:
        _kept[folder] = (_list_states(folder), {name: sys.modules[name] for name in sys.modules if _is_of_tools(name)})
    return _Imported(modules, problems, lost)


# A process may come back to a workspace, as tests do. To import its modules once more would declare its tables twice.
_kept: dict[Path, tuple[Mapping[Path, int], Mapping[str, ModuleType]]] = {}
"""The modules of folders that were imported without a mistake, and the state of their files then."""


def _list_states(folder: Path) -> Mapping[Path, int]:
    """When each module was changed."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.py")}


def _is_of_tools(name: str) -> bool:
    return name == "tools" or name.startswith("tools.")


def _make_importable(root: Path) -> None:
    """Make `tools` the package in `root`; that of another workspace makes way."""
    folder = root / "tools"
    loaded = sys.modules.get("tools")
    if loaded is not None and str(folder) not in [str(Path(p).resolve()) for p in loaded.__path__]:
        for name in list(filter(_is_of_tools, sys.modules)):
            del sys.modules[name]
    states, modules = _kept.get(folder, (None, {}))
    if "tools" not in sys.modules and states == _list_states(folder):
        sys.modules.update(modules)
    # In the first place: an installed package may be called `tools` as well.
    if sys.path[:1] != [str(root)]:
        sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    if "tools" not in sys.modules and not (folder / "__init__.py").is_file():
        # a folder without __init__.py would give way to any package of that name further down the path
        package = ModuleType("tools")
        package.__path__ = [str(folder)]
        sys.modules["tools"] = package


def _import_mistake(error: BaseException, path: Path, root: Path) -> Mistake:
    file, line = path, None
    # A module that cannot be read has no line in the traceback; its place is in the error.
    if isinstance(error, SyntaxError) and error.filename:
        file, line = Path(error.filename), error.lineno
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            # The last line of the author's own: the error may come from deep inside a library.
            if Path(frame.filename).is_relative_to(root / "tools"):
                file, line = Path(frame.filename), frame.lineno
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    hint = next((hint for kind, hint in _HINTS.items() if isinstance(error, kind)), "")
    return Mistake(_relative(str(file), root), line, f"does not import: {type(error).__name__}: {message}{hint}")


def _relative(file: str, root: Path) -> str:
    path = Path(file)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else file


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
    return Mistake(_relative(tool.file, root), tool.line, f"tool {tool.name}: {message}")


def _place(tool: Tool[..., Any], root: Path) -> str:
    return f"{_relative(tool.file, root)}:{tool.line}"


def _wrong_phrases(tools: Mapping[str, Tool[..., Any]], root: Path, found: Sequence[Mistake]) -> Iterator[Mistake]:
    """What is wrong with the phrases of the tools that have no mistake of `found` in their declaration."""
    places = {(problem.file, problem.line) for problem in found}
    for tool in tools.values():
        # the phrases of a tool are read by its schema, which a tool with a wrong declaration may not have
        if (_relative(tool.file, root), tool.line) not in places:
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


def _unknown_names(agents: Mapping[str, AgentPrompt], root: Path, tools: Set[str]) -> Iterator[Mistake]:
    """Names in the front matter of agents that stand for nothing."""
    # By the files: an agent with a mistake may not have loaded.
    alone = {name for name, prompt in agents.items() if prompt.mcp == "only"}
    others = (list_agents(root / "prompts") | {TRIAGE}) - alone
    collections = list_collections(root / "content")
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
