"""The folder prompts/ -> agents with their candidates, and every mistake in it with file and line."""

import hashlib
import json
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent_server.errors import Mistake, name_known
from agent_server.front_matter import Head, read_head
from agent_server.prompts.agent import AgentPrompt
from agent_server.prompts.front import ROUTING, FileName, FrontMatter, validate
from agent_server.prompts.output import Output, read_output
from agent_server.prompts.parts import PartsReader, find_link_out, fingerprint, read_text
from agent_server.prompts.templates import TEMPLATE_FAILS, VARIABLES, Known, compile_template, write_plainly


@dataclass(frozen=True)
class _File:
    """A file as read. Of a head that is not YAML nothing is known: there is no `front` then."""

    path: Path
    file: str
    name: FileName
    text: str
    body: str
    first_line: int
    head: Head
    front: Mapping[str, Any] | None


def load_prompts(
    folder: Path, root: Path, *, without: Set[str] = frozenset()
) -> tuple[dict[str, AgentPrompt], list[Mistake]]:
    """Every agent in `folder` with its candidates, and every mistake, with files relative to `root`. The files of those
    that are named by `without` are not read."""
    problems: list[Mistake] = []
    files: list[_File] = []
    for path in list_files(folder):
        if FileName.of(path.stem).agent in without:
            continue
        file = path.relative_to(root).as_posix()
        if problem := find_link_out(path, folder):
            problems.append(Mistake(file, None, problem))
            continue
        read, found = _read(path, file, FileName.of(path.stem), named=True)
        problems += found
        if read is not None:
            files.append(read)
    prompts: dict[str, AgentPrompt] = {}
    for read in files:
        if read.name.candidate is None and read.front is not None:
            prompts[read.name.agent], found = _make(read, folder, root)
            problems += found
    return _add_candidates(prompts, files, folder, root, problems), problems


def list_files(folder: Path) -> list[Path]:
    """The files of agents and candidates in a folder."""
    return [path for path in sorted(folder.glob("*.md")) if path.stem.lower() != "readme"]


def list_agents(folder: Path) -> set[str]:
    """The names of the agents of a folder, also of those whose files have mistakes."""
    return {path.stem for path in list_files(folder) if FileName.of(path.stem).candidate is None}


def read_prompt(
    path: Path, folder: Path, root: Path, known: Mapping[str, AgentPrompt]
) -> tuple[AgentPrompt | None, list[Mistake]]:
    """The agent of one file, which may be anywhere and have any name, and every mistake in it.

    It includes parts from `folder`. One with a `share` is a candidate of the agent of `known` that it names.
    """
    read, problems = _read(path, str(path), FileName(path.stem.partition(".")[0]), named=False)
    if read is None or read.front is None:
        return None, problems
    base = known.get(read.front["name"]) if "share" in read.front else None
    prompt, found = _make(read, folder, root, base)
    return prompt, [*problems, *found]


def _read(path: Path, file: str, name: FileName, *, named: bool) -> tuple[_File | None, list[Mistake]]:
    """A file with what its front matter says, and every mistake in that."""
    text, mistake = read_text(path, file)
    if mistake is not None:
        return None, [mistake]
    if name.candidate == "":
        return None, [Mistake(file, None, f"ends with a point; name it {name.agent}.md, or {name.agent}.v2.md")]
    head, body, first_line = _split(text)
    if head is None:
        return None, [Mistake(file, 1, _explain_no_head(text))]
    found = read_head(head, 2)
    problems = [Mistake(file, line, message) for line, message in found.mistakes]
    problems += [Mistake(file, line, f"{key}: is on line {other} too; keep one") for key, line, other in found.repeated]
    front: dict[str, Any] | None = None
    if not found.mistakes:
        # One that is read by itself is a candidate where it says what its share is.
        known_as = name if named or "share" not in found.values else FileName(name.agent, "")
        front, wrong = validate(found.values, known_as, named=named)
        problems += [Mistake(file, found.lines.get(key, 2), f"{key}: {message}") for key, message in wrong]
    return _File(path, file, name, text, body, first_line, found, front), problems


def _add_candidates(
    prompts: dict[str, AgentPrompt], files: Sequence[_File], folder: Path, root: Path, problems: list[Mistake]
) -> dict[str, AgentPrompt]:
    """The agents with their candidates. What is wrong with those is added to `problems`."""
    candidates: dict[str, list[AgentPrompt]] = {}
    there = list_agents(folder)
    for read in files:
        if read.name.candidate is None or read.front is None:
            continue
        name = read.name.agent
        if name not in there:
            message = f"is a candidate of {name!r}, and there is no such agent; {name_known(name, there)}"
            problems.append(Mistake(read.file, None, message))
            continue
        prompt, found = _make(read, folder, root, prompts.get(name))
        problems += found
        candidates.setdefault(name, []).append(prompt)
    for name, several in candidates.items():
        whole = sum(candidate.share or 0 for candidate in several)
        if whole > 100:
            last = several[-1]
            shares = ", ".join(f"{each.file} {each.share:g}" for each in several if each.share)
            message = f"share: the candidates of {name} take {whole:g} % together, at most 100 is right ({shares})"
            problems.append(Mistake(last.file, last.lines.get("share"), message))
        if name in prompts:
            prompts[name] = replace(prompts[name], candidates=tuple(several))
    return prompts


