"""A PDF of a Markdown text, for reports and invoices. It needs the extra `pdf`.

The text becomes a tree of blocks and words (`tree`), and a program in the typesetter's language, which is the same for all
texts, lays that tree out (`document.typ`). No text is ever part of the program, so that it cannot read, fetch or run
anything, whatever it says.
"""

import asyncio
import importlib.util
import json
import re
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from agent_server.errors import InvalidInput, Unavailable
from agent_server.late import Late

LONGEST = 500_000
"""Characters of a text that is made into a PDF: a few hundred pages, some seconds of a processor."""
LONGEST_TITLE = 300

Paper = Literal["a4", "us-letter"]

_HERE = Path(__file__).parent
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Z]{2})?")
_typst, _tree = Late("typst"), Late("agent_server.pdf.tree")


async def render_pdf(
    markdown: str,
    *,
    title: str,
    language: str = "en",
    author: str | None = None,
    footer: str | None = None,
    made_at: datetime | None = None,
    paper: Paper = "a4",
) -> bytes:
    """The PDF of a text in Markdown, with headings, lists, tables, quotes and code.

    `title` is the first line of the document and its name in a viewer. `language` is that of the text, as in `de` or
    `pt-BR`: words are broken and read aloud by it. `footer` stands at the left of each page's foot, the page's number at
    the right. Links can be followed, and their addresses stand beside them for who has it on paper. HTML and pictures are
    shown as what they are written as, and nothing is loaded for them. `made_at` is the date in the file's properties; the
    same input makes the same bytes.

    Other work of the process goes on meanwhile. Raises InvalidInput for what is too long and for a language that is
    none, and Unavailable without the extra.
    """
    if importlib.util.find_spec("typst") is None:
        raise Unavailable("PDF files need the extra pdf; run `pip install 'agent-server[pdf]'`")
    if len(markdown) > LONGEST:
        raise InvalidInput(f"markdown: {len(markdown)} characters are too many for one PDF; write {LONGEST} at most")
    if not 0 < len(title.strip()) <= LONGEST_TITLE:
        raise InvalidInput(f"title: write one of 1 to {LONGEST_TITLE} characters")
    if not _LANGUAGE.fullmatch(language):
        raise InvalidInput("language: write a code as in de or pt-BR")
    if made_at is not None and made_at.tzinfo is None:
        raise InvalidInput("made_at: give a time with its time zone")
    about = {"title": title, "author": author, "footer": footer, "language": language, "paper": paper}
    # The typesetter lets go of the interpreter while it works.
    return await asyncio.to_thread(_typeset, markdown, about, made_at)


def _typeset(markdown: str, about: dict[str, Any], made_at: datetime | None) -> bytes:
    language, _, region = about["language"].partition("-")
    clean = {name: value if value is None else _tree.clean_line(value) for name, value in about.items()}
    document = {**clean, "language": language, "region": region or None, "body": _tree.read_markdown(markdown)}
    moment = None if made_at is None else made_at.timetuple()[:6]
    given = json.dumps({**document, "made_at": moment})
    # The only folder that a program could read from, with nothing in it but the program.
    compiler = _typst.Compiler(input=(_HERE / "document.typ").read_bytes(), root=str(_HERE), font_paths=_fonts())
    made: bytes = compiler.compile(
        format="pdf", sys_inputs={"document": given}, timestamp=0 if made_at is None else int(made_at.timestamp())
    )
    return made


@cache
def _fonts() -> Any:
    """The fonts that come with the typesetter, and for letters that these lack those of the machine."""
    return _typst.Fonts(include_system_fonts=True)
