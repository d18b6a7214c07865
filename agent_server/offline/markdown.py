"""An answer as Markdown: its quotes with the headings above them and their citations."""

import re
from collections.abc import Sequence

from agent_server.offline.pieces import Piece

# Below such a title a quote would say the opposite without it.
_NEGATES = re.compile(
    r"\b(?:not|never|no|nothing|without|except\w*|forbidden|prohibited|banned|avoid|only|wrong|mistakes?|"
    r"nicht\w*|kein\w*|nie|ohne|außer|verboten\w*|ausnahmen?|nur|fehler|nunca|sin|prohibido|errores|jamais|sans|interdits?|erreurs)\b|n't\b",
    re.IGNORECASE,
)
INTRODUCTION = "From the content:"


def write_answer(answers: Sequence[tuple[str, Sequence[Sequence[Piece]]]]) -> str:
    """The quotes for each part of a question; a part with none says so."""
    if len(answers) == 1:
        return f"{INTRODUCTION}\n\n{_quotes(answers[0][1])}"
    blocks = []
    for part, quotes in answers:
        title = f"**{_title(part)}**"
        blocks.append(f"{title}\n\n{_quotes(quotes)}" if quotes else f"{title}\n\nThe content has nothing on this.")
    return f"{INTRODUCTION}\n\n" + "\n\n".join(blocks)


def write_quote(pieces: Sequence[Piece]) -> str:
    """The pieces of one quote in their order."""
    return "\n".join(f"> {line}".rstrip() for line in _lines(pieces))


def _quotes(quotes: Sequence[Sequence[Piece]]) -> str:
    return "\n\n".join(map(write_quote, quotes))


def _title(part: str) -> str:
    part = re.sub(r"^(and|but|or|so|also)\s+", "", part, flags=re.IGNORECASE).rstrip(" ?.!")
    return f"{part[:1].upper()}{part[1:]}?"


def _below(before: Sequence[str], path: Sequence[str]) -> Sequence[str]:
    """The headings of a path that do not stand above what was quoted before."""
    same = next((i for i, (a, b) in enumerate(zip(before, path, strict=False)) if a != b), min(len(before), len(path)))
    return path[same:] or path[-1:]


def _lines(pieces: Sequence[Piece]) -> list[str]:
    """A quote as lines: the path of headings, the pieces in their order, the citation."""
    path = pieces[0].path
    lines = [f"**{' › '.join(path)}**"] if len(path) > 1 or _NEGATES.search(path[0]) else []
    before: Piece | None = None
    for piece in pieces:
        if before is not None and before.section != piece.section:
            lines += ["", f"**{' › '.join(_below(before.path, piece.path))}**"]
        same = before is not None and before.block == piece.block
        if same and piece.kind == "text":
            lines[-1] += f" {piece.text}"
        else:
            lines += [] if same or not lines else [""]
            indent = "   " * piece.depth
            first, *rest = piece.text.splitlines()
            lines.append(f"{indent}{piece.marker} {first}" if piece.marker else first)
            lines += [f"{indent}   {line}" if piece.marker else line for line in rest]
        before = piece
    if pieces[-1].kind == "code" or pieces[-1].text.endswith(("```", "~~~")):
        return [*lines, "", f"[{pieces[-1].n}]"]
    return [*lines[:-1], f"{lines[-1]} [{pieces[-1].n}]"]
