"""Markdown as the words that a reader sees. Projects mix HTML, MDX and Jinja into it."""

import html
import re

# HTML, MDX and Jinja. A comment without an end goes on to the end of the page, as in HTML.
_COMMENT = r"<!--.*?(?:-->|\Z)|\{/\*.*?(?:\*/\}|\Z)|\{#[^\n]*?#\}|\{%.*?%\}"
_LINK = re.compile(r"!?\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+[\"'][^\"'\n]*[\"'])?\)")
_CODE = r"^[ \t>]*(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t>]*(?P=fence)[`~]*[ \t]*$|\Z)|(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)"
# Code and comments in one pattern: whichever begins first wins, so a comment inside code is code.
_OPAQUE = re.compile(rf"(?P<code>{_CODE})|(?P<comment>{_COMMENT})", re.DOTALL | re.MULTILINE)
# NUL cannot stand in a page: the parser refuses such a file.
_MARK = re.compile("\x00(\\d+)\x00")
# An empty line ends a tag: else "if a <b" would take the text up to the next ">", paragraphs below, with it.
_TAG = re.compile(r"</?[A-Za-z][^<>\n]*(?:\n[^<>\n]+)*>")
_TARGET = re.compile(r"^ {0,3}\[[^\]\n]+\]:\s+\S+[^\n]*$", re.MULTILINE)
# The id that some projects write behind a heading: {#install}, {: .no_toc}.
_ATTRIBUTES = re.compile(r"\\?\{\s*[#.:][^}]*\}")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_EMPHASIS = re.compile(r"(?<!\\)(?:\*{1,3}(?=\S)|(?<=\S)\*{1,3}|~~|(?<!\w)_{1,3}(?=\S)|(?<=\S)_{1,3}(?!\w))")
_BRACKETS = str.maketrans("<>", "  ")


def words(markdown: str) -> str:
    """`markdown` as an index reads it.

    Links are their texts; comments, tags and link targets are left out. Code keeps its tags.
    """
    text, code = _without_code(markdown)
    text = _LINK.sub(r"\1", _TAG.sub(" ", _TARGET.sub("", text)))
    # Postgres takes <b> for markup and drops it; without the brackets a tag in code is a word.
    return _with_code(text, [part.translate(_BRACKETS) for part in code])


def heading(markdown: str) -> str:
    """A heading in one line without its markup."""
    text, code = _without_code(markdown)
    text = _ESCAPED.sub(r"\1", _EMPHASIS.sub("", _ATTRIBUTES.sub("", _LINK.sub(r"\1", _TAG.sub("", text)))))
    return " ".join(_with_code(html.unescape(text), [part.strip("` ") for part in code]).split())


def _without_code(markdown: str) -> tuple[str, list[str]]:
    """The text with a mark in the place of each piece of code.

    Comments are left out. The pieces of code come beside it.
    """
    code: list[str] = []

    def take_out(found: re.Match[str]) -> str:
        if found["comment"]:
            return " "
        code.append(found[0])
        return f"\x00{len(code) - 1}\x00"

    return _OPAQUE.sub(take_out, markdown), code


def _with_code(text: str, code: list[str]) -> str:
    return _MARK.sub(lambda mark: code[int(mark[1])], text)
