"""A text file -> Markdown. Its first line is its title where it stands by itself."""

import re
import textwrap

from agent_server.knowledge.readers.base import ReadText
from agent_server.knowledge.readers.encoding import decode

_LONGEST_TITLE = 80
_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})", re.MULTILINE)


def read_plain(content: bytes) -> ReadText:
    read = decode(content)
    # A whole text that is indented would be code.
    text = textwrap.dedent(read.text.expandtabs(4)).strip("\n")
    first, _, rest = text.partition("\n")
    title = first.strip()
    # A text file has no fences: three backticks must not make code of all that follows.
    text = _FENCE.sub(r"\1\\\2", text)
    stands_alone = 0 < len(title) <= _LONGEST_TITLE and rest[:1] == "\n" and any(map(str.isalnum, title))
    if stands_alone and title[-1] not in ".,;:!?#":
        return ReadText(text, title.lstrip("# "), read.remarks)
    return ReadText(text, "", read.remarks)
