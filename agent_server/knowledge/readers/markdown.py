"""Markdown as projects write it -> Markdown as CommonMark reads it, line for line.

    <!-- --> {# #} {/* */}               comments: left out
    {% tag %} {{ value }} {{< code >}}   templates of Jekyll, Hugo, Jinja: left out; `highlight` is a fence
    [[page|shown]] ![[embed]] ^id        wikilinks: what is shown; embeds and ids of blocks: left out
    > [!warning] Title, !!! note, :::tip callouts: the title in bold letters, the text as it is
    import, <Component>, {expression}    MDX: left out; the `title` of a component in bold letters
    [^1]                                 footnotes: the mark is left out, the note is an item of a list

Code stays as it is, and no line is added or taken away. The index reads this; a stored passage is what the file says, so
that its place in the file holds.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import groupby

from markdown_it import MarkdownIt

BLOCKS = MarkdownIt("commonmark").enable("table")
# Without the parsing of inline markup, which is most of the work and is not needed to find blocks.
BLOCKS.core.ruler.enableOnly(["normalize", "block"])

_FOREIGN = re.compile(
    r"\{[{%:/#]|<!--|\[\[|\[!|\[\^|^:::|^[ \t]*(?:!!!|\?\?\?|===)[+ ]|(?:^|[ \t])\^[\w-]+[ \t]*$|^(?:import|export) "
    r"|</?[A-Z]|^\[(?:TOC|toc)\]|^[`~:]{3,}\{",
    re.MULTILINE,
)
_FENCE = re.compile(r"^(?P<lead>[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
_HIGHLIGHT = re.compile(r"^([ \t]*)\{%-?\s*highlight\s+([\w+-]+)[^%]{0,100}%\}[ \t]*$")
_END_HIGHLIGHT = re.compile(r"^([ \t]*)\{%-?\s*endhighlight\s*-?%\}[ \t]*$")
_ADMONITION = re.compile(
    r"^([ \t]*)(?:(?:!!!|\?\?\?\+?)[ \t]+[\w-]+(?:[ \t]+[\w-]+){0,5}(?:[ \t]+\"([^\"\n]*)\")?|===[ \t]+\"([^\"\n]+)\")[ \t]*$"
)
_CONTAINER = re.compile(
    r"^[ \t]*:{3,}[ \t]*(?:\{?[\w-]+\}?[ \t]*)?(?:\[([^\]\n]*)\]|([^\[{\n]*))?[ \t]*(?:\{[^}\n]*\})?[ \t]*$"
)
_MYST = re.compile(
    r"^([ \t]*)(`{3,}|~{3,})\{(?:note|tip|hint|warning|caution|danger|attention|error|important|admonition|seealso|todo"
    r"|versionadded|versionchanged|deprecated)\}[ \t]*(.*)$"
)
_RAW = re.compile(r"\{%-?\s*(?:end)?raw\s*-?%\}")
_COMMENT = re.compile(r"<!--|\{/\*|\{#")
_ENDS = {"<!--": "-->", "{/*": "*/}", "{#": "#}"}
_LONGEST_LINE = 1000
"""Characters of a line that may begin a callout or code."""
# Each of these is bounded and stops at its own first character: none looks at the same text again and again.
_TEMPLATE = re.compile(r"\{\{[^{}]{0,500}\}\}|\{%(?:[^%{]|%(?!\})){0,500}%\}")
_EXPRESSION = re.compile(r"(?<![\\$])\{[^{}\n]{0,300}\}")
_EMBED = re.compile(r"!\[\[[^\[\]\n]{1,300}\]\]")
_WIKILINK = re.compile(
    r"(?<![\\!\[])\[\[(?![\s\d]+\]|\s)([^\[\]\n|]{1,200})(?:\\?\|([^\[\]\n]{1,200}))?\]\](?![(\[\]])"
)
_BLOCK_ID = re.compile(r"(?:^|[ \t])\^(?=[0-9-]*[A-Za-z])[A-Za-z0-9-]{1,60}[ \t]*$", re.MULTILINE)
_CALLOUT = re.compile(r"^([ \t]*>[ \t>]*)\[!\w[\w-]{0,40}(?:\|[^\]\n]{0,60})?\][+-]?[ \t]*([^\n]*)$", re.MULTILINE)
_NOTE = re.compile(r"^ {0,3}\[\^[^\]\s]{1,60}\]:[ \t]*", re.MULTILINE)
_MARK = re.compile(r"(?<=\S)\[\^[^\]\s]{1,60}\](?!\()")
_ATTRIBUTES = re.compile(r"^[ \t]*\{:[^}\n]{0,300}\}[ \t]*$|\{:\s?[.#][^}\n]{0,200}\}", re.MULTILINE)
_LONE_CALLOUT = re.compile(r"^[ \t]*\[!\w[\w-]{0,40}\][+-]?[ \t]*$", re.MULTILINE)
_CONTENTS = re.compile(r"^[ \t]*\[\[?_?TOC_?\]\]?[ \t]*$", re.MULTILINE | re.IGNORECASE)
_IMPORT = re.compile(r"^(?:import|export)[ \t](?:[^\n]*[ \t]from[ \t]+)?['\"][^'\"\n]+['\"];?[ \t]*$", re.MULTILINE)
_EXPORT = re.compile(r"^export (?:const|let|default|function|async)\b")
# A component has a small letter in its name: <PATH> is a place for a value.
_COMPONENT = re.compile(r"(?<![\w\\<])<(/?)(?=[A-Z][\w.]{0,60}[a-z])[A-Z][\w.]{0,60}(\s[^<>]{0,1000})?/?>")
_NAMED = re.compile(r"\b(?:title|label|summary)=(?:\"([^\"]{1,200})\"|'([^']{1,200})')")


def clean(text: str, *, is_mdx: bool = False) -> str:
    """The text of a page, or of a part of it, without the syntax of other programs."""
    if _FOREIGN.search(text) is None and not (is_mdx and "{" in text):
        return text
    # `raw` keeps a template's sample from being run, so it stands in code too, where no reader sees it.
    lines = _rewrite_blocks(_RAW.sub("", text).split("\n"))
    code = {line for start, end, _ in _find_code(lines) for line in range(start, end)}
    lines = _drop_comments(lines, code)
    return "\n".join(_clean_prose(lines, code, is_mdx=is_mdx))


def _drop_comments(lines: list[str], code: set[int]) -> list[str]:
    """The lines without the comments that are not in code. There are as many as before."""
    if not any(_COMMENT.search(line) for line in lines):
        return lines
    kept: list[str] = []
    for is_code, run in groupby(enumerate(lines), lambda line: line[0] in code):
        text = "\n".join(line for _, line in run)
        parts = [(True, text)] if is_code else _split_code(text)
        kept += "".join(part if is_code else _without_comments(part) for is_code, part in parts).split("\n")
    return kept


def _without_comments(text: str) -> str:
    kept, done = [], 0
    while found := _COMMENT.search(text, done):
        close = _ENDS[found[0]]
        # One of Jinja ends in its line, since an id of a heading begins like it; one without an end goes on to the last line.
        last = text.find("\n", found.end()) if found[0] == "{#" else -1
        end = text.find(close, found.end(), last if last >= 0 else len(text))
        if end < 0 and found[0] == "{#":
            kept.append(text[done : found.end()])
            done = found.end()
            continue
        stop = end + len(close) if end >= 0 else len(text)
        kept += [text[done : found.start()], "\n" * text.count("\n", found.start(), stop)]
        done = stop
    return "".join([*kept, text[done:]])


def find_unclosed(body: str) -> list[tuple[int, str]]:
    """The fences that nothing closes, with their lines."""
    if "```" not in body and "~~~" not in body:
        return []
    lines = body.split("\n")
    return [
        (start + 1, f"the code that begins here is not closed: write a line {fence} below it")
        for start, end, fence in _find_code(lines)
        if fence and not _closes(lines[end - 1], fence, alone=end - start == 1)
    ]


def _find_code(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    """Where code begins and ends, with its fence, which is "" for code that is indented."""
    for token in BLOCKS.parse("\n".join(lines)):
        if token.type in ("fence", "code_block") and token.map is not None:
            yield token.map[0], token.map[1], token.markup


def _closes(line: str, fence: str, *, alone: bool) -> bool:
    text = line.lstrip(" \t>").rstrip()
    return not alone and len(text) >= len(fence) and not text.strip(fence[0])


def _rewrite_blocks(lines: list[str]) -> list[str]:
    """Callouts and code of other programs as quotations, bold letters and fences."""
    rewritten: list[str] = []
    fence = ""  # of the code that we are in
    text_until = ""  # the end of a fence with text in it
    quoted: str | None = None  # the indentation of the callout that we are in
    for line in lines:
        if len(line) > _LONGEST_LINE:
            rewritten.append(line)
            continue
        if quoted is not None:
            inner = f"{quoted}    "
            if not line.strip() or line.startswith((inner, f"{quoted}\t")):
                dedented = line[len(inner) :] if line.startswith(inner) else line.lstrip()
                # The line below the callout keeps its emptiness: it ends the quotation.
                rewritten.append(f"{quoted}> {dedented}" if dedented else "")
                continue
            quoted = None
        if fence:
            if line.strip(" \t>").startswith(fence) and not line.strip(f" \t>{fence[0]}"):
                fence = ""
            elif fence == "%" and (found := _END_HIGHLIGHT.match(line)):
                line, fence = f"{found[1]}```", ""
        elif text_until and line.strip() == text_until:
            line, text_until = "", ""
        elif found := _HIGHLIGHT.match(line):
            line, fence = f"{found[1]}```{found[2]}", "%"
        elif not text_until and (found := _MYST.match(line)):
            line, text_until = found[1] + _bold(found[3]), found[2]
        elif found := _FENCE.match(line):
            # An opening of backticks has none behind it; else it is code within a line.
            fence = found["fence"] if "`" not in found["info"] or found["fence"][0] == "~" else ""
        elif found := _ADMONITION.match(line):
            quoted = found[1]
            line = f"{quoted}> {_bold(found[2] or found[3] or '')}".rstrip()
        elif found := _CONTAINER.match(line):
            line = _bold((found[1] or found[2] or "").strip())
        rewritten.append(line)
    return _join_quotations(rewritten)


def _join_quotations(lines: list[str]) -> list[str]:
    """An empty line between two of a quotation belongs to it, as the callout that it was made of had it."""
    return [
        ">"
        if not line and 0 < at < len(lines) - 1 and lines[at - 1].startswith("> ") and lines[at + 1].startswith("> ")
        else line
        for at, line in enumerate(lines)
    ]


def _bold(title: str) -> str:
    title = title.strip().rstrip(":")
    return f"**{title}:**" if title else ""


def _clean_prose(lines: list[str], code: set[int], *, is_mdx: bool) -> Iterator[str]:
    """The lines, without foreign syntax where they are no code."""
    paragraph: list[str] = []
    for at, line in enumerate([*lines, ""]):
        is_end = at == len(lines)
        if line.strip() and at not in code and not is_end:
            paragraph.append(line)
            continue
        if paragraph:
            yield from _clean_paragraph("\n".join(paragraph), is_mdx=is_mdx).split("\n")
            paragraph = []
        if not is_end:
            yield line


def _clean_paragraph(text: str, *, is_mdx: bool) -> str:
    if is_mdx and _EXPORT.match(text):
        return "\n" * text.count("\n")
    if not _FOREIGN.search(text) and not (is_mdx and "{" in text):
        return text
    text = _CALLOUT.sub(
        lambda found: (found[1] + _bold(found[2])).rstrip(), _CONTENTS.sub("", _LONE_CALLOUT.sub("", text))
    )
    text = _NOTE.sub("- ", _ATTRIBUTES.sub("", _IMPORT.sub("", text)))
    parts: list[str] = []
    for is_code, part in _split_code(text):
        parts.append(part if is_code else _clean_text(part, is_mdx=is_mdx))
    # What stood alone in its line leaves spaces, four of which would make the next line code.
    return "\n".join(line if line.strip() else "" for line in "".join(parts).split("\n"))


def _clean_text(text: str, *, is_mdx: bool) -> str:
    text = _TEMPLATE.sub(_keep_lines, text)
    text = _WIKILINK.sub(lambda found: found[2] or _name_target(found[1]), _EMBED.sub("", text))
    text = _MARK.sub("", _BLOCK_ID.sub("", text))
    text = _COMPONENT.sub(_name_component, text)
    return _EXPRESSION.sub("", text) if is_mdx else text


def _keep_lines(found: re.Match[str]) -> str:
    return "\n" * found[0].count("\n")


def _name_target(target: str) -> str:
    page, _, place = target.partition("#")
    return " > ".join(part for part in (page.strip(), place.strip()) if part and not part.startswith("^"))


def _name_component(found: re.Match[str]) -> str:
    named = None if found[1] else _NAMED.search(found[2] or "")
    return (f"{_bold(named[1] or named[2])} " if named else "") + _keep_lines(found)


def _split_code(text: str) -> Iterator[tuple[bool, str]]:
    """The text in parts, with whether each is code within a line."""
    runs = [(found.start(), found.end()) for found in re.finditer(r"`+", text)]
    by_length: dict[int, list[int]] = {}
    for start, end in runs:
        by_length.setdefault(end - start, []).append(start)
    done = 0
    for start, end in runs:
        if start < done:
            continue
        same = by_length[end - start]
        later = bisect_right(same, start)
        if later == len(same):
            continue  # nothing closes it, so it is a sign like any other
        close = same[later] + end - start
        yield False, text[done:start]
        yield True, text[start:close]
        done = close
    yield False, text[done:]
