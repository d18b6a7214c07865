"""The numbered passages that the answer of a turn may cite."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_server.calls.ledger import CallOutcome, outcome_text
from agent_server.knowledge.passages import CitedPassage, Passage, passage_body, passage_of
from agent_server.knowledge.tools import Passages
from agent_server.tool import Tool
from agent_server.turns.events import Event, PassagesFound

_CITATION = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")
_NUMBERED = re.compile(r'"citation": ?(\d{1,3})\b')


@dataclass(frozen=True)
class Past:
    """What a model reads of earlier turns: the passages that are `cited` there, by number, and the `last` number."""

    cited: Mapping[int, CitedPassage] = field(default_factory=dict)
    last: int = 0


def find_last(bodies: Iterable[Mapping[str, Any]]) -> int:
    """The last number that the items of earlier turns have for a passage, as models read them; 0 where there is none."""
    numbers = [0]
    for body in bodies:
        if body.get("role") == "assistant" and isinstance(said := body.get("content"), str):
            numbers += [int(n) for group in _CITATION.findall(said) for n in group.split(",")]
        elif body.get("type") == "function_call_output" and isinstance(told := body.get("output"), str):
            numbers += map(int, _NUMBERED.findall(told))
    return max(numbers)


def read_past(bodies: Iterable[Mapping[str, Any]], sources: Iterable[Mapping[str, Any]]) -> Past:
    """What the items and the sources of the answers of earlier turns say of numbers. One that stands for several
    passages there stands for none here."""
    found: dict[int, dict[str, CitedPassage]] = {}
    for source in sources:
        passage = passage_of(source)
        found.setdefault(source["n"], {})[passage.id] = CitedPassage(source["n"], passage)
    cited = {n: one for n, some in found.items() if len(some) == 1 for one in some.values()}
    return Past(cited, max([find_last(bodies), *found]))


class Citations:
    """Numbers passages in the order in which they are found. A passage keeps its number.

    `events` are those of earlier attempts: a takeover must give the numbers that the model has read already. `past` is
    what the model reads of earlier turns: those numbers stand for the same as there, and new ones come after them.
    """

    def __init__(self, events: Iterable[Event] = (), past: "Past | None" = None) -> None:
        self._past = past or Past()
        self._by_passage: dict[str, CitedPassage] = {}
        self._of_agent: dict[str | None, list[CitedPassage]] = {}
        self._unlogged: list[PassagesFound] = []
        for event in events:
            if isinstance(event, PassagesFound):
                cited = [CitedPassage(p["n"], passage_of(p)) for p in event.passages]
                self._by_passage.update({c.passage.id: c for c in cited})
                if event.agent is not None:
                    self._of_agent[event.agent] = cited

    def number(self, passages: Sequence[Passage]) -> list[CitedPassage]:
        """`passages` with their numbers."""
        earlier = {cited.passage.id: n for n, cited in self._past.cited.items()}
        for passage in passages:
            if passage.id not in self._by_passage:
                last = max((cited.n for cited in self._by_passage.values()), default=0)
                n = earlier.get(passage.id) or max(last, self._past.last) + 1
                self._by_passage[passage.id] = CitedPassage(n, passage)
        return [self._by_passage[passage.id] for passage in passages]

    def keep_for(self, agent: str | None, passages: Sequence[Passage]) -> list[CitedPassage]:
        """Number what was looked up for an agent, or for an answer alone. The next write of the log carries it."""
        cited = self._of_agent[agent] = self.number(passages)
        self._unlogged.append(PassagesFound([passage_body(c) for c in cited], agent))
        return cited

    def find_for(self, agent: str) -> list[CitedPassage] | None:
        """What was looked up for an agent. None where nothing was looked up yet."""
        return self._of_agent.get(agent)

    def take_unlogged(self) -> list[PassagesFound]:
        """The events that the next write of the log has to carry."""
        events, self._unlogged = self._unlogged, []
        return events

    @property
    def known(self) -> frozenset[int]:
        """The numbers that an answer may cite."""
        return frozenset({cited.n for cited in self._by_passage.values()} | self._past.cited.keys())

    def find_cited(self, text: str) -> list[CitedPassage]:
        """The passages that a text cites in the order of the text. Those of earlier turns are found in this one by it."""
        known = {**self._past.cited} | {cited.n: cited for cited in self._by_passage.values()}
        numbers = [int(n) for group in _CITATION.findall(text) for n in group.split(",")]
        # A quote of the content may have a number in it that stands for something else.
        cited = [known[n] for n in dict.fromkeys(numbers) if n in known]
        if again := [c for c in cited if c.passage.id not in self._by_passage]:
            self._by_passage |= {c.passage.id: c for c in again}
            self._unlogged.append(PassagesFound([passage_body(c) for c in again]))
        return cited

    def render(self, tool: Tool[..., Any], outcome: CallOutcome) -> tuple[str, Sequence[Event]]:
        """What the model reads of a call's outcome. The events go into the log with it.

        Each passage of a result gets its number, whichever tool has returned it. The same outcome renders to the same
        text each time, so that a takeover tells the model what is stored.
        """
        # A call that waits for its user's word has a question in place of its result.
        if outcome.error is not None or not tool.has_result(Passages) or "hits" not in outcome.output:
            return outcome_text(outcome), ()
        cited = self.number([Passage(**hit) for hit in outcome.output["hits"]])
        listed = [{"citation": c.n, "heading": c.passage.heading, "text": c.passage.text} for c in cited]
        # All of them, known ones too: the event must say what the numbers of this very result stand for.
        events = [PassagesFound([passage_body(c) for c in cited])] if cited else []
        return outcome_text(CallOutcome({**outcome.output, "hits": listed})), events
