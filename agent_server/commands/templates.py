"""agent-server init --template: a slice of the reference workspace as a workspace of its own.

A template is a slice that is there: in a checkout those of the repository itself, in an installed package those that its
build has put into `agent_server/templates/`.
"""

import shlex
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from string import Template

from agent_server.errors import InvalidInput, name_known
from agent_server.prompts import AgentPrompt, load_prompts
from agent_server.slices import Slice, read_slices
from agent_server.workspace import TRIAGE

README = "template_readme.md"
SHARED_TESTS = ("__init__.py", "conftest.py")
"""What the tests of all slices are written with."""
_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")


def find_template(package: Path, name: str) -> Slice:
    """The slice of this name. Raises InvalidInput that lists those there are."""
    slices, _ = read_slices(_find_source(package))
    if name not in slices:
        raise InvalidInput(f"--template: there is no template {name!r}; {name_known(name, slices)}")
    return slices[name]


def copy_template(package: Path, slice: Slice, folder: Path) -> None:
    """Put all that a slice has into a folder that holds the files of a workspace without any of its own."""
    source, body = _find_source(package), slice.body
    _copy(source / "tools" / slice.name, folder / "tools" / slice.name)
    for name in body.content:
        _copy(source / "content" / name, folder / "content" / name)
    for path in (path for path in (source / "evals").glob("*.y*ml") if path.stem in body.evals):
        _copy(path, folder / "evals" / path.name)
    agents = [*body.agents, TRIAGE] if len(body.agents) > 1 else body.agents
    for path in _list_prompts(source / "prompts", agents):
        _copy(path, folder / path.relative_to(source))
    tests = source / "tests" / "tools"
    if (tests / slice.name).is_dir():
        for name in (*SHARED_TESTS, slice.name):
            _copy(tests / name, folder / "tests" / "tools" / name)
        (folder / "tests" / "__init__.py").touch()
    (folder / "README.md").write_text(_write_readme(package, slice, folder), encoding="utf-8")


def _find_source(package: Path) -> Path:
    shipped = package / "templates"
    return shipped if shipped.is_dir() else package.parent


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=_IGNORED, dirs_exist_ok=True)
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _list_prompts(prompts: Path, agents: Collection[str]) -> Sequence[Path]:
    """The files of these agents and of their candidates, with the files that they name."""
    found = [path for path in sorted(prompts.glob("*.md")) if path.name.partition(".")[0] in agents]
    own = {
        path for path in prompts.rglob("*") if path.is_file() and not (path.parent == prompts and path.suffix == ".md")
    }
    texts = list(found)
    while texts:
        text = texts.pop().read_text(encoding="utf-8")
        named = sorted(path for path in own if path.relative_to(prompts).as_posix() in text)
        own.difference_update(named)
        found += named
        texts += named
    return found


def _write_readme(package: Path, slice: Slice, folder: Path) -> str:
    agents = [agent for agent in load_prompts(folder / "prompts", folder)[0].values() if agent.name != TRIAGE]
    example = next((agent.examples[0] for agent in agents if agent.examples), "Hello")
    rows = "\n".join(f"| {' | '.join(row)} |" for row in _list_rows(slice, agents))
    text = (package / README).read_text(encoding="utf-8")
    values = {"title": slice.body.title, "description": slice.body.description, "slice": slice.name, "rows": rows}
    return Template(text).substitute(values, example=shlex.quote(example))


def _list_rows(slice: Slice, agents: Sequence[AgentPrompt]) -> Iterator[tuple[str, str, str]]:
    body = slice.body
    yield "`tools/`", "what the agents can do: typed Python functions", f"`{slice.name}/`"
    named = ", ".join(f"`{agent.name}.md`" for agent in agents)
    triage = "; `triage.md` passes a message on where it is not clear whose it is" if len(agents) > 1 else ""
    yield "`prompts/`", "the agents, one Markdown file each", named + triage
    if body.content:
        yield "`content/`", "what they answer from", ", ".join(f"`{name}/`" for name in body.content)
    if body.evals:
        yield "`evals/`", "messages, and what is expected of the answers", ", ".join(f"`{n}.yaml`" for n in body.evals)
    yield "`tests/`", "tests in Python", f"`tools/{slice.name}/`"
