"""The embedders of a process: that of the settings, those that collections name, and those whose vectors still serve."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent_server.errors import InvalidInput
from agent_server.knowledge.embedders.base import DENSE_WEIGHT, Embedder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MadeBy = Mapping[str, Any]
"""How an embedder is opened: `name`, and for one elsewhere `model`, `url`, `dimensions`, `weight`. Never its key."""
Open = Callable[[MadeBy], Embedder]


class Embedders:
    """The embedder of the settings, which opens others as they are asked for. One that was opened is kept."""

    def __init__(self, default: Embedder, open: Open) -> None:
        self.default, self._open = default, open
        self._opened: dict[str, Embedder] = {}

    @property
    def name(self) -> str:
        return self.default.name

    @property
    def dimensions(self) -> int:
        return self.default.dimensions

    @property
    def weight(self) -> float:
        return weight_of(self.default)

    @property
    def is_cached(self) -> bool:
        return bool(getattr(self.default, "is_cached", False))

    async def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        return await self.default.embed(texts)

    def open(self, made_by: MadeBy) -> Embedder:
        """The embedder that is opened so. Raises InvalidInput where it cannot be."""
        key = repr(sorted(made_by.items()))
        if key not in self._opened:
            same = dict(made_by) == dict(describe(self.default))
            self._opened[key] = self.default if same else self._open(made_by)
        return self._opened[key]

    def find(self, name: str, made_by: MadeBy) -> Embedder | None:
        """The embedder that makes the vectors of this name; None where it is there no more."""
        if name == self.default.name:
            return self.default
        try:
            found = self.open(made_by)
        except InvalidInput:
            return None
        return found if found.name == name else None


def weight_of(embedder: Embedder) -> float:
    """What the cosine of its vectors counts for beside the words."""
    return float(getattr(embedder, "weight", DENSE_WEIGHT))


def describe(embedder: Embedder) -> MadeBy:
    """How an embedder can be opened again."""
    if isinstance(embedder, Embedders):
        embedder = embedder.default
    made_by: MadeBy | None = getattr(embedder, "made_by", None)
    kind = type(embedder)
    return made_by or {"name": f"{kind.__module__}:{kind.__qualname__}"}
