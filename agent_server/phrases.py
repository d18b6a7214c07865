"""The sentences that plainly ask for a tool.

A tool declares them: `@tool(phrases=["add {title} [to my [list|tasks]]"])`.

    words          as they stand; case, punctuation, spacing and kinds of apostrophes do not matter
    {argument}     one or more words, which must be valid for that argument of the tool
    [words]        may be missing
    [one|other]    either of them, or neither

A message matches when all of it does, but for courtesies around it ("could you ...", "... please"). An argument whose
schema says `format: email` is also taken from anywhere in the message. Where several phrases match, the one with the
most words of its own wins; where two tools are level, nothing matches: this never guesses.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeAlias, assert_never

from pydantic import ValidationError

from agent_server.folding import IGNORED, WORD, fold
from agent_server.tool import Tool

# The limit bounds the work, which grows with the square of the words.
_MOST_WORDS = 200
"""A longer message is not a phrase."""

_TOKEN = re.compile(WORD)
_SYNTAX = re.compile(rf"\{{[^{{}}\[\]]*\}}|[\[\]{{}}|]|{WORD}")
_EDGE = re.compile(f"^[{IGNORED}]+|[{IGNORED}]+$")
_NAME = re.compile(r"[A-Za-z_]\w*")

# What is said around a request and is not part of it.
_BEFORE = [
    ("please",), ("kindly",), ("hey",), ("hi",), ("hello",), ("ok",), ("okay",), ("just",), ("now",),
    ("can", "you"), ("could", "you"), ("would", "you"), ("will", "you"), ("i", "want", "you", "to"), ("i", "want", "to"),
    ("i", "would", "like", "you", "to"), ("i'd", "like", "you", "to"), ("i", "would", "like", "to"), ("i'd", "like", "to"),
]  # fmt: skip
_AFTER = [("please",), ("thanks",), ("thank", "you"), ("many", "thanks"), ("now",), ("for", "me")]

# Per format: what it looks like, and the words that only introduce it.
# The lengths are bounded, because a pattern without bounds takes very long on a message made to be slow.
_FORMATS = {
    "email": re.compile(
        r"(?:[,;(]?\s{0,3}\b(?:and\s{1,3})?(?:my|the)?\s{0,3}(?:e-?mail|mail|address|contact)(?:\s{1,3}address)?"
        r"\s{0,3}(?:is\b|:|=)?\s{0,3}"
        r"|[,;(]?\s{0,3}\b(?:at|via|under|to|on|by)\s{1,3})?"
        r"(?P<value>[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}\.)+[A-Za-z]{2,24})\)?",
        re.IGNORECASE,
    )
}


@dataclass(frozen=True)
class PhraseMatch:
    """The tool that a message plainly asks for. `arguments` are what the message gives, as text."""

    tool: Tool[..., Any]
    arguments: dict[str, str]


def match(message: str, tools: Iterable[Tool[..., Any]]) -> PhraseMatch | None:
    """The tool that `message` asks for by one of its phrases. It is None unless it is one tool."""
    found = [
        (words, PhraseMatch(tool, arguments))
        for tool in tools
        for words, arguments in _matches(message, _compile(tool))
    ]
    most = max((words for words, _ in found), default=0)
    # Two tools that fit equally well are no match: a wrong call does more harm than a question.
    best = [candidate for words, candidate in found if words == most]
    return best[0] if best and all(candidate.tool is best[0].tool for candidate in best) else None


def template_problems(tool: Tool[..., Any]) -> list[str]:
    """What is wrong with the phrases of `tool`."""
    return [f"phrase {phrase!r}: {problem}" for phrase in tool.phrases for problem in _problems(phrase, tool)]


# A template as a graph: each step names the step that follows it, so that a branch is a step with several followers.


@dataclass(frozen=True)
class _Word:
    word: str
    then: int


@dataclass(frozen=True)
class _Argument:
    name: str
    then: int


@dataclass(frozen=True)
class _Branch:
    then: tuple[int, ...]


@dataclass(frozen=True)
class _End:
    pass


_Step: TypeAlias = _Word | _Argument | _Branch | _End
_Node: TypeAlias = "str | tuple[str] | list[list[_Node]]"
"""What the parser makes: a word, (argument,), or the alternatives of a bracket."""


class _BadTemplate(ValueError):
    pass


@dataclass(frozen=True)
class _Phrase:
    steps: tuple[_Step, ...]
    start: int
    names: frozenset[str]
    needed: frozenset[str]


@dataclass(frozen=True)
class _Phrases:
    tool: Tool[..., Any]
    phrases: tuple[_Phrase, ...]
    formats: Mapping[str, str]


@lru_cache(maxsize=1024)
def _compile(tool: Tool[..., Any]) -> _Phrases:
    # A workspace with a bad phrase is refused when it is loaded; a phrase that is used alone must not fail here.
    good = [phrase for phrase in tool.phrases if not any(_problems(phrase, tool))]
    return _Phrases(tool, tuple(_graph(_parse(phrase)) for phrase in good), _formats(tool))


def _formats(tool: Tool[..., Any]) -> dict[str, str]:
    """The arguments that are recognised by their format."""
    found = {}
    for name, about in tool.input_schema["properties"].items():
        for kind in (about, *about.get("anyOf", ())):
            if kind.get("format") in _FORMATS:
                found[name] = kind["format"]
    return found


def _parse(template: str) -> list[_Node]:
    """Raises _BadTemplate."""
    stack: list[list[list[_Node]]] = [[[]]]
    for piece in _SYNTAX.findall(template):
        if piece == "[":
            stack.append([[]])
        elif piece == "]":
            if len(stack) == 1:
                raise _BadTemplate("a ] without its [")
            closed = stack.pop()
            if not all(closed):
                raise _BadTemplate("an alternative in [] is empty")
            stack[-1][-1].append(closed)
        elif piece == "|":
            if len(stack) == 1:
                raise _BadTemplate("| stands between alternatives inside [ ]")
            stack[-1].append([])
        elif piece in "{}":
            raise _BadTemplate(f"a {piece} without its other half")
        elif piece.startswith("{"):
            name = piece[1:-1].strip()
            if not _NAME.fullmatch(name):
                raise _BadTemplate(f"{piece} is not the name of an argument")
            stack[-1][-1].append((name,))
        else:
            stack[-1][-1].append(fold(piece))
    if len(stack) > 1:
        raise _BadTemplate("a [ without its ]")
    return stack[0][0]


def _problems(template: str, tool: Tool[..., Any]) -> Iterator[str]:
    try:
        nodes = _parse(template)
    except _BadTemplate as error:
        yield str(error)
        return
    known = tool.input_schema["properties"]
    names = list(_names(nodes))
    for name in dict.fromkeys(names):
        if name not in known:
            yield f"{tool.name} has no argument {name!r}; it has {', '.join(known) or 'none'}"
        if names.count(name) > 1:
            yield f"{{{name}}} stands in it more than once"
    if not any(isinstance(node, str) for node in nodes):
        yield "needs a word outside of [ ] and { }, else it would match nearly everything"
    if any(isinstance(a, tuple) and isinstance(b, tuple) for a, b in pairwise(nodes)):
        yield "two arguments stand side by side; put a word between them"
    for name in names:
        if known.get(name, {}).get("type") in ("array", "object"):
            yield f"{{{name}}} is not one value; a phrase gives text"
    missing = set(tool.input_schema.get("required", ())) - set(names) - set(_formats(tool))
    if missing and not tool.form:
        yield f"leaves out {', '.join(sorted(missing))}, without which {tool.name} cannot be called"


def _names(nodes: Sequence[_Node]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, tuple):
            yield node[0]
        elif isinstance(node, list):
            for alternative in node:
                yield from _names(alternative)


def _graph(nodes: Sequence[_Node]) -> _Phrase:
    # Built from the end, because each step has to know the number of the one that follows it.
    steps: list[_Step] = [_End()]

    def add(step: _Step) -> int:
        steps.append(step)
        return len(steps) - 1

    def build(nodes: Sequence[_Node], then: int) -> int:
        for node in reversed(nodes):
            match node:
                case str():
                    then = add(_Word(node, then))
                case tuple():
                    then = add(_Argument(node[0], then))
                case list():
                    then = add(_Branch((*(build(alternative, then) for alternative in node), then)))
        return then

    start = build(nodes, 0)
    return _Phrase(tuple(steps), start, frozenset(_names(nodes)), frozenset(n for n in nodes if isinstance(n, str)))


class _Message:
    """A message as words with their places in the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.spans = [found.span() for found in _TOKEN.finditer(text)]
        self.words = tuple(fold(text[start:end]) for start, end in self.spans)
        self.spoken = frozenset(self.words)

    def between(self, first: int, end: int) -> str:
        """The words first to end-1 as they were written. The signs that belong to them stay."""
        least = self.spans[first - 1][1] if first else 0
        start, stop = self.spans[first][0], self.spans[end - 1][1]
        # A "$" or "#" that touches a word belongs to the value: "$20", "#42".
        while start > least and not self.text[start - 1].isspace():
            start -= 1
        after = self.text[stop : self.spans[end][0] if end < len(self.spans) else len(self.text)]
        if end < len(self.spans):  # signs that touch the next word are the next word's
            after = after[: len(after) - len(re.split(r"\s", after)[-1])] or after.strip()
        return _unquote(_EDGE.sub("", self.text[start:stop] + after))

    def starts(self) -> Sequence[int]:
        """Where the request may begin. The place behind all courtesies comes first."""
        places = [0]
        while skipped := next((w for w in _BEFORE if self.words[places[-1] :][: len(w)] == w), None):
            places.append(places[-1] + len(skipped))
        # Behind all courtesies first: of two ways with equally many words the first wins, and "please" is no argument.
        return places[::-1]

    def ends(self) -> Sequence[int]:
        places = [len(self.words)]
        while skipped := next((w for w in _AFTER if self.words[: places[-1]][-len(w) :] == w), None):
            places.append(places[-1] - len(skipped))
        return places[::-1]


