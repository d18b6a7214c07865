"""A Markdown file -> a page.

A page is front matter, title and text. Every mistake is named with its line. Content may be any project's
documentation: unknown front matter is left alone, a first heading serves as the title.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from agent_server.errors import Mistake
from agent_server.front_matter import Head, read_head
from agent_server.knowledge import markup

SUFFIXES = (".md", ".mdx", ".markdown")
_KEYS = ("title", "description", "tags", "urgent")
"""What is read of a page's front matter."""
# A page may begin with a thematic break. Only `key:` in the next line shows that front matter was meant.
_KEY = re.compile(r"[A-Za-z_][\w-]*\s*:")
_CLOSING = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE)
# Many READMEs have their title in HTML, to centre it.
_HTML_HEADING = re.compile(r"<h1\b[^>]*>(.*?)</h1>", re.IGNORECASE | re.DOTALL)
_LONGEST_HEADING = 300

_BLOCKS = MarkdownIt("commonmark").enable("table")
# Without the parsing of inline markup, which is most of the work and is not needed to find headings.
_BLOCKS.core.ruler.enableOnly(["normalize", "block"])


@dataclass(frozen=True)
class Heading:
    """A heading of the page itself. One in a quotation or a list is none. `start` is its character in the text."""

    start: int
    level: int
    text: str


@dataclass(frozen=True, kw_only=True)
class ContentPage:
    """A page as its file has it.

    `body` starts at character `offset` of `text`, the whole file. Characters are those of the file read as text: UTF-8
    without its byte order mark, every line ended by one newline.
    """

    path: str
    collection: str
    title: str
    description: str
    tags: tuple[str, ...] = ()
    urgent: tuple[str, ...]
    text: str
    offset: int
    sha: str

    @property
    def body(self) -> str:
        return self.text[self.offset :]


class _Mistake(Exception):
    """What is wrong and on which line."""

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line, self.message = line, message


def read_content(folder: Path) -> tuple[list[ContentPage], list[Mistake]]:
    """Every page under `folder` and every mistake.

    Pages are in the order of their paths; one with a mistake is left out.
    """
    pages: list[ContentPage] = []
    problems = find_links_out(folder)
    for path in content_files(folder):
        page = read_page(path, folder)
        if isinstance(page, ContentPage):
            pages.append(page)
        else:
            problems += page
    return pages, problems


def content_files(folder: Path) -> Sequence[Path]:
    """The content files under `folder` without the hidden ones and links to elsewhere."""
    return [path for path in _find_files(folder) if not _is_elsewhere(path, folder)]


def list_collections(folder: Path) -> list[str]:
    """The collections of the content: the folders in `folder` that have a page in them."""
    paths = (path.relative_to(folder).parts for path in content_files(folder))
    return sorted({parts[0] for parts in paths if len(parts) > 1})


def count_unread(folder: Path) -> Mapping[str, Sequence[str]]:
    """The files under `folder` that are no pages, by their type (".pdf", "" for none)."""
    unread: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix.lower() not in SUFFIXES and path.is_file() and not any(p.startswith(".") for p in name.parts):
            unread.setdefault(path.suffix.lower(), []).append(name.as_posix())
    return unread


def find_links_out(folder: Path) -> list[Mistake]:
    """The content files under `folder` that are symbolic links to elsewhere. They are not read."""
    return [
        Mistake(
            f"{folder.name}/{path.relative_to(folder).as_posix()}", None, "is a link out of this folder; copy the file"
        )
        for path in _find_files(folder)
        if _is_elsewhere(path, folder)
    ]


def _find_files(folder: Path) -> Sequence[Path]:
    files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in files if not any(p.startswith(".") for p in path.relative_to(folder).parts))


def _is_elsewhere(path: Path, folder: Path) -> bool:
    # Guests read what is read here, and `.env` is beside it.
    return not path.resolve().is_relative_to(folder.resolve())


def read_page(path: Path, folder: Path) -> ContentPage | list[Mistake]:
    """One page or all that is wrong with it."""
    name = path.relative_to(folder).as_posix()
    try:
        page = _page(name, path.read_bytes())
    except OSError as error:
        return [Mistake(f"{folder.name}/{name}", None, f"cannot be read: {error.strerror}")]
    except _Mistake as mistake:
        page = [mistake]
    if isinstance(page, ContentPage):
        return page
    return [Mistake(f"{folder.name}/{name}", mistake.line, mistake.message) for mistake in page]


