"""No pattern of ours takes longer than its text is long, whatever the text is made of."""

import re
from collections.abc import Iterator
from importlib import import_module
from itertools import product
from pathlib import Path
from pkgutil import walk_packages
from re import _parser
from time import process_time
from typing import Any

import pytest

import agent_server
import tools

OF_A_CLASS = {"CATEGORY_SPACE": " ", "CATEGORY_DIGIT": "1", "CATEGORY_NOT_WORD": "?"}
SEARCHES = ("search", "sub", "finditer", "findall", "split")
BY_AUTHORS = ("agent_server.front_matter", "agent_server.knowledge.markup", "agent_server.knowledge.parse")
"""Read what whoever runs the server has put into content/ and prompts/, and no caller."""
LONG = 1_600
LONGEST_READ = {"agent_server.offline.small_talk": 400}
"""Characters of the longest text that the patterns of a module are given, where it looks at no longer ones."""


def find_patterns() -> Iterator[tuple[str, re.Pattern[Any], str, int]]:
    """Every pattern that a module keeps, by its name, with the source of its module and the length of its longest text."""
    for package in (agent_server, tools):
        for found in walk_packages(package.__path__, f"{package.__name__}."):
            if ".testing" in found.name or "scaffold" in found.name or found.name.endswith("__main__"):
                continue
            module = import_module(found.name)
            for name, value in vars(module).items():
                kept = value.items() if isinstance(value, dict) else [("", value)]
                for key, pattern in kept:
                    if isinstance(pattern, re.Pattern) and found.name not in BY_AUTHORS:
                        source = Path(str(module.__file__)).read_text()
                        if re.search(rf"^{name}\b.* = ", source, re.MULTILINE):
                            longest = LONGEST_READ.get(found.name, LONG)
                            yield f"{found.name}.{name}{key}", pattern, source, longest


def pieces_of(tree: Any) -> Iterator[str]:
    """A character of everything that a pattern looks for."""
    for operation, value in tree:
        match str(operation):
            case "LITERAL":
                yield chr(value)
            case "NOT_LITERAL" | "ANY":
                yield "a"
            case "IN" if str(value[0][0]) == "NEGATE":
                yield "a"
            case "IN":
                for kind, of_it in value:
                    if str(kind) == "CATEGORY":
                        yield OF_A_CLASS.get(str(of_it), "a")
                    else:
                        yield chr(of_it if str(kind) == "LITERAL" else of_it[0])
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                yield from pieces_of(value[2])
            case "SUBPATTERN":
                yield from pieces_of(value[3])
            case "ATOMIC_GROUP":
                yield from pieces_of(value)
            case "ASSERT" | "ASSERT_NOT":
                yield from pieces_of(value[1])
            case "BRANCH":
                for branch in value[1]:
                    yield from pieces_of(branch)


def fragments(pattern: re.Pattern[Any]) -> Iterator[str]:
    tree = _parser.parse(pattern.pattern, pattern.flags & re.VERBOSE)
    letters = list(dict.fromkeys(pieces_of(tree)))
    # Letters of words are alike; signs are what repetitions are made of.
    few = sorted(letters, key=str.isalpha)[:4]
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    words = list(dict.fromkeys(re.findall(r"[A-Za-z]{2,10}", text)))[:4]
    yield from letters[:8]
    yield from map("".join, product(few, repeat=2))
    yield from (word + sign for word in words for sign in (" ", few[0]))


def cost(pattern: re.Pattern[Any], how: str, piece: str, length: int) -> float:
    text: Any = (piece * length)[:length] + "\x01"
    if isinstance(pattern.pattern, bytes):
        text = text.encode("latin-1", "replace")
    start = process_time()
    if how == "search":
        for _ in pattern.finditer(text):
            pass
    else:
        getattr(pattern, how)(text)
    return process_time() - start


@pytest.mark.parametrize(
    ("pattern", "source", "name", "longest"),
    [
        pytest.param(pattern, source, name.rpartition(".")[2], longest, id=name)
        for name, pattern, source, longest in find_patterns()
    ],
)
def test_a_pattern_takes_time_in_proportion_to_its_text(
    pattern: re.Pattern[Any], source: str, name: str, longest: int
) -> None:
    used = set(re.findall(rf"\b{re.escape(name.partition('[')[0])}\.(\w+)\(", source))
    hows = {how if how in ("match", "fullmatch") else "search" for how in used} or {"search"}
    for how, piece in product(sorted(hows), dict.fromkeys(fragments(pattern))):
        longer = cost(pattern, how, piece, longest)
        # A square has sixteen times the cost of four times the text.
        if longer > 0.005:
            assert longer < 10 * min(cost(pattern, how, piece, longest // 4) for _ in range(3)), (how, piece)


def test_a_pattern_that_takes_the_square_is_found() -> None:
    with pytest.raises(AssertionError):
        test_a_pattern_takes_time_in_proportion_to_its_text(re.compile(r"\W*(?:and)?\W*what"), "x.match()", "x", LONG)
