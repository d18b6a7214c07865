"""evals/*.yaml -> cases, and every mistake in them with file and line."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agent_server.errors import InvalidInput, Mistake, WorkspaceInvalid, name_known, quote_value
from agent_server.evals.format import CallerOfCase, CaseBody, Expected, ExpectedCall, FileBody, Metadata, Stub
from agent_server.evals.yaml_text import dump_yaml
from agent_server.folders import write_file
from agent_server.slices import LeftOut
from agent_server.workspace import Workspace

FOLDER = "evals"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_EXAMPLES = {
    "name": "`name: A note is kept`",
    "inputs": "`inputs: Remind me to buy fins`, or a list of messages for a conversation",
    "cases": "`cases:` and below it `- name: A note is kept`",
    "tool": "`tool: add_note`",
    "caller": "`caller: guest`, or `caller: {kind: user, scopes: [notes:read]}`",
    "expect": "`expect: {agent: assistant}`",
    "calls": "`calls: [{tool: add_note, arguments: {text: Buy fins}}]`",
    "stubs": "`stubs: [{tool: add_note, returns: {id: 1}}]`",
    "profile": "`profile: {name: Ann}`",
}

_PARTS: Mapping[str, Any] = {
    "cases": CaseBody,
    "metadata": Metadata,
    "expect": Expected,
    "calls": ExpectedCall,
    "stubs": Stub,
    "caller": CallerOfCase,
}
"""What stands under a key."""


@dataclass(frozen=True)
class Case:
    """A case, where it stands. `evaluators` are those of pydantic-evals, the file's among them."""

    file: str
    line: int
    body: CaseBody
    evaluators: Sequence[Any] = ()

    @property
    def name(self) -> str:
        return self.body.name

    @property
    def id(self) -> str:
        """`evals/x.yaml::case name`."""
        return f"{self.file}::{self.name}"

    @property
    def messages(self) -> Sequence[str]:
        return (self.body.inputs,) if isinstance(self.body.inputs, str) else self.body.inputs

    @property
    def metadata(self) -> Metadata:
        return self.body.metadata

    @property
    def expected(self) -> Sequence[Expected]:
        """What is expected of the answer to each message."""
        expect = self.metadata.expect
        if isinstance(expect, Expected):
            return [*[Expected()] * (len(self.messages) - 1), expect]
        return [one or Expected() for one in expect]


def list_files(root: Path, without: Collection[str] = ()) -> Sequence[Path]:
    """The files of cases of a workspace, save those whose names `without` has."""
    files = ((root / FOLDER).glob(f"*{suffix}") for suffix in (".yaml", ".yml"))
    return sorted(path for each in files for path in each if path.stem not in without)


def load_cases(files: Iterable[Path], workspace: Workspace) -> Sequence[Case]:
    """The cases of these files. Raises WorkspaceInvalid with every mistake in them."""
    cases: list[Case] = []
    mistakes: list[Mistake] = []
    for file in files:
        found, wrong = read_cases(file, workspace)
        cases += found
        mistakes += wrong
    if mistakes:
        raise WorkspaceInvalid(mistakes)
    return cases


def read_cases(path: Path, workspace: Workspace) -> tuple[Sequence[Case], Sequence[Mistake]]:
    """The cases of a file, or its mistakes. Those that name something of a slice that is left out are left out, too."""
    path = path.resolve()
    file = path.relative_to(workspace.root).as_posix() if path.is_relative_to(workspace.root) else str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return [], [Mistake(file, None, "there is no such file")]
    except UnicodeDecodeError:
        return [], [Mistake(file, None, "is not UTF-8 text; save it as UTF-8")]
    try:
        loader = _LOADER(text)
        node = loader.get_single_node()
        values = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        return [], [Mistake(file, line, f"is not YAML: {error.problem or error.context}; look at how it is indented")]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return [], [Mistake(file, None, f"is not YAML: {str(error).splitlines()[0]}")]
    if not isinstance(values, dict):
        return [], [Mistake(file, 1, f"is no file of cases; write {_EXAMPLES['cases']}")]
    try:
        body = FileBody.model_validate(values)
    except ValidationError as error:
        return [], sorted(
            {Mistake(file, _line_of(node, e["loc"]), _explain(e)) for e in _clearest(error)},
            key=lambda mistake: (mistake.line or 0, mistake.message),
        )
    lines = [_line_of(node, ("cases", n)) for n in range(len(body.cases))]
    there = [not _is_left_out(case, workspace.left_out) for case in body.cases]
    wrong = [
        Mistake(file, _line_of(node, place) or 1, message)
        for place, message in _find_mistakes(body, workspace)
        if there[place[1]]
    ]
    cases = [
        Case(file, line or 1, case, (*body.evaluators, *case.evaluators))
        for case, line, is_there in zip(body.cases, lines, there, strict=True)
        if is_there
    ]
    return ([], wrong) if wrong else (cases, [])


