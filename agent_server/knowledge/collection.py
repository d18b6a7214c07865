"""What is said of a collection as a whole: `content/<collection>/collection.yaml`, which need not be there.

language: de
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import yaml

from agent_server.errors import Mistake, name_known
from agent_server.knowledge.languages import CONFIGS

FILE = "collection.yaml"


def language_of_collection(folder: Path, collection: str) -> str:
    """The language that a collection's file gives, "" where it gives none or has a mistake."""
    return _read(folder, collection)[0]


def find_wrong_collections(folder: Path) -> list[Mistake]:
    """The mistakes in the files of collections. The pages are read without them."""
    return [
        Mistake(f"{folder.name}/{file.parent.name}/{FILE}", None, wrong)
        for file in sorted(folder.glob(f"*/{FILE}"))
        for wrong in _read(folder, file.parent.name)[1]
    ]


def find_wrong_language(given: object) -> str | None:
    """What is wrong with a language in front matter or in a collection's file."""
    if given is None or (isinstance(given, str) and normalise_language(given) in CONFIGS):
        return None
    # `no` is false in YAML.
    shown = "no" if given is False else str(given)
    return f'language: there is no language {shown!r}; {name_known(shown, CONFIGS)}, as in `language: "de"`'


def normalise_language(given: object) -> str:
    """The code of a language without its country: "de" of "de-AT"."""
    return str(given or "").strip().lower().replace("_", "-").partition("-")[0]


def _read(folder: Path, collection: str) -> tuple[str, Sequence[str]]:
    file = folder / collection / FILE
    try:
        changed = file.stat().st_mtime_ns
    except OSError:
        return "", ()
    return _read_version(file, changed)


@lru_cache(maxsize=256)
def _read_version(file: Path, changed: int) -> tuple[str, Sequence[str]]:
    """The language and the mistakes. `changed` is the version of the file."""
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return "", ["cannot be read as YAML; write keys and values, as in `language: de`"]
    if not isinstance(read, dict):
        return "", ["must be keys and values, as in `language: de`"]
    wrong = [f"{key}: is no key of a collection; there is `language`" for key in read if key != "language"]
    if bad := find_wrong_language(read.get("language")):
        return "", [*wrong, bad]
    return normalise_language(read.get("language")), wrong
