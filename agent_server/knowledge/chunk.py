"""A page -> chunks of text that can be found and cited.

A page is cut at its headings, and a section that is too long is split. Each chunk has its heading path and offsets.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from agent_server.knowledge import markup
from agent_server.knowledge.parse import ContentPage, headings

MAX_CHARACTERS = 1600
MIN_CHARACTERS = 200
"""A shorter section goes with the one after it, where the two fit together."""
VERSION = f"5/{MAX_CHARACTERS}/{MIN_CHARACTERS}"
"""Part of a document's hash: a change here re-ingests everything."""
SEPARATOR = " > "


@dataclass(frozen=True)
class TextChunk:
    """A piece of a page's text.

    `text` is exactly the file's characters `start` to `end`. `id` is its name in citations, `words` what the index
    reads of the text.
    """

    id: str
    heading: str
    text: str
    start: int
    end: int
    words: str


@dataclass(frozen=True)
class _Section:
    path: tuple[str, ...]
    start: int
    end: int


def chunk(page: ContentPage) -> list[TextChunk]:
    """The chunks of a page in order. There is at least one; none cuts a fence or table that fits."""
    # This splitter is slower than others, but it keeps fences and tables whole and gives the offsets for citations.
    from semantic_text_splitter import MarkdownSplitter  # noqa: PLC0415  # heavy

    splitter = MarkdownSplitter(MAX_CHARACTERS)
    is_mdx = page.path.lower().endswith(".mdx")
    pieces = [
        (section, section.start + offset, text, markup.words(text, is_mdx=is_mdx))
        for section in _merge(list(_sections(page)))
        for offset, text in splitter.chunk_indices(page.text[section.start : section.end])
    ]
    passages: list[TextChunk] = []
    seen: dict[str, int] = {}
    # A page of headings alone keeps its first piece: without it the page could not be found at all.
    for section, start, text, words in [piece for piece in pieces if _says_something(piece[3])] or pieces[:1]:
        heading = SEPARATOR.join(section.path)
        key = "\n".join((page.path, heading, text))
        # The same text may stand twice under one heading, and each place needs its own name: the index is unique.
        again = seen[key] = seen.get(key, 0) + 1
        id = hashlib.sha256(f"{key}\n{again}".encode()).hexdigest()[:20]
        passages.append(TextChunk(id, heading, text, start, start + len(text), words))
    return passages


def _says_something(words: str) -> bool:
    """Whether there is more to a piece than headings and markup."""
    return any(any(map(str.isalnum, line)) for line in words.splitlines() if not line.lstrip().startswith("#"))


def _sections(page: ContentPage) -> Iterator[_Section]:
    """The page cut at its headings. A section's path is the title and the headings down to it."""
    above: list[tuple[int, str]] = []
    section = _Section((page.title,), page.offset, len(page.text))
    for heading in headings(page.body):
        start = page.offset + heading.start
        # Where a heading is the first line, the section above it is empty.
        if start > section.start:
            yield replace(section, end=start)
        above = [*(h for h in above if h[0] < heading.level), (heading.level, heading.text)]
        path = tuple(text for _, text in above if text)
        section = _Section(path if path[:1] == (page.title,) else (page.title, *path), start, len(page.text))
    yield section


def _merge(sections: list[_Section]) -> Iterator[_Section]:
    """Sections without the very short ones. Those go together with what follows under the same parent."""
    held = sections[0]
    for section in sections[1:]:
        # Paths are compared part by part, not as text: "Dive" is not the parent of "Divers".
        parent = held.path[:-1] or held.path
        fits = section.end - held.start <= MAX_CHARACTERS
        if held.end - held.start < MIN_CHARACTERS and fits and section.path[: len(parent)] == parent:
            # Two neighbours go under what they share: the first heading would name the second text wrongly.
            below = section.path[: len(held.path)] == held.path
            held = _Section(held.path if below else parent, held.start, section.end)
            continue
        yield held
        held = section
    yield held
