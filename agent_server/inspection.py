"""Everything that is wrong with a workspace, and what is worth knowing of it.

    mistakes   no server starts with one
    pages      mistakes in pages of content/: the server starts, and goes on with the page as it was before, or without
    remarks    what may be meant as it is

`check` shows all three. Every command that needs the workspace opens it here, so that none of them finds what `check`
does not.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent_server.errors import Mistake, WorkspaceInvalid, name_known
from agent_server.knowledge import embedders
from agent_server.knowledge.files import count_unread, list_collections
from agent_server.knowledge.readers import EXTRA, KINDS, SUFFIXES
from agent_server.late import Late
from agent_server.models import choice
from agent_server.prompts import list_agents
from agent_server.prompts.front import ROUTING
from agent_server.seed import find_seed_mistakes
from agent_server.settings import Settings, find_env_files, variable_of
from agent_server.settings.spelling import find_misspelt, list_variables
from agent_server.toolsets import OWN_TOOLS
from agent_server.wording import count
from agent_server.workspace import Workspace, read_workspace, sort_mistakes

if TYPE_CHECKING:
    from agent_server.knowledge import parse
else:
    parse = Late("agent_server.knowledge.parse")  # most commands read no page

_MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was found, each by file and line."""

    mistakes: Sequence[Mistake]
    pages: Sequence[Mistake] = ()
    remarks: Sequence[Mistake] = ()
    workspace: Workspace | None = None


def open_workspace(settings: Settings) -> Workspace:
    """The workspace of the settings. Raises WorkspaceInvalid with all that `inspect_workspace` calls mistakes."""
    workspace, mistakes = _read(settings)
    if mistakes:
        # The pages too, which are read only here: a start would read them twice.
        raise WorkspaceInvalid([*mistakes, *_read_pages(workspace).mistakes])
    return workspace


def inspect_workspace(settings: Settings) -> Findings:
    """All that is to be said of the workspace of the settings."""
    try:
        workspace, mistakes = _read(settings)
    except WorkspaceInvalid as error:
        return Findings(mistakes=error.problems)
    reading = _read_pages(workspace)
    return Findings(
        mistakes=mistakes,
        pages=reading.mistakes,
        remarks=sort_mistakes([*list_remarks(workspace), *reading.remarks]),
        workspace=workspace,
    )


def _read_pages(workspace: Workspace) -> "parse.FolderReading":
    return parse.read_folder(workspace.content, without=workspace.left_out.collections)


def _read(settings: Settings) -> tuple[Workspace, list[Mistake]]:
    workspace, mistakes = read_workspace(settings.workspace, settings.slices)
    mistakes += find_seed_mistakes(workspace.seeds, workspace.root)
    mistakes += _find_unknown_models(workspace, settings)
    variables = list_variables(os.environ, find_env_files(settings.workspace))
    mistakes += find_misspelt(variables, [variable_of(field) for field in Settings.model_fields])
    mistakes += _find_unlisted(workspace, settings)
    if problem := embedders.find_problem_of_settings(settings):
        variable, _, message = problem.partition(": ")
        mistakes.append(Mistake(variable, None, message))
    return workspace, sort_mistakes(mistakes)


def _find_unlisted(workspace: Workspace, settings: Settings) -> Iterator[Mistake]:
    """Names of tools in the settings that stand for none."""
    for name in settings.mcp_listed_tools:
        if name not in workspace.tools and name not in workspace.left_out.tools:
            message = f"there is no tool {name!r}; {name_known(name, workspace.tools)}"
            yield Mistake(variable_of("mcp_listed_tools"), None, message)


def _find_unknown_models(workspace: Workspace, settings: Settings) -> Iterator[Mistake]:
    for agent in (version for each in workspace.agents.values() for version in each.versions):
        # What a candidate has from the file of its agent is named there.
        if (
            agent.model
            and (agent.share is None or "model" in agent.lines)
            and (problem := choice.find_problem_of_name(agent.model, settings))
        ):
            yield Mistake(agent.file, agent.lines.get("model"), f"model: {problem}")
    for field in ("model", "model_fallback"):
        name = getattr(settings, field)
        if name and (problem := choice.find_problem_of_name(name, settings)):
            yield Mistake(variable_of(field), None, problem)


