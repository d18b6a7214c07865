"""What a page is called where it does not say so itself."""

import html
import re

LONGEST = 300
# Of a word with < and > in it only what is markup is taken away: `Vec<T>` and `<Keep>` are names.
_MARKUP = re.compile(
    r"</?(?:a|abbr|b|big|br|code|del|em|font|i|img|ins|kbd|mark|p|q|s|samp|small|span|strong|sub|sup|tt|u|var|wbr)"
    r"(?:\s[^<>]{0,300})?/?>"
)
# A number or a date before a name ("01-intro", "2024-05-01-news") sorts the files and says nothing of the page.
_ORDERING = re.compile(r"^(?:\d{4}-\d\d-\d\d[-_. ]++|\d++[-_.]\s*+)++(?=.*[^\W\d])")
_GENERIC = re.compile(r"^(?:_?index|readme|_?home|default|[a-z]{2}(?:[-_][A-Za-z]{2,4})?)$", re.IGNORECASE)
"""Names that say nothing without the folder: index.md, README.md, and the code of a language as in en.md."""


def clean_title(title: str) -> str:
    """A title as plain text in one line."""
    return " ".join(html.unescape(_MARKUP.sub("", title)).split())[:LONGEST].strip()


def name_title(path: str) -> str:
    """The path of a file as a title: guide/01-dry_suits.md is "Dry suits"."""
    *folders, file = path.split("/")
    stem = file.rpartition(".")[0] or file
    if _GENERIC.match(stem) and folders:
        # The collection says too little: all of its pages are in it.
        stem = " ".join(map(_make_readable, folders[-2:] if len(folders) > 2 else folders[-1:]))
    title = _make_readable(stem)
    return (title[:1].upper() + title[1:])[:LONGEST].strip() or file.strip()


def _make_readable(name: str) -> str:
    return " ".join(re.sub(r"[-_+.\s]+", " ", _ORDERING.sub("", name)).split())
