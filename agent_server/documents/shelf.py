"""From a file to a document that its owner's turns find, and back to its passages."""

import asyncio
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.caller import Caller
from agent_server.documents.models import READ
from agent_server.documents.repository import PIVOT, Quota
from agent_server.errors import FieldError, InvalidInput, TooMany, Unavailable, quote_value
from agent_server.knowledge.embedders.base import Embedder, check_vectors
from agent_server.knowledge.passages import Passage
from agent_server.knowledge.readers import EXTRA, KINDS, MARKDOWN, is_document, is_readable
from agent_server.late import Late
from agent_server.settings import Settings

if TYPE_CHECKING:
    from agent_server.documents import child, search
    from agent_server.knowledge import chunk, parse
    from agent_server.knowledge.readers import child as readers_child
else:
    child = Late("agent_server.documents.child")
    search = Late("agent_server.documents.search")
    chunk, parse = Late("agent_server.knowledge.chunk"), Late("agent_server.knowledge.parse")
    readers_child = Late("agent_server.knowledge.readers.child")

LONGEST_NAME = 200
_VERSION = "1"
"""Of how documents are indexed. A change makes the same file another one, which is read anew when it is sent again."""
_SECONDS = 60
_MEMORY = 1_500_000_000
"""What reading one document may take."""
_AT_ONCE = 2
"""Documents that a process has read at once. More wait."""
_OF_A_CALLER, _OF_ALL = 2, 16
"""Files that a process takes at once. More are refused."""
NAME_PATTERN = r"^[^/\\\x00-\x20\x7f.][^/\\\x00-\x1f\x7f]*\.({kinds})$".format(
    kinds="|".join(suffix[1:] for suffix in (*MARKDOWN, *KINDS))
)
"""What the names of files are that are read here, with the packages of all extras. Capitals make no difference."""
_NAME = re.compile(NAME_PATTERN.removesuffix("$"), re.IGNORECASE)
_WRONG = re.compile(r"[\x00-\x1f\x7f/\\\ud800-\udfff]+")


@dataclass(frozen=True)
class Indexed:
    """A document with the vectors of its passages as pgvector spells them."""

    read: "child.ReadDocument"
    vectors: Sequence[str]
    embedder: str
    sha: str
    size: int


@dataclass(frozen=True)
class Shelf:
    """What a process reads documents with. It is the `OwnPassages` of its callers."""

    embedder: Embedder
    settings: Settings
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    _sent: Counter[UUID] = field(default_factory=Counter)

    @property
    def quota(self) -> Quota:
        return Quota(self.settings.documents_per_user, self.settings.document_bytes_per_user)

    async def search(
        self, session: AsyncSession, caller: Caller, query: str, *, limit: int, min_score: float = 0.0
    ) -> list[Passage]:
        """The best passages of the caller's documents. None of a caller who may not read them."""
        if not caller.may(READ):
            return []
        return await search.search_own(session, self.embedder, query, owner=caller.id, limit=limit, min_score=min_score)

    async def find(self, session: AsyncSession, caller: Caller, id: str) -> Passage | None:
        """The caller's own passage that a citation names. None of a caller who may not read it."""
        return await search.find_own_passage(session, id, owner=caller.id) if caller.may(READ) else None

    @contextmanager
    def admit(self, caller: Caller) -> Iterator[None]:
        """Let a caller send a file in this block. Raises TooMany, and Unavailable where many others do."""
        # Files that wait to be read are in memory.
        if self._sent[caller.id] >= _OF_A_CALLER:
            raise TooMany(f"{_OF_A_CALLER} of your files are being read already; wait for one of them")
        if self._sent.total() >= _OF_ALL:
            raise Unavailable("Many files are being read just now; try again in a moment")
        self._sent[caller.id] += 1
        try:
            yield
        finally:
            self._sent[caller.id] -= 1
            if not self._sent[caller.id]:
                del self._sent[caller.id]

    def sign(self, name: str, content: bytes) -> str:
        """The hash of a file and of all that is made of it. Two files that have the same are the same document."""
        source = parse.make_source(_path_of(name), name, content)
        return f"{source.sha}/{_VERSION}/{chunk.VERSION}/{self.embedder.name}/{PIVOT:g}"

    async def index(self, name: str, content: bytes) -> Indexed:
        """Read a file and embed its passages. The event loop stays free. Raises InvalidInput that says what is wrong."""
        sha = await asyncio.to_thread(self.sign, name, content)
        async with self._places:
            read = await asyncio.to_thread(_read_apart, _path_of(name), content)
        if isinstance(read, str):
            raise _wrong("file", read)
        texts = [passage.meaning for passage in read.passages]
        vectors = await self.embedder.embed(texts)
        # The column takes vectors of any size, so Postgres would not refuse a wrong one.
        check_vectors(self.embedder, vectors, texts)
        spelled = await asyncio.to_thread(lambda: [str(row) for row in vectors.astype("float64").round(5).tolist()])
        # What is stored is the text, and a few bytes may unpack to much.
        size = max(len(content), len(read.text.encode()))
        return Indexed(read, spelled, self.embedder.name, sha, size)


def tidy_name(name: str) -> str:
    """A name that somebody gave a text, as one of a document."""
    name = _WRONG.sub("-", name).strip(" .") or "text"
    # A text is no file of these kinds.
    return f"{name}.md" if is_document(PurePath(name).suffix.lower()) else name


def check_name(name: str) -> None:
    """Raises InvalidInput for a name that no file has which can be read here."""
    suffix = PurePath(name).suffix.lower()
    if is_readable(suffix):
        if not _NAME.fullmatch(name):
            raise _wrong("name", "is no name of a file; leave out /, \\ and what stands before it, as in plan.pdf")
        return
    if suffix in KINDS:
        raise _wrong(
            "name", f"files of the kind {suffix} need the extra {EXTRA}; run `pip install 'agent-server[{EXTRA}]'`"
        )
    kind = f"files of the kind {quote_value(suffix)} are" if suffix else "a file without an ending is"
    raise _wrong("name", f"{kind} not read; send one of {', '.join(list_kinds())}")


def list_kinds() -> list[str]:
    """The endings of files that can be read here."""
    return [suffix for suffix in (*MARKDOWN, *KINDS) if is_readable(suffix)]


def _wrong(name: str, message: str) -> InvalidInput:
    field = FieldError(name, message)
    return InvalidInput(str(field), [field])


def _path_of(name: str) -> str:
    """The name that a file is read by: a text without an ending is Markdown."""
    return name if PurePath(name).suffix.lower() in (*MARKDOWN, *KINDS) else f"{name}.md"


def _read_apart(path: str, content: bytes) -> "child.ReadDocument | str":
    """The document as a process with limits reads it, or what is wrong with it."""
    command = [sys.executable, "-m", "agent_server.documents.child", str(_SECONDS), str(_MEMORY)]
    sent = json.dumps({"path": path}).encode() + b"\n" + content
    variables = readers_child.clean_environment()
    try:
        done = subprocess.run(command, input=sent, capture_output=True, env=variables, timeout=2 * _SECONDS)  # noqa: S603  # our own module
        answer = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return "takes more memory or time than a file may; it was not read"
    if "wrong" in answer:
        return str(answer["wrong"])
    passages = [child.ReadPassage(**passage) for passage in answer.pop("passages")]
    return child.ReadDocument(**answer, passages=passages)
