"""One small reader per kind of file: bytes in, Markdown out.

Markdown itself is read by `knowledge.parse`, which knows front matter. What needs a package of the extra `documents`, and
what is large, is read in a process of its own with limits (`child`): a file that was made to do harm ends that process
and not the server.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from agent_server.knowledge.readers.base import Reader

MARKDOWN = (".md", ".mdx", ".markdown")
EXTRA = "documents"


@dataclass(frozen=True)
class Kind:
    """A kind of file: where its reader is, and the package that the reader needs."""

    module: str
    function: str
    package: str | None = None

    @property
    def is_there(self) -> bool:
        return self.package is None or find_spec(self.package) is not None

    def load(self) -> Reader:
        reader: Reader = getattr(import_module(f"{__name__}.{self.module}"), self.function)
        return reader


KINDS: Mapping[str, Kind] = {
    ".txt": Kind("plain", "read_plain"),
    ".html": Kind("html", "read_html"),
    ".htm": Kind("html", "read_html"),
    ".xhtml": Kind("html", "read_html"),
    ".rst": Kind("rst", "read_rst"),
    ".ipynb": Kind("notebook", "read_notebook"),
    ".docx": Kind("docx", "read_docx", "mammoth"),
    ".pdf": Kind("pdf", "read_pdf", "pypdfium2"),
}
"""What is read beside Markdown."""

SUFFIXES = (*MARKDOWN, *KINDS)


def is_readable(suffix: str) -> bool:
    """Whether files of this kind can be read by what is installed."""
    return suffix in MARKDOWN or (suffix in KINDS and KINDS[suffix].is_there)


def is_document(suffix: str) -> bool:
    """Whether files of this kind are read by a package of the extra."""
    return suffix in KINDS and KINDS[suffix].package is not None
