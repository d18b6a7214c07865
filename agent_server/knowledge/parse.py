"""A file -> a page.

A page is front matter, title and text. Every file is read or named with the reason. Content may be any project's
documentation: unknown front matter is left alone, a first heading or the file's name serves as the title.

    mistake   what its author has to correct: the page is not read
    remark    what was guessed or repaired, and files that are no pages: nothing has to be done
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent_server.errors import Mistake
from agent_server.knowledge import markup
from agent_server.knowledge.collection import (
    find_wrong_collections,
    find_wrong_language,
    language_of_collection,
    normalise_language,
)
from agent_server.knowledge.files import content_files, find_links_out
from agent_server.knowledge.readers import KINDS, is_document
from agent_server.knowledge.readers import SUFFIXES as SUFFIXES
from agent_server.knowledge.readers.base import NoContent, ReadText, Unreadable
from agent_server.knowledge.readers.child import Child
from agent_server.knowledge.readers.encoding import decode
from agent_server.knowledge.readers.front import split_front
from agent_server.knowledge.readers.html import convert_html
from agent_server.knowledge.readers.markdown import BLOCKS, find_unclosed
from agent_server.knowledge.readers.titles import LONGEST, clean_title, name_title
from agent_server.knowledge.words import language_of

MOST_BYTES = {".docx": 100_000_000, ".pdf": 100_000_000}
MOST_BYTES_OF_TEXT = 20_000_000
_VERSION = "2"
"""Of all readers. A change of what they make of a file has to change it: else files that are stored stay as they are."""
_LARGE = 100_000
"""Bytes from which on a file is read in a process of its own, where its reader looks at things more than once."""
_KEYS = ("title", "description", "tags", "urgent", "language")
"""What is read of a page's front matter."""
_REDIRECTS = ("redirect", "redirect_to", "redirect_url", "redirectTo", "redirect-to")
_MOVED = re.compile(
    r"\s*(?:#redirect\b|(?:#+\s*)?(?:this (?:page|document|article|file|section) (?:has|was|is)(?: been)? (?:moved|renamed)\b"
    r"|(?:page |permanently )?moved to\b)|<meta[^>]{0,200}http-equiv=[\"']?refresh)",
    re.IGNORECASE,
)
_MOST_WORDS_OF_A_STUB = 40
# Many READMEs have their title in HTML, to centre it.
_HTML_HEADING = re.compile(r"<h1\b[^<>]{0,500}>(.{1,2000}?)</h1>", re.IGNORECASE | re.DOTALL)
_HTML_BLOCK = re.compile(r"<(?:p|div|h[1-6]|ul|ol|table|section|article|main|body|html)\b", re.IGNORECASE)
_BEGINNING = 20_000


@dataclass(frozen=True)
class Heading:
    """A heading of the page itself. One in a quotation or a list is none. `start` is its character in the text."""

    start: int
    level: int
    text: str


@dataclass(frozen=True, kw_only=True)
class ContentPage:
    """A page as it was read.

    `body` starts at character `offset` of `text`. Of a file in Markdown `text` is the whole file, without its byte order
    mark and every line ended by one newline; of any other, and of one in HTML only, it is what the reader made of it.
    """

    path: str
    collection: str
    title: str
    description: str
    tags: tuple[str, ...] = ()
    urgent: tuple[str, ...]
    language: str
    text: str
    offset: int
    sha: str

    @property
    def body(self) -> str:
        return self.text[self.offset :]


@dataclass(frozen=True)
class FileReading:
    """What was made of one file. Without a page and without mistakes it is left out, and a remark says why."""

    page: ContentPage | None
    mistakes: tuple[Mistake, ...] = ()
    remarks: tuple[Mistake, ...] = ()


@dataclass(frozen=True)
class FolderReading:
    """What was made of all files of a folder, in the order of their paths."""

    pages: Sequence[ContentPage]
    mistakes: Sequence[Mistake]
    remarks: Sequence[Mistake]


@dataclass(frozen=True)
class Source:
    """A file before it is read. `sha` stands for all that its page is made of; `place` is its name in mistakes.

    `language` is that of its collection, "" where that says none.
    """

    path: str
    place: str
    content: bytes
    sha: str
    language: str = ""

    @property
    def suffix(self) -> str:
        return Path(self.path).suffix.lower()


