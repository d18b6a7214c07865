"""What is said of a collection as a whole: `content/<collection>/collection.yaml`, which need not be there.

language: de
embedder: {name: openai, model: bge-m3, url: http://localhost:8080/v1, dimensions: 1024, weight: 1.5}
"""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from agent_server.errors import Mistake, name_known
from agent_server.knowledge.embedders.base import MAX_DIMENSIONS
from agent_server.knowledge.languages import CONFIGS

FILE = "collection.yaml"
MAX_WEIGHT = 10
_KEYS = ("language", "embedder")
_EMBEDDER: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "model": (str,),
    "url": (str,),
    "dimensions": (int,),
    "weight": (int, float),
}
"""What is said of a collection's embedder. Its key is a secret, which a file of the content must not have."""


def language_of_collection(folder: Path, collection: str) -> str:
    """The language that a collection's file gives, "" where it gives none or has a mistake."""
    return _read(folder, collection)[0]


def embedder_of_collection(folder: Path, collection: str) -> Mapping[str, Any] | None:
    """How the embedder is opened that a collection's file gives, None where it gives none or has a mistake."""
    return _read(folder, collection)[2]


def find_wrong_collections(folder: Path, without: Collection[str] = ()) -> list[Mistake]:
    """The mistakes in the files of collections, save those of `without`. The pages are read without them."""
    return [
        Mistake(f"{folder.name}/{file.parent.name}/{FILE}", None, wrong)
        for file in sorted(folder.glob(f"*/{FILE}"))
        if file.parent.name not in without
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


_Said = tuple[str, Sequence[str], Mapping[str, Any] | None]


def _read(folder: Path, collection: str) -> _Said:
    file = folder / collection / FILE
    try:
        changed = file.stat().st_mtime_ns
    except OSError:
        return "", (), None
    return _read_version(file, changed)


@lru_cache(maxsize=256)
def _read_version(file: Path, changed: int) -> _Said:
    """The language, the mistakes and the embedder. `changed` is the version of the file."""
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return "", ["cannot be read as YAML; write keys and values, as in `language: de`"], None
    if not isinstance(read, dict):
        return "", ["must be keys and values, as in `language: de`"], None
    wrong = [f"{key}: is no key of a collection; there are {' and '.join(_KEYS)}" for key in read if key not in _KEYS]
    language, embedder = normalise_language(read.get("language")), read.get("embedder")
    if bad := find_wrong_language(read.get("language")):
        wrong, language = [*wrong, bad], ""
    if bad := _find_wrong_embedder(embedder):
        wrong, embedder = [*wrong, bad], None
    return language, wrong, embedder


def _find_wrong_embedder(given: object) -> str | None:
    if given is None:
        return None
    shown = "write `embedder: {name: openai, model: bge-m3, dimensions: 1024}`"
    if not isinstance(given, dict):
        return f"embedder: must be keys and values; {shown}"
    if unknown := [key for key in given if key not in _EMBEDDER]:
        return f"embedder: {', '.join(map(str, unknown))}: is no key of an embedder; there are {', '.join(_EMBEDDER)}"
    for key, kinds in _EMBEDDER.items():
        value = given.get(key)
        if (value is None and key == "name") or (
            value is not None and (isinstance(value, bool) or not isinstance(value, kinds))
        ):
            return f"embedder: {key}: is missing or of another kind; {shown}"
    if not 1 <= given.get("dimensions", 1) <= MAX_DIMENSIONS:
        return f"embedder: dimensions: must be 1 to {MAX_DIMENSIONS}"
    if not 0 <= given.get("weight", 0) <= MAX_WEIGHT:
        return f"embedder: weight: must be 0 to {MAX_WEIGHT}"
    return None