def _is_left_out(case: CaseBody, left_out: LeftOut) -> bool:
    """Whether a case names an agent, a tool or a page of a slice that is left out."""
    if not left_out.slices:
        return False
    meta = case.metadata
    expected = [meta.expect] if isinstance(meta.expect, Expected) else [one for one in meta.expect if one is not None]
    agents = {meta.agent, *(one.agent for one in expected)}
    tools = {call.tool for one in expected for call in one.calls or ()} | {stub.tool for stub in meta.stubs}
    pages = [page for one in expected for page in one.citations or ()]
    return bool(agents & left_out.agents or tools & left_out.tools or any(map(left_out.has_document, pages)))


def append_case(file: Path, case: Mapping[str, Any], *, comment: str = "") -> None:
    """Add a case to the end of a file, which comes into being with its first. What stands there stays as it is.

    Raises InvalidInput where the case is none, the file is none of cases, or has a case of that name.
    """
    try:
        body = CaseBody.model_validate(case)
    except ValidationError as error:
        raise InvalidInput("; ".join(_explain(e) for e in _clearest(error))) from error
    text = file.read_text(encoding="utf-8") if file.exists() else f"name: {file.stem}\ncases:\n"
    try:
        before = yaml.load(text, _LOADER)  # noqa: S506  # a safe loader
    except yaml.YAMLError as error:
        raise InvalidInput(f"{file.name} is not YAML; correct it first") from error
    cases = before.get("cases") or [] if isinstance(before, dict) else None
    if not isinstance(cases, list):
        raise InvalidInput(f"{file.name} has no list `cases:`; correct it first")
    if any(isinstance(one, dict) and one.get("name") == body.name for one in cases):
        raise InvalidInput(f"{file.name} has a case {quote_value(body.name)} already; give this one another name")
    dumped = dump_yaml([dict(case)])
    note = "".join(f"# {line}\n" for line in comment.splitlines())
    new = f"{text.rstrip(chr(10))}\n{note}{dumped}"
    # A file whose `cases` are indented, or not its last key, would not read what is put at its end as a case.
    if _count(new) != len(cases) + 1:
        indent = re.search(r"^cases:[^\n]*\n(?:\s*#[^\n]*\n|\s*\n)*( +)- ", text, re.MULTILINE)
        more = indent[1] if indent else "  "
        new = f"{text.rstrip(chr(10))}\n" + "".join(f"{more}{line}\n" for line in (note + dumped).splitlines())
        if _count(new) != len(cases) + 1:
            raise InvalidInput(f"{file.name}: `cases:` is not its last key; move it to the end of the file")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, new.encode())


def _count(text: str) -> int:
    try:
        values = yaml.load(text, _LOADER)  # noqa: S506  # a safe loader
        return len(values["cases"])
    except (yaml.YAMLError, TypeError, KeyError):
        return -1


def _clearest(error: ValidationError) -> Iterator[ErrorDetails]:
    """What is wrong, once for each value. Of a union pydantic says of every member why it is none."""
    found: dict[tuple[Any, ...], ErrorDetails] = {}
    for e in error.errors():
        place = tuple(part for part in e["loc"] if not _is_member(part))
        # what lies deeper says more: the value was meant to be that member
        if not any(other[: len(place)] == place for other in found):
            found[place] = ErrorDetails({**e, "loc": place})
    for place, e in found.items():
        if not any(other != place and other[: len(place)] == place for other in found):
            yield e


def _is_member(part: Any) -> bool:
    return isinstance(part, str) and (part in ("str", "Expected") or "[" in part)


