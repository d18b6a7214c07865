"""The code blocks of the documentation, and a shell that runs them as they stand."""

import re
import shlex
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests import zygote
from tests.commands import PATIENCE, environment
from tests.conftest import ROOT

DOCS = ROOT / "docs"
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?(?:^`(?P<file>[^`\n]+)`\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of a page; `file` is the name above it, `reason` why the tests do not run it."""

    language: str
    text: str
    file: str | None
    reason: str | None


def read_blocks(page: str) -> list[Block]:
    """The blocks of a page of docs/, in order."""
    found = _BLOCK.finditer((DOCS / page).read_text())
    return [Block(m["language"], m["text"], m["file"], m["reason"]) for m in found]


@dataclass
class Shell:
    """A bash whose folder and variables stay from one block to the next.

    `programs` are folders that come first in its PATH. `words` are replaced in what it runs: places of the page's
    machine by those of the test's.
    """

    folder: Path
    programs: Iterable[Path]
    words: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._state = self.folder / ".shell"
        path = ":".join(map(str, self.programs))
        self._state.write_text(f"cd '{self.folder}'\nexport PATH={path}:$PATH\n")

    def replace(self, text: str) -> str:
        """The text with the places of the test's machine."""
        for word, other in self.words.items():
            text = text.replace(word, other)
        return text

    def try_block(self, text: str) -> tuple[int, str]:
        """Run a block; its exit code and what it printed."""
        state = f'trap \'code=$?; (echo "cd \\"$PWD\\""; export -p) > {self._state}; exit $code\' EXIT'
        script = f". {self._state}\n{state}\n{self.replace(text)}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=environment({}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout

    def run(self, text: str) -> str:
        """Run a block that has to work; what it printed."""
        code, out = self.try_block(text)
        assert code == 0, f"{text}\n{out}"
        return out

    def variables(self) -> dict[str, str]:
        """Its exported variables."""
        return dict(line.partition("=")[::2] for line in self.run("env -0").split("\0") if line)


def write_programs(folder: Path) -> Path:
    """A folder with the programs that the documentation runs, which start in milliseconds."""
    folder.mkdir()
    for name, module in (("agent-server", "agent_server"), ("pytest", "pytest")):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {shlex.join(zygote.command(module))} "$@"\n')
        program.chmod(0o755)
    return folder