def read_folder(folder: Path, *, documents: bool = True, without: Collection[str] = ()) -> FolderReading:
    """Every page under `folder`, every mistake and every remark, save those of the folders in it that `without` names.
    Without `documents`, what a package of the extra reads is left out: converting it takes seconds."""
    pages: list[ContentPage] = []
    mistakes, remarks = [*find_links_out(folder, without), *find_wrong_collections(folder, without)], list[Mistake]()
    with Child() as child:
        for path in content_files(folder, without):
            if not documents and is_document(path.suffix.lower()):
                continue
            reading = read_file(path, folder, child)
            pages += [reading.page] if reading.page else []
            mistakes += reading.mistakes
            remarks += reading.remarks
    return FolderReading(pages, mistakes, remarks)


def read_content(
    folder: Path, *, documents: bool = True, without: Collection[str] = ()
) -> tuple[list[ContentPage], list[Mistake]]:
    """Every page under `folder` and every mistake, as `read_folder` has them.

    Pages are in the order of their paths; one with a mistake is left out.
    """
    reading = read_folder(folder, documents=documents, without=without)
    return list(reading.pages), list(reading.mistakes)


def read_page(path: Path, folder: Path) -> ContentPage | list[Mistake]:
    """One page or all that is wrong with it. The list is empty for a file that is no page, such as one without text."""
    with Child() as child:
        reading = read_file(path, folder, child)
    return reading.page or list(reading.mistakes)


def read_file(path: Path, folder: Path, child: Child) -> FileReading:
    """One file of a folder."""
    source = open_source(path, folder)
    return source if isinstance(source, FileReading) else read_source(source, child)


def open_source(path: Path, folder: Path) -> Source | FileReading:
    """A file with its hash, or what is wrong with it."""
    name = path.relative_to(folder).as_posix()
    place = f"{folder.name}/{name}"
    try:
        # Python reads a name that is not UTF-8 with such characters, and Postgres does not store them.
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise Unreadable("has a name that is not UTF-8; rename the file")
        most = MOST_BYTES.get(path.suffix.lower(), MOST_BYTES_OF_TEXT)
        if path.stat().st_size > most:
            raise Unreadable(f"is larger than {most // 1_000_000} MB; split it")
        language = language_of_collection(folder, name.partition("/")[0]) if "/" in name else ""
        return make_source(name, place, path.read_bytes(), language)
    except OSError as error:
        return _refuse(place, [Unreadable(f"cannot be read: {error.strerror}")])
    except Unreadable as error:
        return _refuse(place, [error])


def make_source(path: str, place: str, content: bytes, language: str = "") -> Source:
    """What is to be read of these bytes."""
    text = content
    if Path(path).suffix.lower() not in MOST_BYTES:
        # How lines end makes no difference, and a byte order mark none.
        text = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    sha = hashlib.sha256(f"{_VERSION}\n{path}\n{language}\n".encode() + text).hexdigest()
    return Source(path, place, content, sha, language)


def read_source(source: Source, child: Child) -> FileReading:
    """The page that a file is."""
    try:
        page, remarks = _read_kind(source, child) if source.suffix in KINDS else _read_markdown(source, child)
    except Unreadable as error:
        return _refuse(source.place, [error])
    except NoContent as error:
        return FileReading(None, (), (Mistake(source.place, None, f"{error.message}; it is left out"),))
    if isinstance(page, list):
        return _refuse(source.place, page)
    return FileReading(page, (), tuple(Mistake(source.place, line, message) for line, message in remarks))


def _refuse(place: str, wrong: Sequence[Unreadable]) -> FileReading:
    return FileReading(None, tuple(Mistake(place, error.line, error.message) for error in wrong))


def _read_kind(source: Source, child: Child) -> tuple[ContentPage, Sequence[tuple[int | None, str]]]:
    """A page of a file that is not Markdown."""
    kind = KINDS[source.suffix]
    is_risky = kind.package is not None or len(source.content) > _LARGE
    read = child.read(source.suffix, source.content) if is_risky else kind.load()(source.content)
    text = read.text
    _require_text(text)
    title = clean_title(read.title) or first_heading(text) or name_title(source.path)
    return _make_page(source, title, text), read.remarks


def _read_markdown(
    source: Source, child: Child
) -> tuple[ContentPage | list[Unreadable], Sequence[tuple[int | None, str]]]:
    read = decode(source.content)
    head, offset, remarks = split_front(read.text)
    front, body = head.values, read.text[offset:]
    # Other keys are their project's.
    wrong = [
        Unreadable(f"{key}: is on line {other} too; keep one", line)
        for key, line, other in head.repeated
        if key in _KEYS
    ]
    wrong += _find_wrong(front, head.lines, read.text, body)
    if wrong:
        return wrong, ()
    _refuse_stub(front, body)
    title = ""
    if html := _read_html_only(body, child):
        body, title = html.text, clean_title(html.title)
    else:
        above = read.text.count("\n", 0, offset)
        remarks += [(above + line, message) for line, message in find_unclosed(body)]
    _require_text(body)
    title = _title(front) or title or first_heading(body) or name_title(source.path)
    page = _make_page(source, title, read.text[:offset] + body, offset, front)
    return page, [*read.remarks, *remarks]