def _make(read: _File, folder: Path, root: Path, base: AgentPrompt | None = None) -> tuple[AgentPrompt, list[Mistake]]:
    """The agent of a file, and what is wrong with its body and its output. A candidate has what it leaves out from
    its `base`."""
    said = dict(read.front or {})
    problems: list[Mistake] = []
    shape: Any = said.pop("output", None)
    output, problem = read_output(shape, folder, root) if shape is not None else (None, None)
    if problem is not None:
        line = read.head.lines.get("output")
        problems.append(problem if isinstance(problem, Mistake) else Mistake(read.file, line, f"output: {problem}"))
    # What cannot be read counts as absent, for the names in the rest.
    plain = FrontMatter.model_construct(name=read.name.agent, description="")
    values = {key: getattr(plain, key) for key in FrontMatter.model_fields} | said | {"output": output}
    body, body_file, first_line = read.body, read.file, read.first_line
    if read.name.candidate is not None:
        values["version"] = read.name.candidate
    if base is not None:
        kept = {key: getattr(base, key) for key in values if key in ROUTING or key not in (read.front or {})}
        values |= {key: value for key, value in kept.items() if key not in ("version", "share")}
        body = body if body.strip() else base.body
    own = body is read.body
    variables = [*VARIABLES, *values["inputs"]]
    reader = PartsReader(folder, root)
    if own:
        reader.read(body, body_file, first_line, variables)
    prompt = AgentPrompt(
        **values,
        body=body,
        sha=_hash(read.text, reader.parts, values["output"], base),
        file=read.file,
        lines=read.head.lines,
        parts=reader.parts if own or base is None else base.parts,
    )
    problems += reader.mistakes or (_find_template_mistakes(prompt, first_line) if own else [])
    return prompt, problems


def _hash(text: str, parts: Mapping[str, str], output: Output | None, base: AgentPrompt | None) -> str:
    """What identifies all that a model is told by a file."""
    whole = text + fingerprint(parts)
    if output is not None:
        whole += f"\0{json.dumps(output.schema, sort_keys=True, default=str)}"
    if base is not None:
        whole += f"\0{base.sha}"
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def _split(text: str) -> tuple[str | None, str, int]:
    """The front matter, the body, and the body's first line number."""
    lines = text.splitlines(keepends=True)
    if not lines or lines[0].rstrip() != "---":
        return None, text, 1
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() == "---":
            return "".join(lines[1:number]), "".join(lines[number + 1 :]), number + 2
    return None, text, 1


def _explain_no_head(text: str) -> str:
    first = text.split("\n", 1)[0].strip()
    if first == "---":
        return "its front matter does not end: write a line `---` below it"
    if re.match(r"[A-Za-z_]+:", first):
        return "its front matter does not begin: write a line `---` above it"
    return (
        "starts with front matter: `---`, `name: ...`, `description: ...`, `---`, and the instructions go below, as in "
        "`You answer questions about bread.`"
    )


def _find_template_mistakes(prompt: AgentPrompt, first_line: int) -> Iterator[Mistake]:
    """What fails where the body is rendered for somebody of whom nothing is known."""
    if not prompt.body.strip():
        yield Mistake(prompt.file, first_line, "has no body: the instructions go below the front matter")
        return
    samples = {name: declared.sample for name, declared in prompt.inputs.items()}
    try:
        # With an empty profile, as for a new guest: what fails there would fail in the first conversation.
        template = compile_template(prompt.body, tuple(prompt.parts.items()))
        template.render(samples, profile=Known(), today=write_plainly(VARIABLES["today"]))
    except TEMPLATE_FAILS as error:
        # The last line of a template's own: the error may come from deep inside Jinja.
        places = [(frame.filename, frame.lineno or 1) for frame in traceback.extract_tb(error.__traceback__)]
        own = [(name, line) for name, line in places if name == "<template>" or name in prompt.parts]
        name, line = own[-1] if own else ("<template>", 1)
        allowed = ", ".join([*VARIABLES, *prompt.inputs])
        message = f"template: {error} (a body may use {allowed})"
        if name in prompt.parts:
            folder = Path(prompt.file).parent
            yield Mistake((folder / name).as_posix(), line, message)
        else:
            yield Mistake(prompt.file, first_line + line - 1, message)
