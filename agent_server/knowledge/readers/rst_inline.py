"""The markup within a paragraph of reStructuredText -> Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Substitutions: TypeAlias = Mapping[str, str]

_REPLACE = re.compile(r"^\.\. +\|([^|\n]{1,100})\| +replace:: *(.*)$")
_LITERAL = re.compile(r"``(.{1,2000}?)``", re.DOTALL)
_ROLE = re.compile(r":([A-Za-z][\w:+.-]{0,40}):`([^`]{1,1000})`")
_LINK = re.compile(r"(?<![`\w])`([^`<>]{1,500})<([^`<>\s]{1,1000})>`__?")
_REFERENCE = re.compile(r"(?<![`\w])`([^`]{1,500})`__?(?!\w)")
_DEFAULT = re.compile(r"(?<![`\w:])`([^`\n]{1,500})`(?![`_\w])")
_SUBSTITUTED = re.compile(r"(?<!\w)\|([^|\s](?:[^|\n]{0,98}[^|\s])?)\|_{0,2}(?!\w)")
_MARK = re.compile(r"(?<=\S)\s?\[(?:\d{1,4}|#[\w-]{0,60}|\*)\]_(?!\w)")
_TEXTS = frozenset({"ref", "doc", "term", "numref", "any", "sub", "sup", "abbr", "guilabel", "menuselection", "title", "dfn", "emphasis", "strong", "download"})  # fmt: skip
_CODE = re.compile("\x00(\\d+)\x00")


def find_substitutions(lines: Sequence[str]) -> Substitutions:
    """What `.. |name| replace::` says is to be read for |name|."""
    return {found[1]: found[2] for line in lines if (found := _REPLACE.match(line))}


def convert_inline(text: str, substitutions: Substitutions) -> str:
    """One paragraph. What is code in it is code afterwards."""
    code: list[str] = []

    def keep(inner: str) -> str:
        inner = " ".join(inner.split())
        code.append(f"`` {inner} ``" if "`" in inner else f"`{inner}`")
        return f"\x00{len(code) - 1}\x00"

    def convert_role(found: re.Match[str]) -> str:
        role, inner = found[1].rpartition(":")[2].lower(), found[2]
        # "title <target>"
        title, titled, _ = inner.rpartition("<") if inner.endswith(">") else ("", "", "")
        shown = title.rstrip() or inner
        if role in _TEXTS:
            return " ".join(shown.split())
        if role in ("pep", "rfc") and not titled:
            return f"{role.upper()} {shown}"
        # "~package.module.name" shows its last part, "!name" is no link.
        return keep(shown[1:].rpartition(".")[2] if shown.startswith("~") else shown.lstrip("!"))

    text = _LITERAL.sub(lambda found: keep(found[1]), text)
    text = _ROLE.sub(convert_role, text)
    text = _LINK.sub(lambda found: _link(" ".join(found[1].split()), found[2]), text)
    text = _REFERENCE.sub(lambda found: found[1], text)
    text = _DEFAULT.sub(lambda found: keep(found[1]), text)
    text = _SUBSTITUTED.sub(lambda found: substitutions.get(found[1], found[1]), text)
    text = _MARK.sub("", text).replace("\\ ", "")
    return _CODE.sub(lambda found: code[int(found[1])], text)


def _link(text: str, target: str) -> str:
    return f"[{text}]({target})" if target.startswith(("http://", "https://")) else text
