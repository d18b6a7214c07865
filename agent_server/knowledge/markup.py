"""Markdown as the words that a reader sees.

What other programs read in a page is taken off by `readers.markdown.clean`; what is left of Markdown and HTML within a
line is taken off here, for the index (`words`), for quotes (`display`) and for headings (`heading`).
"""

import html
import re
from collections.abc import Callable

from agent_server.knowledge.readers.markdown import clean

_CODE = re.compile(
    r"^[ \t>]*(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t>]*(?P=fence)[`~]*[ \t]*$|\Z)"
    r"|(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)",
    re.DOTALL | re.MULTILINE,
)
_IMAGE = re.compile(r"!\[([^\]]{0,300})\]\([^)]{0,500}\)")
_LINK = re.compile(r"!?\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+[\"'][^\"'\n]*[\"'])?\)")
_REFERENCE = re.compile(r"\[([^\[\]]{0,300})\]\[[^\]]{0,100}\]")
_ADDRESS = re.compile(r"<(https?://[^<>\s]+|mailto:[^<>\s]+)>")
# NUL cannot stand in a page: the parser refuses such a file.
_MARK = re.compile("\x00(\\d+)\x00")
# An empty line ends a tag: else "if a <b" would take the text up to the next ">", paragraphs below, with it.
_TAG = re.compile(r"</?[A-Za-z][^<>\n]*(?:\n[^<>\n]+)*>")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_TARGET = re.compile(r"^ {0,3}\[[^\]\n]+\]:\s+\S+[^\n]*$", re.MULTILINE)
# The id that some projects write behind a heading: {#install}, {: .no_toc}.
_ATTRIBUTES = re.compile(r"\\?\{\s*[#.:][^}]*\}")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_EMPHASIS = re.compile(r"(?<!\\)(?:\*{1,3}(?=\S)|(?<=\S)\*{1,3}|~~|(?<!\w)_{1,3}(?=\S)|(?<=\S)_{1,3}(?!\w))")
# A name that Postgres keeps whole: with a capital or a digit inside, or with _ beside a dot or a slash.
_NAME = re.compile(r"[A-Za-z][\w./-]{0,80}")
_NAME_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_BRACKETS = str.maketrans("<>", "  ")


def words(markdown: str, *, is_mdx: bool = False) -> str:
    """`markdown` as an index reads it.

    Links are their texts; comments, tags and link targets are left out. Code keeps its tags.
    """
    text, code = _without_code(clean(markdown, is_mdx=is_mdx))
    text = _LINK.sub(r"\1", _TAG.sub(" ", _TARGET.sub("", text)))
    # Postgres takes <b> for markup and drops it; without the brackets a tag in code is a word.
    return _with_code(text, [part.translate(_BRACKETS) for part in code])


def prose(markdown: str) -> str:
    """The text without its code, for what looks at its language."""
    return _MARK.sub(" ", _without_code(markdown)[0])


def list_code_names(markdown: str) -> list[str]:
    """The parts of the names in code that are made of several: max, loan and days of `maxLoanDays`."""
    names = (name for part in _without_code(markdown)[1] for name in _NAME.findall(part))
    cut = ([part for part in _NAME_PART.findall(name) if len(part) > 1] for name in names)
    return [part for parts in cut if len(parts) > 1 for part in parts]


def display(markdown: str) -> str:
    """Inline Markdown in one line without its markup. Code stays as it is, images are left out."""
    return _show(_IMAGE.sub("", clean(markdown)), str)


def heading(markdown: str) -> str:
    """A heading in one line without its markup, code without its ticks."""
    return _show(_ATTRIBUTES.sub("", clean(markdown)), lambda code: code.strip("` "))


def _show(markdown: str, show_code: Callable[[str], str]) -> str:
    text, code = _without_code(markdown)
    text = _LINK.sub(r"\1", _ADDRESS.sub(r"\1", _BREAK.sub(" ", text)))
    text = _ESCAPED.sub(r"\1", _EMPHASIS.sub("", _REFERENCE.sub(r"\1", _TAG.sub("", text))))
    return " ".join(_with_code(html.unescape(text), [show_code(part) for part in code]).split())


def _without_code(markdown: str) -> tuple[str, list[str]]:
    """The text with a mark in the place of each piece of code.

    The pieces of code come beside it.
    """
    code: list[str] = []

    def take_out(found: re.Match[str]) -> str:
        code.append(found[0])
        return f"\x00{len(code) - 1}\x00"

    return _CODE.sub(take_out, markdown), code


def _with_code(text: str, code: list[str]) -> str:
    return _MARK.sub(lambda mark: code[int(mark[1])], text)
