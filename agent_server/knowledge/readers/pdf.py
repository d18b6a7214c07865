"""A PDF -> Markdown, by pypdfium2. It needs the extra `documents`.

A page of two columns is read column by column. Bookmarks are the headings. What stands at the top or at the bottom of
most pages is left out, and so are the numbers of pages.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from agent_server.knowledge.readers.base import LONGEST_TEXT, ReadText, Unreadable

_MOST_PAGES = 5_000
_FEWEST_FOR_MARGINS = 3
_NUMBER = re.compile(
    r"^(?:page|seite|p\.)?\s*+[-\u2013]?\s*+\d{1,4}\s*+(?:(?:/|of|von|de)\s*+\d{1,4})?\s*+[-\u2013]?$", re.IGNORECASE
)
_HYPHEN = re.compile("(?:\ufffe|\x02)\\s*")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f]")


def read_pdf(content: bytes) -> ReadText:
    import pypdfium2  # noqa: PLC0415  # an extra

    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        locked = "password" in str(error).lower()
        raise Unreadable(
            "is locked by a password; save it without one" if locked else "is no PDF that can be opened"
        ) from None
    if len(document) > _MOST_PAGES:
        raise Unreadable(f"has {len(document)} pages, and {_MOST_PAGES} are the most; split it")
    pages: list[list[str]] = []
    size = 0
    for number in range(len(document)):
        page = document[number]
        text = _CONTROLS.sub(" ", _HYPHEN.sub("", _read_page(page).replace("\r\n", "\n").replace("\r", "\n")))
        page.close()
        size += len(text)
        if size > LONGEST_TEXT:
            raise Unreadable(f"has more than {LONGEST_TEXT // 1_000_000} million characters; split it")
        pages.append([" ".join(line.split()) for line in text.split("\n")])
    if not any(map(any, pages)):
        raise Unreadable("has no text: its pages are pictures; make their text out first (OCR)")
    bookmarks = _read_bookmarks(document)
    title = " ".join(str(document.get_metadata_dict().get("Title") or "").split())
    blocks = [
        block
        for number, lines in enumerate(_drop_margins(pages))
        for block in _mark_headings(lines, bookmarks.get(number, []))
    ]
    # Many a program writes the name of the file it was made from.
    return ReadText(
        "\n\n".join(blocks) + "\n", "" if re.search(r"\.\w{2,4}$|^untitled|^microsoft", title, re.I) else title
    )


def _read_page(page: Any) -> str:
    """The text of a page, split at the emptiest vertical line near its middle where it has two columns."""
    text, width = page.get_textpage(), page.get_width()
    rects = [text.get_rect(n) for n in range(min(text.count_rects(), 5_000))]  # left, bottom, right, top

    def count_crossing(x: float) -> int:
        return sum(left < x < right for left, _, right, _ in rects)

    middle = range(int(width * 0.3), int(width * 0.7), 2)
    if len(rects) < 30 or not middle:
        return str(text.get_text_bounded())
    x = min(middle, key=lambda x: (count_crossing(x), abs(x - width / 2)))
    narrower = min(sum(right <= x for _, _, right, _ in rects), sum(left >= x for left, *_ in rects))
    if count_crossing(x) > max(2, 0.05 * len(rects)) or narrower < 0.15 * len(rects):
        return str(text.get_text_bounded())
    # A title over both columns comes first.
    over = [bottom for left, bottom, right, _ in rects if left < x < right and bottom > 0.75 * page.get_height()]
    cut = min(over, default=None)
    top = f"{text.get_text_bounded(bottom=cut)}\n" if cut else ""
    below = {"top": cut} if cut else {}
    columns = (text.get_text_bounded(left=left, right=right, **below) for left, right in ((0, x), (x, width)))
    return top + "\n".join(columns)


def _read_bookmarks(document: Any) -> dict[int, list[tuple[int, str]]]:
    """Level and title of the bookmarks by the number of their page."""
    found: dict[int, list[tuple[int, str]]] = {}
    for bookmark in document.get_toc(max_depth=5):
        target = bookmark.get_dest()
        title = " ".join(_CONTROLS.sub(" ", bookmark.get_title() or "").split())
        if target is not None and title and (page := target.get_index()) is not None:
            found.setdefault(page, []).append((min(6, bookmark.level + 2), title[:300]))
    return found


def _drop_margins(pages: Sequence[list[str]]) -> list[list[str]]:
    """The pages without their headers, footers and numbers."""
    filled = [[line for line in page if line] for page in pages]
    edges = Counter(line for page in filled for line in {*page[:1], *page[-1:]})
    repeated = {line for line, n in edges.items() if n >= _FEWEST_FOR_MARGINS and n > len(pages) / 2}
    return [[line for line in page if line not in repeated and not _NUMBER.match(line)] for page in pages]


def _mark_headings(lines: Sequence[str], bookmarks: Sequence[tuple[int, str]]) -> list[str]:
    """The page with its bookmarks as headings: where their words stand, else at its top."""
    marked = list(lines)
    missing: list[str] = []
    for level, title in bookmarks:
        heading = f"\n{'#' * level} {title}\n"
        at = next((n for n, line in enumerate(marked) if line.casefold() == title.casefold()), None)
        if at is None:
            missing.append(heading)
        else:
            marked[at] = heading
    text = "\n".join(
        [
            *missing,
            *(line if line.startswith("\n#") else re.sub(r"^(#|>|[-+*=]{3,}$)", r"\\\1", line) for line in marked),
        ]
    )
    return [text.strip("\n")] if text.strip() else []