def list_remarks(workspace: Workspace) -> list[Mistake]:
    """What is worth knowing of a workspace, and does not keep a server from starting."""
    found = (_remark_prompts, _remark_lists, _remark_names, _remark_files)
    return sort_mistakes([*(remark for each in found for remark in each(workspace)), *workspace.outside_remarks])


def _list_prompts(workspace: Workspace) -> set[str]:
    return list_agents(workspace.root / "prompts") - workspace.left_out.agents


def _remark_prompts(workspace: Workspace) -> Iterator[Mistake]:
    if not _list_prompts(workspace):
        yield Mistake(
            "prompts/",
            None,
            "there is no agent of yours, so one answers that knows all of content/ and has every tool. For one of your own "
            "write prompts/baker.md: `---`, `name: baker`, `description: Answers questions about bread.`, `---`, and "
            "below it `You answer questions about bread.`",
        )


def _remark_lists(workspace: Workspace) -> Iterator[Mistake]:
    yield from _remark_candidates(workspace)
    # Of an agent whose front matter was not read it is not known what it lists.
    if _list_prompts(workspace) <= {*workspace.agents, *workspace.prompts}:
        yield from _remark_tools(workspace)
        yield from _remark_collections(workspace)


def _remark_candidates(workspace: Workspace) -> Iterator[Mistake]:
    for agent in workspace.agents.values():
        for candidate in agent.candidates:
            for key in (key for key in ROUTING if key in candidate.lines):
                yield Mistake(
                    candidate.file,
                    candidate.lines[key],
                    f"{key}: is not read in a candidate, since messages are routed by {agent.file}; take it out",
                )


def _remark_tools(workspace: Workspace) -> Iterator[Mistake]:
    listed = {name for agent in workspace.agents.values() for each in agent.versions for name in each.tools}
    for name, tool in workspace.tools.items():
        own = Path(tool.file).is_relative_to(workspace.root / "tools")
        # Those for staff are called by people, over REST or MCP.
        if own and name not in listed and not tool.staff:
            file = Path(tool.file).relative_to(workspace.root).as_posix()
            yield Mistake(
                file, tool.line, f"tool {name}: no agent lists it; for the chat add it to one, as in `tools: [{name}]`"
            )


def _remark_names(workspace: Workspace) -> Iterator[Mistake]:
    for name in sorted(OWN_TOOLS.keys() & workspace.tools.keys()):
        tool = workspace.tools[name]
        file = Path(tool.file)
        yield Mistake(
            file.relative_to(workspace.root).as_posix() if file.is_relative_to(workspace.root) else str(file),
            tool.line,
            f"tool {name}: takes the place of the {name} of MCP, which {OWN_TOOLS[name]}; to offer both, rename it",
        )


def _remark_collections(workspace: Workspace) -> Iterator[Mistake]:
    agents = [version for agent in workspace.agents.values() for version in agent.versions]
    if any(agent.knowledge is None for agent in agents):  # which answers from all of them
        return
    read = {name for agent in agents for name in agent.knowledge or ()}
    for name in list_collections(workspace.content, workspace.left_out.collections):
        if name not in read:
            yield Mistake(
                f"content/{name}/",
                None,
                f"no agent answers from it; add it to one, as in `knowledge: [{name}]`, or leave `knowledge:` out for all",
            )


def _remark_files(workspace: Workspace) -> Iterator[Mistake]:
    for suffix, names in count_unread(workspace.content, workspace.left_out.collections).items():
        kind = f"of type {suffix}" if suffix else "without a type"
        verb = "is" if len(names) == 1 else "are"
        some = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
        instead = f"{SUFFIXES[0]} is, as in {Path(names[0]).with_suffix('.md')}"
        if suffix in KINDS:
            instead = f"install their reader: pip install 'agent-server[{EXTRA}]'"
        yield Mistake("content/", None, f"{count(len(names), 'file')} {kind} {verb} not read ({some}); {instead}")
