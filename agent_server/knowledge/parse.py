"""A Markdown file -> a page: front matter, title, text; and every mistake in it with its line.

Content may be any project's documentation: unknown front matter is kept aside, a first heading serves as the title.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent_server.errors import Problem

SUFFIXES = (".md", ".mdx", ".markdown")
_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_MARKUP = re.compile(r"\[([^\]]*)\]\([^)]*\)|\{[#.:][^}]*\}|[*_`]{1,3}")


@dataclass(frozen=True, kw_only=True)
class ContentPage:
    """A page as its file has it; `body` starts at character `offset` of `text`, the whole file."""

    path: str
    collection: str
    title: str
    description: str
    urgent: tuple[str, ...]
    text: str
    offset: int
    sha: str

    @property
    def body(self) -> str:
        return self.text[self.offset :]


def read_content(folder: Path) -> tuple[list[ContentPage], list[Problem]]:
    """Every page under `folder`, in the order of their paths, and every mistake; a page with one is left out."""
    pages: list[ContentPage] = []
    problems: list[Problem] = []
    for path in content_files(folder):
        page = read_page(path, folder)
        if isinstance(page, Problem):
            problems.append(page)
        else:
            pages.append(page)
    return pages, problems


def content_files(folder: Path) -> Sequence[Path]:
    """The content files under `folder`, hidden ones left out."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in files if not any(p.startswith(".") for p in path.relative_to(folder).parts))


def read_page(path: Path, folder: Path) -> ContentPage | Problem:
    """One page, or what is wrong with it."""
    name = path.relative_to(folder).as_posix()
    file = f"{folder.name}/{name}"
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return Problem(file, line, f"is not UTF-8 text (byte {error.start}); save it as UTF-8")
    if "\x00" in text:
        return Problem(file, text[: text.index("\x00")].count("\n") + 1, "holds a NUL byte; remove it")
    front, offset, problem = _front_matter(text, file)
    if problem is not None:
        return problem
    title = front.get("title")
    if title is not None and not isinstance(title, str):
        title = str(title)
    title = title or first_heading(text[offset:])
    if not title:
        return Problem(file, 1, "has no title: write `title: ...` between two `---` lines at the top, or a # heading")
    if not text[offset:].strip():
        return Problem(file, text.count("\n") + 1, "has no text below its front matter")
    urgent = front.get("urgent") or ()
    if isinstance(urgent, str) or not all(isinstance(phrase, str) for phrase in urgent):
        return Problem(file, 2, "urgent: must be a list of phrases, as in [unconscious, numb after a dive]")
    return ContentPage(
        path=name,
        collection=name.partition("/")[0] if "/" in name else "",
        title=title.strip(),
        description=str(front.get("description") or ""),
        urgent=tuple(urgent),
        text=text,
        offset=offset,
        sha=hashlib.sha256(f"{name}\n{text}".encode()).hexdigest(),
    )


def _front_matter(text: str, file: str) -> tuple[dict[str, Any], int, Problem | None]:
    """The front matter, where the body starts, and what is wrong with it."""
    if not text.startswith("---\n"):
        return {}, 0, None
    end = re.compile(r"^---[ \t]*$", re.MULTILINE).search(text, 4)
    if end is None:
        return {}, 0, None  # a thematic break, not front matter
    try:
        front = yaml.safe_load(text[4 : end.start()])
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 2 if mark else 1
        return {}, 0, Problem(file, line, f"front matter is not YAML: {getattr(error, 'problem', None) or error}")
    offset = min(end.end() + 1, len(text))
    if front is None:
        return {}, offset, None
    if not isinstance(front, dict):
        return {}, 0, Problem(file, 1, "front matter is not `key: value` lines")
    return front, offset, None


def first_heading(text: str) -> str | None:
    """The text of the first heading, of level 1 if there is one."""
    found = headings(text)
    top = next((heading for _, level, heading in found if level == 1), None)
    return top or next((heading for _, _, heading in found), None)


def headings(text: str) -> list[tuple[int, int, str]]:
    """(offset, level, text) of each ATX and setext heading outside code fences, in order."""
    found: list[tuple[int, int, str]] = []
    offset, fence, previous = 0, "", (0, "")
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if fence:
            if mark and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif mark:
            fence = mark[1]
        elif match := _HEADING.match(line.rstrip("\n")):
            found.append((offset, len(match[1]), plain(match[2])))
        elif re.fullmatch(r" {0,3}(=+|-{3,})[ \t]*\n?", line) and previous[1].strip() and previous[1][:1] not in "|->#":
            found.append((previous[0], 1 if line.strip()[0] == "=" else 2, plain(previous[1])))
        previous = (offset, "" if fence or mark else line)
        offset += len(line)
    return found


def plain(markup: str) -> str:
    """A heading without its inline markup."""
    return _MARKUP.sub(lambda match: match[1] or "", markup).strip()