def _find_wrong(front: Mapping[str, Any], lines: Mapping[str, int], text: str, body: str) -> Iterator[Unreadable]:
    # A title such as 2026 or `yes` is no text in YAML; only what cannot be a title is refused.
    if isinstance(front.get("title"), list | dict):
        yield Unreadable("title: must be text, as in `title: Bread`", lines.get("title", 1))
    if not _is_phrases(front.get("urgent")):
        message = "urgent: must be a list of phrases, as in [unconscious, numb after a dive]"
        yield Unreadable(message, lines.get("urgent", 1))
    if wrong := find_wrong_language(front.get("language")):
        yield Unreadable(wrong, lines.get("language", 1))
    # Any other page without text is left out. In an emergency this one would be missing.
    if front.get("urgent") and not body.strip():
        yield Unreadable("has no text below its front matter", text.count("\n") + 1)


def _refuse_stub(front: Mapping[str, Any], body: str) -> None:
    """Raise NoContent for a page that only leads to another one."""
    is_short = len(body) < _BEGINNING and len(body.split()) <= _MOST_WORDS_OF_A_STUB
    if is_short and not front.get("urgent") and (any(front.get(key) for key in _REDIRECTS) or _MOVED.match(body)):
        raise NoContent("only leads to another page")


def _require_text(body: str) -> None:
    """Raise NoContent for a page without a word."""
    lines = (line.strip() for line in body.splitlines())
    if any(line[:1] not in ("<", "") and any(map(str.isalnum, line)) for line in lines):
        return
    if not any(map(str.isalnum, markup.words(body))):
        raise NoContent("has no text")


def _read_html_only(body: str, child: Child) -> ReadText | None:
    """A page in Markdown that is HTML from its first line to its last."""
    if not body.lstrip().startswith("<") or not _HTML_BLOCK.search(body[:_BEGINNING]):
        return None
    if any(token.type != "html_block" for token in BLOCKS.parse(body)):
        return None
    return child.read(".html", body.encode()) if len(body) > _LARGE else convert_html(body)


def _make_page(
    source: Source, title: str, text: str, offset: int = 0, front: Mapping[str, Any] | None = None
) -> ContentPage:
    front = front or {}
    return ContentPage(
        path=source.path,
        collection=source.path.partition("/")[0] if "/" in source.path else "",
        title=title,
        description=clean_title(str(front.get("description") or "")) if front.get("description") else "",
        tags=_tags(front.get("tags")),
        urgent=tuple(front.get("urgent") or ()),
        language=normalise_language(front.get("language")) or source.language or detect_language(f"{title}\n{text}"),
        text=text,
        offset=offset,
        sha=source.sha,
    )


def detect_language(text: str) -> str:
    """The language of a page by its beginning, without its code."""
    return language_of(markup.prose(text[:_BEGINNING]))


def _title(front: Mapping[str, Any]) -> str:
    title = front.get("title")
    return "" if title is None else clean_title(str(title))


def _tags(tags: Any) -> tuple[str, ...]:
    """Tags in whatever form a project writes them. They are a list, or words between commas."""
    listed = tags.split(",") if isinstance(tags, str) else tags if isinstance(tags, list) else ()
    return tuple(str(tag).strip() for tag in listed if isinstance(tag, str | int | float) and str(tag).strip())


def _is_phrases(urgent: Any) -> bool:
    return urgent is None or (
        isinstance(urgent, list) and all(isinstance(phrase, str) and phrase.strip() for phrase in urgent)
    )


def first_heading(body: str) -> str | None:
    """The text of the first heading of level 1."""
    top = next((heading.text for heading in headings(body) if heading.text and heading.level == 1), None)
    html = _HTML_HEADING.search(body[:_BEGINNING])
    return top or (html and markup.heading(html[1])) or None


def headings(body: str) -> list[Heading]:
    """The headings that Markdown itself sees in their order."""
    starts = [0]
    for line in body.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    tokens = BLOCKS.parse(body)
    return [
        # Cut before the markup is removed: a "heading" of a megabyte must not keep the patterns busy.
        Heading(starts[token.map[0]], int(token.tag[1]), markup.heading(inline.content[:2000])[:LONGEST])
        for token, inline in pairwise(tokens)
        # Level 0: a heading in a quotation or in a list is no section of the page.
        if token.type == "heading_open" and token.level == 0 and token.map is not None
    ]
