"""The files of a folder of content, and which of them are read. `without` names folders in it that are left out.

None is opened here, so that a process that only wants their names imports no reader.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from agent_server.errors import Mistake
from agent_server.knowledge.readers import KINDS, is_readable


def content_files(folder: Path, without: Collection[str] = ()) -> Sequence[Path]:
    """The content files under `folder` that can be read, without the hidden ones and links to elsewhere."""
    return [path for path in _find_files(folder, without) if not _is_elsewhere(path, folder)]


def list_collections(folder: Path, without: Collection[str] = ()) -> list[str]:
    """The collections of the content: the folders in `folder` that have a page in them."""
    paths = (path.relative_to(folder).parts for path in content_files(folder, without))
    return sorted({parts[0] for parts in paths if len(parts) > 1})


def count_unread(folder: Path, without: Collection[str] = ()) -> Mapping[str, Sequence[str]]:
    """The files under `folder` that are no pages, by their type (".png", "" for none)."""
    unread: dict[str, list[str]] = {}
    for path in sorted(_list_all(folder, without)):
        name = path.relative_to(folder)
        if not is_readable(path.suffix.lower()) and path.is_file() and not _is_hidden(name):
            unread.setdefault(path.suffix.lower(), []).append(name.as_posix())
    return unread


def list_unreadable(folder: Path, without: Collection[str] = ()) -> list[str]:
    """The files under `folder` of a kind that is read, and whose reader needs a package that is not installed."""
    return [name for suffix, names in count_unread(folder, without).items() if suffix in KINDS for name in names]


def find_links_out(folder: Path, without: Collection[str] = ()) -> list[Mistake]:
    """The content files under `folder` that are symbolic links to elsewhere. They are not read."""
    return [
        Mistake(
            f"{folder.name}/{path.relative_to(folder).as_posix()}", None, "is a link out of this folder; copy the file"
        )
        for path in _find_files(folder, without)
        if _is_elsewhere(path, folder)
    ]


def _find_files(folder: Path, without: Collection[str]) -> Sequence[Path]:
    files = (path for path in _list_all(folder, without) if is_readable(path.suffix.lower()) and path.is_file())
    return sorted(path for path in files if not _is_hidden(path.relative_to(folder)))


def _list_all(folder: Path, without: Collection[str]) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.relative_to(folder).parts[0] not in without)


def _is_hidden(name: Path) -> bool:
    return any(part.startswith(".") or part == "node_modules" for part in name.parts)


def _is_elsewhere(path: Path, folder: Path) -> bool:
    # Guests read what is read here, and `.env` is beside it.
    return not path.resolve().is_relative_to(folder.resolve())
