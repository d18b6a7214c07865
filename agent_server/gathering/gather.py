"""Pages from elsewhere -> a collection of content/, which the index then follows like any other.

What was gathered is noted in a hidden file of the collection, so that a later run takes away what is gone at its source
and never touches a file of somebody else. Each file is written whole or not at all: a run that was killed goes on.
"""

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent_server.errors import InvalidInput, Mistake
from agent_server.knowledge.collection import FILE
from agent_server.knowledge.files import content_files, count_unread
from agent_server.wording import count

NOTES = ".gathered.json"
_UNFINISHED = ".gathering-"
_LEFT_BEHIND = 3600
"""Seconds after which nobody writes to an unfinished file any more."""


@dataclass
class Gathered:
    """What became of the sources. `files` are their notes, by the names of the files in the collection."""

    files: dict[str, dict[str, str]]
    problems: list[Mistake] = field(default_factory=list)
    remarks: list[Mistake] = field(default_factory=list)


def name_collection(source: Path, given: str | None) -> str:
    """The collection that the pages of a source become. Raises InvalidInput for a name that cannot be a folder's."""
    name = given or re.sub(r"[^\w-]+", "-", source.resolve().stem if source.is_file() else source.resolve().name).strip(
        "-_"
    )
    if not re.fullmatch(r"\w[\w-]{0,79}", name):
        raise InvalidInput(f"--collection: {name!r} is no name of a collection; use letters, digits, - and _")
    return name


def read_notes(target: Path) -> dict[str, dict[str, str]]:
    """What was gathered into a collection before. Raises InvalidInput where its files are somebody else's."""
    notes = target / NOTES
    if notes.is_file():
        try:
            files: dict[str, dict[str, str]] = json.loads(notes.read_text(encoding="utf-8"))["files"]
        except (ValueError, KeyError, TypeError):
            raise InvalidInput(f"{notes}: cannot be read; delete the folder, and gather it again") from None
        for left in target.rglob(f"{_UNFINISHED}*"):
            if time.time() - left.stat().st_mtime > _LEFT_BEHIND:
                left.unlink(missing_ok=True)
        return files
    if target.is_dir() and any(target.iterdir()):
        raise InvalidInput(f"{target} has pages that were not gathered; name another collection with --collection NAME")
    return {}


def write_notes(target: Path, files: Mapping[str, Mapping[str, str]]) -> None:
    write_whole(target / NOTES, json.dumps({"files": dict(sorted(files.items()))}, indent=1).encode())


def write_whole(file: Path, content: bytes) -> None:
    """Write a file that no reader sees half done, and that is not touched where it has this content."""
    if file.is_file() and file.stat().st_size == len(content) and file.read_bytes() == content:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{_UNFINISHED}{os.getpid()}-{file.name}"[:200])
    unfinished.write_bytes(content)
    unfinished.replace(file)


def remove_gone(target: Path, before: Mapping[str, object], files: Mapping[str, object]) -> None:
    """Delete what was gathered before and is not any more."""
    for name in before.keys() - files.keys():
        (target / name).unlink(missing_ok=True)


def gather_folder(source: Path, target: Path) -> Gathered:
    """Make `target` hold the pages of `source`, and nothing else."""
    before = read_notes(target)
    pages = {path.relative_to(source).as_posix(): path for path in content_files(source)}
    if (source / FILE).is_file():
        pages[FILE] = source / FILE
    gathered = Gathered({name: {} for name in pages})
    # Noted first: of what a run that is killed has written, the next one must know that it is its own.
    write_notes(target, {**before, **gathered.files})
    for name, path in pages.items():
        try:
            write_whole(target / name, path.read_bytes())
        except OSError as error:
            gathered.problems.append(Mistake(str(path), None, f"cannot be read: {error.strerror}"))
            gathered.files.pop(name) if name not in before else None
    remove_gone(target, before, gathered.files)
    write_notes(target, gathered.files)
    gathered.remarks += [
        Mistake(
            source.name, None, f"{count(len(names), 'file')} of the kind {suffix or 'without a name ending'} not read"
        )
        for suffix, names in count_unread(source).items()
    ]
    return gathered
