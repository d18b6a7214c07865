"""The folder of a workspace, by itself."""

from pathlib import Path

from agent_server.errors import Mistake, WorkspaceInvalid

_OTHER_FOLDER = "name another with --workspace, or make one, as in `agent-server init my-agents`"


def find_root(folder: Path) -> Path:
    """Where the workspace is, in full. Raises WorkspaceInvalid where there is none."""
    root = folder.resolve()
    if not root.is_dir():
        raise WorkspaceInvalid([Mistake(str(root), None, f"there is no such folder; {_OTHER_FOLDER}")])
    if not any((root / name).is_dir() for name in ("tools", "prompts", "content")):
        raise WorkspaceInvalid(
            [Mistake(str(root), None, f"has none of tools/, prompts/ and content/; {_OTHER_FOLDER}")]
        )
    return root
