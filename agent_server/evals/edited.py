"""A prompt that is not saved, in a workspace that is otherwise as it is."""

import tempfile
from dataclasses import replace
from pathlib import Path

from agent_server.errors import InvalidInput, Mistake, WorkspaceInvalid, name_known
from agent_server.front_matter import read_head
from agent_server.prompts import AgentPrompt, read_prompt
from agent_server.workspace import Workspace


def read_edited(path: Path, workspace: Workspace) -> AgentPrompt:
    """The prompt in a file anywhere, for the agent that its front matter names. Raises InvalidInput and
    WorkspaceInvalid."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InvalidInput(f"{path}: there is no such file; name one as in prompts/support.md") from None
    return parse_edited(text, str(path), workspace)


def parse_edited(text: str, file: str, workspace: Workspace) -> AgentPrompt:
    """The prompt that a text is, for the agent that its front matter names. Raises InvalidInput and WorkspaceInvalid,
    whose mistakes are in `file`."""
    name = _find_name(text)
    if name not in workspace.agents:
        raise InvalidInput(f"{file}: name: there is no agent {name!r}; {name_known(name, workspace.agents)}")
    root = workspace.root
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.md"
        path.write_text(text, encoding="utf-8")
        # What it includes is that of the workspace, and so is what a candidate leaves out.
        prompt, mistakes = read_prompt(path, root / "prompts", root, workspace.agents)
    if mistakes or prompt is None:
        own = [replace(m, file=file) if m.file == str(path) else m for m in mistakes]
        raise WorkspaceInvalid(own)
    if unknown := [tool for tool in prompt.tools if tool not in workspace.tools]:
        place = prompt.lines.get("tools")
        message = f"tools: there is no tool {unknown[0]!r}; {name_known(unknown[0], workspace.tools)}"
        raise WorkspaceInvalid([Mistake(file, place, message)])
    return replace(prompt, file=file, handoffs=_find_handoffs(prompt, workspace))


def put_prompt(prompt: AgentPrompt, workspace: Workspace) -> Workspace:
    """The workspace in which this prompt, which may be a candidate, takes all messages of its agent."""
    return workspace.with_prompt(replace(prompt, candidates=(), handoffs=_find_handoffs(prompt, workspace)))


def _find_handoffs(prompt: AgentPrompt, workspace: Workspace) -> tuple[str, ...]:
    # of the agent that decides, a workspace fills in whom it may hand over to
    filled = workspace.agents[prompt.name].handoffs if prompt.name == workspace.entry else ()
    return tuple(prompt.handoffs or filled)


def _find_name(text: str) -> str:
    lines = text.removeprefix("\ufeff").splitlines()
    end = next((n for n, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), 0)
    return str(read_head("\n".join(lines[1:end]), 2).values.get("name", "")) if end else ""
