"""tools/<slice>/slice.yaml -> what belongs to a slice beside its tools.

    title: To-do list
    description: Every user's own tasks.
    agents: [tasks]
    content: []
    evals: [tasks]

A slice is a part of a workspace that is served with others or alone: its folder in tools/, and the agents of prompts/, the
folders of content/ and the files of evals/ that it names. What no slice names is shared, and is always there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_server.errors import Mistake, WorkspaceInvalid, name_known
from agent_server.front_matter import read_head

FILE = "slice.yaml"
SETTING = "AGENT_SERVER_SLICES"
_CLAIMS: Mapping[str, str] = {"agents": "agent", "content": "folder content/", "evals": "file evals/"}
"""The keys that name what belongs to a slice, and the noun of each."""


class SliceBody(BaseModel):
    """A slice as its file declares it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    title: str = Field(min_length=1)
    description: str = ""
    agents: list[str] = Field(default_factory=list)
    content: list[str] = Field(default_factory=list)
    evals: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Slice:
    """A slice and where it stands. `name` is that of its folder in tools/."""

    name: str
    file: str
    body: SliceBody
    lines: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What belongs to the slices that are left out, by its names. `tools` are known once tools/ is imported: they are
    the names of tools, their scopes, and the addresses of resources."""

    slices: Set[str] = frozenset()
    agents: Set[str] = frozenset()
    collections: Set[str] = frozenset()
    evals: Set[str] = frozenset()
    tools: Set[str] = frozenset()

    def has_module(self, name: str) -> bool:
        """Whether a module of tools/ is one of a slice that is left out."""
        return name.startswith("tools.") and name.split(".")[1] in self.slices

    def has_document(self, path: str) -> bool:
        """Whether a page of content/ is in a folder that is left out."""
        return path.partition("/")[0] in self.collections


def read_slices(root: Path) -> tuple[dict[str, Slice], list[Mistake]]:
    """The slices of a workspace by name, and what is wrong with the form of their files."""
    slices: dict[str, Slice] = {}
    mistakes: list[Mistake] = []
    for path in sorted((root / "tools").glob(f"*/{FILE}")):
        if path.parent.name.startswith((".", "_")):
            continue
        file = path.relative_to(root).as_posix()
        try:
            head = read_head(path.read_text(encoding="utf-8"), 1)
        except (UnicodeDecodeError, OSError) as error:
            mistakes.append(Mistake(file, None, f"cannot be read ({type(error).__name__}); save it as UTF-8 text"))
            continue
        found = [(line, message.replace("front matter is", "is", 1)) for line, message in head.mistakes]
        found += [(line, f"{key}: is on line {first} too; keep one") for key, line, first in head.repeated]
        # What YAML has nothing for is as absent.
        values = {key: value for key, value in head.values.items() if value is not None}
        try:
            body = SliceBody.model_validate(values)
        except ValidationError as error:
            # Of a file that is not YAML all would be missing.
            found += [] if head.mistakes else [(head.lines.get(key, 1), said) for key, said in _explain(error)]
        else:
            slices[path.parent.name] = Slice(path.parent.name, file, body, head.lines)
        mistakes += [Mistake(file, line, message) for line, message in found]
    return slices, mistakes


def find_wrong_claims(root: Path, slices: Mapping[str, Slice], agents: Iterable[str]) -> Iterator[Mistake]:
    """What slices name that is not there, or that another one names as well. `agents` are those of prompts/."""
    known: Mapping[str, Set[str]] = {
        "agents": {*agents},
        "content": {path.name for path in (root / "content").glob("*") if path.is_dir()},
        "evals": {path.stem for path in (root / "evals").glob("*.y*ml")},
    }
    # Where it is served there may be no cases at all, as in an image of a container.
    claimed = _CLAIMS if (root / "evals").is_dir() else {key: noun for key, noun in _CLAIMS.items() if key != "evals"}
    owners: dict[tuple[str, str], str] = {}
    for slice in slices.values():
        for key, noun in claimed.items():
            for name in _list(slice, key):
                line = slice.lines.get(key)
                shown = f"{noun}{name}" if noun.endswith("/") else f"{noun} {name!r}"
                if name not in known[key]:
                    message = f"{key}: there is no {shown}; {name_known(name, known[key])}"
                    yield Mistake(slice.file, line, message)
                elif (owner := owners.setdefault((key, name), slice.name)) != slice.name:
                    message = f"{key}: the {shown} is that of {slices[owner].file} already; keep it in one, or in none to share it"
                    yield Mistake(slice.file, line, message)


def leave_out(slices: Mapping[str, Slice], chosen: Sequence[str]) -> LeftOut:
    """What is left out where these slices are chosen; nothing where none is. Raises WorkspaceInvalid for names of none."""
    if unknown := [name for name in chosen if name not in slices]:
        raise WorkspaceInvalid(
            [Mistake(SETTING, None, f"there is no slice {name!r}; {name_known(name, slices)}") for name in unknown]
        )
    others = [slice for name, slice in slices.items() if chosen and name not in chosen]
    return LeftOut(
        slices=frozenset(slice.name for slice in others),
        agents=frozenset(name for slice in others for name in slice.body.agents),
        collections=frozenset(name for slice in others for name in slice.body.content),
        evals=frozenset(name for slice in others for name in slice.body.evals),
    )


def _list(slice: Slice, key: str) -> Sequence[str]:
    names: Sequence[str] = getattr(slice.body, key)
    return names


def _explain(error: ValidationError) -> Iterator[tuple[str, str]]:
    keys = list(SliceBody.model_fields)
    wrong: dict[str, Any] = {str(one["loc"][0]): one for one in error.errors(include_url=False)}
    for key, one in wrong.items():
        match one["type"]:
            case "extra_forbidden":
                yield key, f"{key}: no key of a slice; {name_known(key, keys)}"
            case "missing":
                yield key, "title: is missing; write one, as in `title: To-do list`"
            case _ if key in _CLAIMS:
                yield key, f"{key}: must be a list of names, as in `{key}: [one, two]`"
            case _:
                yield key, f"{key}: must be text, as in `{key}: To-do list`"
