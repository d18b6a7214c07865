"""What an embedder reads of a passage, and how its vectors are written."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent_server.folding import unify
from agent_server.knowledge import markup
from agent_server.knowledge.chunk import SEPARATOR

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A number before a name ("01-intro.md") sorts the files and says nothing of the page.
_ORDERING = re.compile(r"(^|/)\d+[-_.]\s*")


def about(path: str, heading: str, description: str, tags: Sequence[str]) -> str:
    """What a passage is about beside its text.

    These are its headings, what the page says of itself, and the page's name.
    """
    # Measured on the documentation of four projects: MRR is .89 with description, tags and name, and .86 without. The
    # name may repeat the title: leaving the repeated words out costs .01, because they count the title once more.
    name = re.sub(r"[-_/.]+", " ", _ORDERING.sub(r"\1", path.rpartition(".")[0]))
    return " ".join((heading.replace(SEPARATOR, " "), description, *tags, name))


def embedded_text(path: str, heading: str, description: str, tags: Sequence[str], text: str) -> str:
    """What an embedder reads of a passage, from what is stored of it."""
    words = markup.words(text, is_mdx=path.lower().endswith(".mdx"))
    return unify(f"{about(path, heading, description, tags)}\n{words}")


def spell(vectors: "NDArray[np.float32]") -> list[str]:
    """The vectors as pgvector reads them."""
    # A halfvec keeps 3 to 4 digits. Rounded as float32, the numbers would be spelled with 17 digits.
    return [str(vector) for vector in vectors.astype("float64").round(5).tolist()]
