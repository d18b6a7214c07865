"""What a JSON Schema says of a value: its fields, its entries, whether it is one of a few words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_DEEPEST = 20


@dataclass(frozen=True)
class Shape:
    """A part of a schema. `whole` is the schema that its references point into."""

    whole: Mapping[str, Any]
    part: Any

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> "Shape":
        return cls(schema, schema)

    def fields(self) -> "Mapping[str, Shape] | None":
        """The fields that the value may have. It is None where a field may have any name."""
        found: dict[str, Shape] = {}
        for kind in self._kinds():
            if "type" not in kind and "properties" not in kind and "enum" not in kind and "const" not in kind:
                return None
            if kind.get("type") == "object" or "properties" in kind:
                if kind.get("additionalProperties") not in (None, False) or "properties" not in kind:
                    return None
                found |= {name: Shape(self.whole, part) for name, part in kind["properties"].items()}
        return found

    def find_field(self, name: str) -> "Shape":
        return (self.fields() or {}).get(name, ANYTHING)

    def entries(self) -> "Shape":
        """The shape of each entry of a list."""
        for kind in self._kinds():
            if isinstance(kind.get("items"), Mapping):
                return Shape(self.whole, kind["items"])
        return ANYTHING

    def is_word(self) -> bool:
        """Whether the value is one of a few words of the author's."""
        return any("enum" in kind or isinstance(kind.get("const"), str) for kind in self._kinds())

    def find_title(self, name: str) -> str | None:
        """The title that the author gave the field `name`, other than pydantic makes of the name itself."""
        title = self.part.get("title") if isinstance(self.part, Mapping) else None
        made = name.title().replace("_", " ").strip()
        return title if isinstance(title, str) and title != made else None

    def _kinds(self, depth: int = 0) -> Iterator[Mapping[str, Any]]:
        """The alternatives of this part, with references followed and without null."""
        if not isinstance(self.part, Mapping) or depth > _DEEPEST:
            yield {}
            return
        if isinstance(pointer := self.part.get("$ref"), str):
            target: Any = self.whole
            for key in pointer.removeprefix("#/").split("/"):
                target = target.get(key.replace("~1", "/").replace("~0", "~"), {})
            yield from Shape(self.whole, target)._kinds(depth + 1)
            return
        for several in ("anyOf", "oneOf", "allOf"):
            if several in self.part:
                for part in self.part[several]:
                    yield from Shape(self.whole, part)._kinds(depth + 1)
                return
        if self.part.get("type") != "null":
            yield self.part


ANYTHING = Shape({}, {})
"""The shape of a value of which nothing is known."""