def _page(name: str, content: bytes) -> ContentPage | list[_Mistake]:
    # Python reads a name that is not UTF-8 with such characters, and Postgres does not store them.
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise _Mistake(None, "has a name that is not UTF-8; rename the file")
    text = _decode(content)
    head, offset = _front_matter(text)
    front, body = head.values, text[offset:]
    # Other keys are their project's.
    wrong = [
        _Mistake(line, f"{key}: is on line {other} too; keep one") for key, line, other in head.repeated if key in _KEYS
    ]
    # A title such as 2026 or `yes` is no text in YAML; only what cannot be a title is refused.
    if isinstance(front.get("title"), list | dict):
        wrong.append(_Mistake(head.lines["title"], "title: must be text, as in `title: Bread`"))
    if not _is_phrases(front.get("urgent")):
        wrong.append(
            _Mistake(head.lines["urgent"], "urgent: must be a list of phrases, as in [unconscious, numb after a dive]")
        )
    title = _title(front) or first_heading(body)
    if not body.strip():
        wrong.append(_Mistake(text.count("\n") + 1, "has no text below its front matter"))
    elif not title:
        wrong.append(_Mistake(1, "has no title: write `title: ...` between two `---` lines at the top, or a # heading"))
    if wrong:
        return wrong
    return ContentPage(
        path=name,
        collection=name.partition("/")[0] if "/" in name else "",
        title=title or "",
        description=" ".join(str(front.get("description") or "").split()),
        tags=_tags(front.get("tags")),
        urgent=tuple(front.get("urgent") or ()),
        text=text,
        offset=offset,
        sha=hashlib.sha256(f"{name}\n{text}".encode()).hexdigest(),
    )


def _decode(content: bytes) -> str:
    try:
        # "-sig", because editors on Windows write a byte order mark.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _Mistake(line, f"is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    if "\x00" in text:
        raise _Mistake(text[: text.index("\x00")].count("\n") + 1, "holds a NUL byte; remove it")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _front_matter(text: str) -> tuple[Head, int]:
    """The front matter and where the body starts."""
    first, _, rest = text.partition("\n")
    if first.rstrip() != "---":
        return Head({}, {}), 0
    start = len(text) - len(rest)
    end = _CLOSING.search(text, start)
    if end is None:
        if _KEY.match(rest):
            raise _Mistake(1, "its front matter does not end: write a line `---` below it")
        return Head({}, {}), 0  # a thematic break
    head = read_head(text[start : end.start()], 2)
    if head.mistakes:
        raise _Mistake(*head.mistakes[0])
    return head, min(end.end() + 1, len(text))


def _title(front: Mapping[str, Any]) -> str:
    title = front.get("title")
    return "" if title is None else " ".join(str(title).split())[:_LONGEST_HEADING]


def _tags(tags: Any) -> tuple[str, ...]:
    """Tags in whatever form a project writes them. They are a list, or words between commas."""
    listed = tags.split(",") if isinstance(tags, str) else tags if isinstance(tags, list) else ()
    return tuple(str(tag).strip() for tag in listed if isinstance(tag, str | int | float) and str(tag).strip())


def _is_phrases(urgent: Any) -> bool:
    return urgent is None or (
        isinstance(urgent, list) and all(isinstance(phrase, str) and phrase.strip() for phrase in urgent)
    )


def first_heading(body: str) -> str | None:
    """The text of the first heading of level 1. Without one it is that of the first heading."""
    found = [heading for heading in headings(body) if heading.text]
    top = next((heading.text for heading in found if heading.level == 1), None)
    html = _HTML_HEADING.search(body)
    return top or (html and markup.heading(html[1])) or next((heading.text for heading in found), None)


def headings(body: str) -> list[Heading]:
    """The headings that Markdown itself sees in their order."""
    starts = [0]
    for line in body.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    tokens = _BLOCKS.parse(body)
    return [
        # Cut before the markup is removed: a "heading" of a megabyte must not keep the patterns busy.
        Heading(starts[token.map[0]], int(token.tag[1]), markup.heading(inline.content[:2000])[:_LONGEST_HEADING])
        for token, inline in pairwise(tokens)
        # Level 0: a heading in a quotation or in a list is no section of the page.
        if token.type == "heading_open" and token.level == 0 and token.map is not None
    ]