def _explain(error: ErrorDetails) -> str:
    place = [part for part in error["loc"] if isinstance(part, str)]
    key = place[-1] if place else "cases"
    path = ".".join(str(part) for part in error["loc"] if isinstance(part, str)) or "cases"
    match error["type"]:
        case "extra_forbidden":
            return f"{path}: is no key here; {name_known(key, _keys_at(place[:-1]))}"
        case "missing":
            return f"{path}: is missing; write one, as in {_EXAMPLES.get(key, f'`{key}: ...`')}"
    message = error["msg"].removeprefix("Value error, ")
    example = f"; write {_EXAMPLES[key]}" if key in _EXAMPLES else ""
    return f"{path}: {message[0].lower()}{message[1:]}{example}"


def _keys_at(place: Sequence[str]) -> Iterable[str]:
    """The keys that may stand at a place of a file."""
    model: Any = FileBody
    for part in place:
        if part not in _PARTS:
            return []
        model = _PARTS[part]
    return [info.alias or name for name, info in model.model_fields.items()]


def _line_of(node: yaml.Node | None, place: Sequence[Any]) -> int | None:
    """The line of what stands at a place, or of the nearest that there is above it."""
    line = 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if found is None:
                continue
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _find_mistakes(body: FileBody, workspace: Workspace) -> Iterator[tuple[Sequence[Any], str]]:
    """What is wrong with cases whose form is right: where, and what."""
    names: dict[str, int] = {}
    for n, case in enumerate(body.cases):
        at: tuple[Any, ...] = ("cases", n)
        if names.setdefault(case.name, n) != n:
            yield (*at, "name"), f"there is a case {quote_value(case.name)} above; name each what it shows"
        if "::" in case.name or "\n" in case.name:
            yield (*at, "name"), "a name is one line without `::`"
        meta = case.metadata
        expect = meta.expect
        if not isinstance(expect, Expected):
            messages = 1 if isinstance(case.inputs, str) else len(case.inputs)
            if len(expect) != messages:
                yield (
                    (*at, "metadata", "expect"),
                    f"has {len(expect)} entries for {messages} messages; write one for each, `null` for one of which nothing is expected",
                )
        expected = [expect] if isinstance(expect, Expected) else [one for one in expect if one is not None]
        if all(one.is_empty for one in expected) and not case.evaluators and not body.evaluators:
            yield at, f"expects nothing; write {_EXAMPLES['expect']} under `metadata:`"
        if meta.agent is not None and meta.agent not in workspace.agents:
            yield (
                (*at, "metadata", "agent"),
                f"there is no agent {meta.agent!r}; {name_known(meta.agent, workspace.agents)}",
            )
        for k, stub in enumerate(meta.stubs):
            where = (*at, "metadata", "stubs", k)
            if stub.tool not in workspace.tools:
                yield (*where, "tool"), _no_tool(stub.tool, workspace)
            if stub.error is not None and stub.returns is not None:
                yield (*where, "error"), "a stub returns something or fails; keep one of the two"
            if stub.error is not None and not re.match(r"[a-z_]+: .", stub.error):
                yield (*where, "error"), "write `code: message`, as in `not_found: There is no such task`"
        for k, one in enumerate(expected):
            where = (*at, "metadata", "expect") if isinstance(expect, Expected) else (*at, "metadata", "expect", k)
            yield from _find_wrong_names(one, where, workspace)


def _find_wrong_names(
    expected: Expected, at: tuple[Any, ...], workspace: Workspace
) -> Iterator[tuple[Sequence[Any], str]]:
    if expected.agent is not None and expected.agent not in workspace.agents:
        yield (*at, "agent"), f"there is no agent {expected.agent!r}; {name_known(expected.agent, workspace.agents)}"
    if expected.agent is not None and expected.out_of_scope:
        yield (*at, "out_of_scope"), "an agent is expected above; keep one of the two"
    for k, call in enumerate(expected.calls or ()):
        if call.tool not in workspace.tools:
            yield (*at, "calls", k, "tool"), _no_tool(call.tool, workspace)
    if expected.calls and expected.no_tool:
        yield (*at, "no_tool"), "calls are expected above; keep one of the two"
    for document in expected.citations or ():
        if not (workspace.content / document).is_file():
            yield (*at, "citations"), f"there is no page content/{document}; write its path under content/"


def _no_tool(name: str, workspace: Workspace) -> str:
    return f"there is no tool {name!r}; {name_known(name, workspace.tools)}"
