"""What an embedder is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_DIMENSIONS = 16_000
"""What a column of pgvector's `halfvec` can store."""
# nDCG@10 over eight collections is .673; .4 and .7 give .671. Rank fusion loses .05, the best `ts_rank` has .591.
DENSE_WEIGHT = 0.5
"""What the cosine counts for of an embedder that has no `weight`: that of WordLlama."""


@runtime_checkable
class Embedder(Protocol):
    """Texts to vectors whose dot product says how near two texts are in meaning.

    It may have a `weight`, what the cosine counts for beside the words, and `async def embed_question(question)`, where the
    vector of a question is another one than that of a passage.
    """

    @property
    def name(self) -> str:
        """The name of the vectors. Pages are embedded again when it changes."""

    @property
    def dimensions(self) -> int:
        """The length of every vector."""

    async def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """A row for each text in the shape (len(texts), dimensions).

        A row has the length 1, or is all zeros for a text without tokens. The event loop stays free meanwhile.
        """
        ...  # a body, or type checkers ask for a return


def check_vectors(embedder: Embedder, vectors: "NDArray[np.float32]", texts: Sequence[str]) -> None:
    """Raises ValueError unless there is a vector of the promised size for each text."""
    promised = (len(texts), embedder.dimensions)
    if vectors.shape != promised:
        raise ValueError(f"the embedder {embedder.name} promises the shape {promised} and gave {vectors.shape}")
