"""Reads one document in a process of its own: `python -m agent_server.documents.child SECONDS BYTES`.

    parent -> child   a line of JSON {"path"}, then the file
    child -> parent   JSON: the fields of `ReadDocument`, or {"wrong"}

Whoever sends a document may mean harm. Whatever it does to its reader, this process ends and the server goes on.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any

from agent_server.folding import fold, unify
from agent_server.knowledge import markup
from agent_server.knowledge.chunk import SEPARATOR, TextChunk, chunk
from agent_server.knowledge.languages import CONFIGS, spread_unspaced
from agent_server.knowledge.parse import ContentPage, make_source, read_source
from agent_server.knowledge.readers import KINDS
from agent_server.knowledge.readers.base import ReadText
from agent_server.knowledge.readers.child import Child, allow_seconds, limit_process

LONGEST_TEXT = 4_000_000
"""Characters of a document's text."""
MOST_PASSAGES = 5_000
"""Passages of a document."""


@dataclass(frozen=True)
class ReadPassage:
    """A piece of a document. `about` and `words` are what the index counts, `meaning` is what is embedded."""

    id: str
    heading: str
    text: str
    start: int
    end: int
    about: str
    words: str
    meaning: str


@dataclass(frozen=True)
class ReadDocument:
    """What was made of a file. `config` is the text-search configuration of its language; `remarks` say what was
    guessed or repaired."""

    title: str
    text: str
    config: str
    passages: list[ReadPassage]
    remarks: list[str]


class _InThisProcess(Child):
    """Reads what would need a process of its own here, since this is one."""

    def read(self, suffix: str, content: bytes) -> ReadText:
        read = KINDS[suffix].load()(content)
        # NUL has no place in a text of Postgres, and half a pair is no character.
        text, title = (value.replace("\x00", "").encode(errors="replace").decode() for value in (read.text, read.title))
        return ReadText(text, title, read.remarks)


def read_document(path: str, content: bytes) -> ReadDocument | str:
    """The document, or what is wrong with it."""
    reading = read_source(make_source(path, path, content), _InThisProcess())
    if (page := reading.page) is None:
        found = [*reading.mistakes, *reading.remarks]
        return "; ".join(mistake.message for mistake in found) or "has no text"
    if len(page.text) > LONGEST_TEXT:
        return f"has {len(page.text)} characters of text, and {LONGEST_TEXT} are the most; split it"
    pieces = chunk(page)
    if len(pieces) > MOST_PASSAGES:
        return f"has {len(pieces)} passages, and {MOST_PASSAGES} are the most; split it"
    passages = [_make_passage(page, piece) for piece in pieces]
    return ReadDocument(page.title, page.text, CONFIGS[page.language], passages, [r.message for r in reading.remarks])


def _make_passage(page: ContentPage, piece: TextChunk) -> ReadPassage:
    # As the content is indexed (knowledge/ingest.py), so that the scores of both can be compared.
    name = page.path.rpartition(".")[0].replace("-", " ").replace("_", " ").replace(".", " ")
    about = " ".join((piece.heading.replace(SEPARATOR, " "), page.description, *page.tags, name))
    return ReadPassage(
        id=piece.id,
        heading=piece.heading,
        text=piece.text,
        start=piece.start,
        end=piece.end,
        about=spread_unspaced(fold(about)),
        words=spread_unspaced(fold(" ".join((piece.words, *markup.list_code_names(piece.words))))),
        meaning=unify(f"{about}\n{piece.words}"),
    )


def _answer(sent: bytes) -> dict[str, Any]:
    head, _, content = sent.partition(b"\n")
    try:
        read = read_document(json.loads(head)["path"], content)
    except MemoryError:
        return {"wrong": "takes more memory than a file may; it was not read"}
    except Exception as error:  # noqa: BLE001  # whatever a library finds wrong with a file is wrong with that file alone
        return {"wrong": f"cannot be read: {type(error).__name__}; save it again"}
    return {"wrong": read} if isinstance(read, str) else asdict(read)


if __name__ == "__main__":
    limit_process(int(sys.argv[2]))
    allow_seconds(int(sys.argv[1]))
    # What a library prints must not stand before the answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answers.write(json.dumps(_answer(sys.stdin.buffer.read()), ensure_ascii=False).encode())
    answers.close()
