"""Which files the settings were read from, in words."""

from pathlib import Path

from agent_server.settings import ENV_FILE, Settings, find_env_files


def tell_env_files(settings: Settings) -> str:
    """Which files the settings were read from, the one that wins first."""
    files = find_env_files(settings.workspace)
    if files:
        return ", then ".join(map(show_path, files))
    looked = dict.fromkeys(show_path(folder / ENV_FILE) for folder in (settings.workspace, Path()))
    return f"none; it would be read from {' and '.join(looked)}"


def show_path(path: Path) -> str:
    """A path as a person would name it: from the current folder on, where it is in there."""
    whole, here = path.absolute(), Path().absolute()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)
