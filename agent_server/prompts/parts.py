"""The files that bodies include: those in folders of prompts/, and no others.

    {% include "parts/tone.md" %}           stands there as it is rendered, with all variables
    {% import "parts/tables.md" as t %}     macros; it sees no variables unless with `with context`

What is included is known before anything is rendered: the hash of a prompt covers it, and a circle is a mistake.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables

from agent_server.errors import Mistake, find_near
from agent_server.prompts.templates import TEMPLATES

_NAMING = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
SUFFIX = ".md"


def read_text(path: Path, file: str) -> tuple[str, Mistake | None]:
    """The text of a file of prompts/, whatever system it was written on."""
    data = path.read_bytes()
    try:
        return data.decode().replace("\r\n", "\n").removeprefix("\ufeff"), None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return "", Mistake(file, line, f"is not UTF-8 text (byte {error.start}); save it as UTF-8")


def find_link_out(path: Path, folder: Path) -> str | None:
    """What is wrong with a file that is a link to one elsewhere."""
    if path.resolve().is_relative_to(folder.resolve()):
        return None
    return "is a link out of this folder; copy the file"


@dataclass(frozen=True)
class _Source:
    """A template with the place that its lines are counted from."""

    text: str
    file: str
    first_line: int = 1

    def at(self, line: int) -> int:
        return self.first_line + line - 1


@dataclass
class PartsReader:
    """Reads what one body includes, from `folder`. Files are named relative to `root`."""

    folder: Path
    root: Path
    parts: dict[str, str] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    _walked: set[tuple[str, frozenset[str]]] = field(default_factory=set)

    def read(self, body: str, file: str, first_line: int, variables: Collection[str]) -> None:
        """Find `parts`, each by its name, and all `mistakes` of the body and of what it includes."""
        self._walk(_Source(body, file, first_line), [], variables, frozenset(variables))

    def _walk(
        self,
        source: _Source,
        path: Sequence[tuple[str, _Source, int]],
        variables: Collection[str],
        known: frozenset[str],
    ) -> None:
        try:
            tree = TEMPLATES.parse(source.text)
            undeclared = find_undeclared_variables(tree)
        except TemplateSyntaxError as error:
            self._add(source, error.lineno, str(error.message))
            return
        except RecursionError:
            self._add(source, 1, "is nested too deeply")
            return
        known |= {*TEMPLATES.globals, *_list_assigned(tree)}
        allowed = ", ".join(variables)
        for name in sorted(undeclared - known):
            self._add(
                source,
                _find_line(tree, name),
                f"{name!r} is undefined (a body may use {allowed}); declare it under `inputs:`"
                if variables
                else f"{name!r} is undefined: a file that is imported sees no variables; import it `with context`",
            )
        for node in tree.find_all(_NAMING):
            self._follow(node, source, path, variables, known)

    def _follow(
        self,
        node: nodes.Node,
        source: _Source,
        path: Sequence[tuple[str, _Source, int]],
        variables: Collection[str],
        known: frozenset[str],
    ) -> None:
        name = getattr(node, "template", None)
        if isinstance(node, nodes.Extends):
            self._add(
                source, node.lineno, "a body extends nothing; include the file, as in {% include 'parts/tone.md' %}"
            )
            return
        if not isinstance(name, nodes.Const) or not isinstance(name.value, str):
            self._add(source, node.lineno, "name one file as it is, as in {% include 'parts/tone.md' %}")
            return
        if name.value in (names := [each for each, _, _ in path]):
            self._add_circle([*path[names.index(name.value) :], (name.value, source, node.lineno)])
            return
        problem = self._find_problem(name.value)
        if problem is not None:
            # `ignore missing` is for files that are not there, and not for those of others.
            if not (getattr(node, "ignore_missing", False) and problem.startswith("there is no")):
                self._add(source, node.lineno, f"{name.value!r}: {problem}")
            return
        file = (self.folder / name.value).relative_to(self.root).as_posix()
        text, mistake = read_text(self.folder / name.value, file)
        if mistake is not None:
            self._note(mistake)
            return
        self.parts[name.value] = text
        if not getattr(node, "with_context", True):
            variables, known = (), frozenset()
        # Files that include each other in many ways are walked once for what they see.
        if (key := (name.value, known)) not in self._walked:
            step = (name.value, source, node.lineno)
            self._walk(_Source(text, file), [*path, step], variables, known)
            self._walked.add(key)

    def _find_problem(self, name: str) -> str | None:
        """What keeps a file from being included."""
        pure = Path(name)
        if "\\" in name or pure.is_absolute() or ".." in pure.parts or name != pure.as_posix():
            return "name the file by its path below prompts/, as in parts/tone.md"
        if len(pure.parts) < 2:
            return "a file in prompts/ itself is an agent; put what agents share into a folder, as in parts/tone.md"
        path = self.folder / name
        there = sorted(each.relative_to(self.folder).as_posix() for each in self.folder.glob(f"*/**/*{SUFFIX}"))
        if name not in there or not path.is_file():
            near = find_near(name, there)
            meant = f"did you mean {near!r}?" if near else "write it, as in parts/tone.md"
            return f"there is no such file below prompts/; {meant}"
        return find_link_out(path, self.folder)

    def _add_circle(self, steps: Sequence[tuple[str, _Source, int]]) -> None:
        # From the second on: the first stands in the file that only leads into the circle.
        names = " > ".join(name for name, _, _ in steps)
        for name, source, line in steps[1:]:
            self._add(source, line, f"{name!r} comes back to itself ({names}); take one of these out")

    def _add(self, source: _Source, line: int, message: str) -> None:
        self._note(Mistake(source.file, source.at(line), f"template: {message}"))

    def _note(self, mistake: Mistake) -> None:
        # A file that is included twice has its mistakes once.
        if mistake not in self.mistakes:
            self.mistakes.append(mistake)


def _list_assigned(tree: nodes.Template) -> Iterator[str]:
    """The names that a template gives to values, in any place: what it includes sees them."""
    yield "loop"
    for node in tree.find_all((nodes.Name, nodes.Macro, nodes.Import, nodes.FromImport)):
        match node:
            case nodes.Name(name=name) if node.ctx != "load":
                yield name
            case nodes.Macro(name=name) | nodes.Import(target=name):
                yield name
            case nodes.FromImport(names=names):
                yield from (name if isinstance(name, str) else name[1] for name in names)


def _find_line(tree: nodes.Template, name: str) -> int:
    lines = [node.lineno for node in tree.find_all(nodes.Name) if node.name == name and node.ctx == "load"]
    return min(lines, default=1)


def fingerprint(parts: Mapping[str, str]) -> str:
    """What a hash has to cover of the files that are included."""
    return "".join(f"\0{name}\0{text}" for name, text in sorted(parts.items()))
