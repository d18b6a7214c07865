"""A page -> passages: sections by heading, split where they are too long, with heading path and offsets."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from semantic_text_splitter import MarkdownSplitter

from agent_server.knowledge.parse import ContentPage, headings

MAX_CHARACTERS = 1600
MIN_CHARACTERS = 200
"""A shorter section goes with the one after it, where the two fit together."""
VERSION = f"3/{MAX_CHARACTERS}/{MIN_CHARACTERS}"
"""Part of a document's hash: a change here re-ingests everything."""
SEPARATOR = " > "


@dataclass(frozen=True)
class Passage:
    """`text` is exactly the file's characters `start` to `end`; `id` is its name in citations."""

    id: str
    heading: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class _Section:
    heading: str
    start: int
    end: int


def chunk(page: ContentPage) -> list[Passage]:
    """The passages of a page, in order; none is blank, and none cuts a fence or table that fits."""
    splitter = MarkdownSplitter(MAX_CHARACTERS)
    passages: list[Passage] = []
    seen: dict[str, int] = {}
    for section in _merged(list(_sections(page))):
        source = page.text[section.start : section.end]
        for offset, text in splitter.chunk_indices(source):
            if not _says_something(text):
                continue
            key = "\n".join((page.path, section.heading, text))
            again = seen[key] = seen.get(key, 0) + 1
            id = hashlib.sha256(f"{key}\n{again}".encode()).hexdigest()[:20]
            start = section.start + offset
            passages.append(Passage(id, section.heading, text, start, start + len(text)))
    return passages


def _says_something(text: str) -> bool:
    """Whether there is more to a piece than headings."""
    return any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines())


def _sections(page: ContentPage) -> Iterator[_Section]:
    """The page cut at its headings; a section's heading is the path from the title down to it."""
    path: list[tuple[int, str]] = []
    start, heading = page.offset, page.title
    for offset, level, text in headings(page.body):
        place = page.offset + offset
        if place > start:
            yield _Section(heading, start, place)
        path = [above for above in path if above[0] < level]
        path.append((level, text))
        titles = [t for _, t in path]
        heading = SEPARATOR.join(titles if titles[0] == page.title else [page.title, *titles])
        start = place
    if start < len(page.text):
        yield _Section(heading, start, len(page.text))


def _merged(sections: list[_Section]) -> Iterator[_Section]:
    """Sections, the very short ones together with what follows under the same parent."""
    held: _Section | None = None
    for section in sections:
        if held is not None:
            fits = section.end - held.start <= MAX_CHARACTERS
            parent = held.heading.rpartition(SEPARATOR)[0] or held.heading
            if held.end - held.start < MIN_CHARACTERS and fits and section.heading.startswith(parent):
                shared = held.heading if section.heading.startswith(held.heading) else parent
                held = _Section(shared, held.start, section.end)
                continue
            yield held
        held = section
    if held is not None:
        yield held
