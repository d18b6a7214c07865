"""A passage -> its sections, and those -> the pieces that can be quoted.

A piece is a sentence, an item of a list, a row of a table or a block of code. Pieces that belong together are bound: a
sentence that leads to a list, a table or code with it, and a sentence that goes on after them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from agent_server.knowledge.blocks import Block, parse_blocks
from agent_server.knowledge.chunk import SEPARATOR
from agent_server.knowledge.passages import CitedPassage

_LEADS = (":", "…", "...", "：")


@dataclass(frozen=True)
class Piece:
    """Something that can be quoted.

    `n` is the citation of its passage, `path` the headings down to it with the page's title first. Pieces with one
    `block` are of one paragraph, list, table or code; those with one `bond` belong together; those with one `section`
    stand under one heading. `place` orders the pieces of a passage.
    """

    n: int
    kind: Literal["text", "list", "table", "code"]
    text: str
    path: tuple[str, ...]
    place: int
    block: int
    bond: int
    section: int
    marker: str = ""
    depth: int = 0

    @property
    def heading(self) -> str:
        return " ".join(self.path)


def pieces_of(cited: CitedPassage) -> Iterator[Piece]:
    """The quotable pieces of a passage in order."""
    passage = cited.passage
    above = tuple(passage.heading.split(SEPARATOR)) if passage.heading else ()
    if above[:1] != (passage.title,):
        # A question often names the subject of the page, which a heading inside the page leaves out.
        above = (passage.title, *above)
    blocks = parse_blocks(passage.text)
    bonds = _bind(blocks)
    path, section, place = above, 0, 0
    levels: list[tuple[int, str]] = []
    for number, block in enumerate(blocks):
        if block.kind == "heading":
            section += 1
            text = block.parts[0].text
            levels = [*((level, name) for level, name in levels if level < block.level), (block.level, text)]
            path = _path(above, [name for _, name in levels])
            continue
        for part in block.parts:
            yield Piece(
                cited.n, block.kind, part.text, path, place, number, bonds[number], section, part.marker, part.depth
            )
            place += 1


def _path(above: tuple[str, ...], below: Sequence[str]) -> tuple[str, ...]:
    """The headings above a passage with those inside it. The passage's own heading is usually its first line."""
    if below and below[0] in above:
        return (*above[: above.index(below[0])], *below)
    return (*above, *below)


def _bind(blocks: Sequence[Block]) -> list[int]:
    """For each block the number of the first that it belongs to."""
    bonds: list[int] = []
    for number, block in enumerate(blocks):
        before = blocks[number - 1] if number else None
        bound = before is not None and (
            (block.kind in ("list", "table", "code") and before.kind == "text")
            or (block.kind == "code" and before.kind in ("code", "list"))
            or (block.kind == "text" and before.kind != "heading" and _goes_on(before, block))
        )
        bonds.append(bonds[-1] if bound and block.kind != "heading" else number)
    return bonds


def _goes_on(before: Block, block: Block) -> bool:
    """Whether a paragraph is the rest of what stands before it."""
    return before.parts[-1].text.endswith(_LEADS) or (before.kind != "text" and block.parts[0].text[:1].islower())