# A message is compared with the phrases of many tools, one after the other.
@lru_cache(maxsize=8)
def _read_message(text: str) -> _Message:
    return _Message(text)


def _matches(message: str, compiled: _Phrases) -> Iterator[tuple[int, dict[str, str]]]:
    """Every phrase that `message` is. Each is the number of its own words, and the arguments."""
    rest, taken = _take_formats(message, compiled.formats)
    # Without the address, "add Ann, ann@example.com" is "add {name}". The whole message is for phrases with a place
    # for the address.
    for text, given in ((rest, taken), (message, {})) if taken else ((message, {}),):
        said = _read_message(text)
        if len(said.words) > _MOST_WORDS:
            continue
        for phrase in compiled.phrases:
            if taken and bool(given) == bool(phrase.names & taken.keys()):
                continue  # a phrase with a place for the address reads the whole message, any other the rest of it
            # The comparison of sets is cheap and rules out nearly every phrase before the walk.
            if phrase.needed <= said.spoken and (found := _match(phrase, said, compiled.tool)) is not None:
                yield found[0], {**given, **found[1]}


def _take_formats(message: str, formats: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The message without the values that are known by their format. The values come beside it."""
    taken: dict[str, str] = {}
    for name, kind in formats.items():
        if found := _FORMATS[kind].search(message):
            taken[name] = found["value"].rstrip(".")
            message = f"{message[: found.start()]} {message[found.end() :]}"
    return message, taken


def _match(phrase: _Phrase, said: _Message, tool: Tool[..., Any]) -> tuple[int, dict[str, str]] | None:
    best: tuple[int, dict[str, str]] | None = None
    for end in said.ends():
        walk = _Walk(phrase.steps, said, end, tool)
        for start in said.starts():
            found = walk.best(phrase.start, start)
            if found is not None and (best is None or found[0] > best[0]):
                best = found
    return best


@dataclass
class _Walk:
    """The way through a template that uses the most of its words. It is found once for every step and word."""

    steps: Sequence[_Step]
    said: _Message
    end: int
    tool: Tool[..., Any]

    def __post_init__(self) -> None:
        # Without it, optional words would make the number of ways grow exponentially.
        self._known: dict[tuple[int, int], tuple[int, dict[str, str]] | None] = {}

    def best(self, at: int, word: int) -> tuple[int, dict[str, str]] | None:
        if (at, word) not in self._known:
            options = list(self._options(self.steps[at], word))
            self._known[at, word] = max(options, key=lambda option: option[0], default=None)
        return self._known[at, word]

    def _options(self, step: _Step, word: int) -> Iterator[tuple[int, dict[str, str]]]:
        match step:
            case _End():
                if word == self.end:
                    yield 0, {}
            case _Word(expected, then):
                if word < self.end and self.said.words[word] == expected and (rest := self.best(then, word + 1)):
                    yield rest[0] + 1, rest[1]
            case _Branch(followers):
                yield from filter(None, (self.best(follower, word) for follower in followers))
            case _Argument(name, then):
                for stop in range(word + 1, self.end + 1):
                    if (rest := self.best(then, stop)) is None:
                        continue
                    value = _check_value(self.tool, name, self.said.between(word, stop))
                    if value is not None:
                        yield rest[0], {name: value, **rest[1]}
            case _:
                assert_never(step)


def _check_value(tool: Tool[..., Any], name: str, value: str) -> str | None:
    """`value` as the argument takes it. That is as written, or in lower case where it must be one of a few words."""
    for text in dict.fromkeys((value, value.lower())):
        try:
            # Assigned to an instance without values: this checks one argument alone, while the others are not known.
            tool.arguments.__pydantic_validator__.validate_assignment(tool.arguments.model_construct(), name, text)
        except ValidationError:
            continue
        return text
    return None


def _unquote(text: str) -> str:
    """The text without the punctuation of the sentence around it.

    Quotes and brackets that hold nothing else go as well.
    """
    text = text.strip().lstrip(",;:.!?…").rstrip(",;:.!?… –—").strip()
    for opening, closing in ('""', "''", "“”", "‘’", "«»", "„“", "()", "``"):
        inner = text.removeprefix(opening).removesuffix(closing)
        whole = text.startswith(opening) and text.endswith(closing) and len(text) > 1
        if whole and opening not in inner and closing not in inner:
            return inner.strip() or text
        # Half a pair: the other half was outside of the argument.
        if text.startswith(opening) and closing not in text[1:]:
            return text[1:]
        if text.endswith(closing) and opening not in text[:-1]:
            return text[:-1]
    return text
