"""What is known of the agents before a message comes."""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_server.knowledge.chunk import SEPARATOR, chunk
from agent_server.knowledge.parse import read_content
from agent_server.late import Late
from agent_server.routing.scores import Floats
from agent_server.tool import Tool

if TYPE_CHECKING:
    import numpy as np
else:
    np = Late("numpy")

# Chosen on the sets in bench/routing_sets, on new splits of each into examples and messages.
# What a text counts for; an example is 1.
DESCRIPTION, _PHRASE, _HEADING = 2.0, 0.5, 0.3
# Where there is content, its headings say what the topics of a description say.
_TOPIC, _TOPIC_WITH_CONTENT = 1.0, 0.5
MOST_HEADINGS = 600
"""What is read of a large content; the rest says the same about which collection is about what."""


@dataclass(frozen=True)
class RoutedAgent:
    """An agent as the router knows it.

    `knowledge` are its collections, its main one first (None: all), `tools` the tools whose phrases are asked of it.
    """

    name: str
    description: str
    examples: Sequence[str] = ()
    knowledge: Sequence[str] | None = ()
    tools: Sequence[Tool[..., Any]] = ()


@dataclass(frozen=True)
class Subject:
    """A section of the content. It tells what its collection is about."""

    collection: str
    heading: str
    text: str


def subjects(content: Path, without: Collection[str] = ()) -> list[Subject]:
    """The sections of the content folder, save those of its folders that `without` names. Pages with mistakes are left
    out, and documents that take long to read."""
    pages, _ = read_content(content, documents=False, without=without)
    return [
        Subject(page.collection, piece.heading.replace(SEPARATOR, " "), piece.text)
        for page in pages
        for piece in chunk(page)
    ]


@dataclass(frozen=True)
class Sample:
    """A text and for whom it speaks. `label` has a share for each agent, 1 in all."""

    text: str
    label: Floats
    weight: float
    is_example: bool = False
    is_heading: bool = False


def list_samples(agents: Sequence[RoutedAgent], content: Sequence[Subject]) -> list[Sample]:
    samples = []
    owners = owners_of(agents)  # a tool that several agents have says nothing about which of them is meant
    for agent, label in zip(agents, np.eye(len(agents)), strict=True):
        topics = [t for t in re.split(r"[,;:.\n]| and ", agent.description) if t.strip()]
        asked = [
            p
            for tool in agent.tools
            if tool in owners
            for p in (tool.description.partition("\n")[0], *map(_bare, tool.phrases))
        ]
        samples += [Sample(text, label, 1.0, True) for text in agent.examples]
        samples += [Sample(agent.description, label, DESCRIPTION)]
        samples += [Sample(text, label, _TOPIC_WITH_CONTENT if content else _TOPIC) for text in topics]
        samples += [Sample(text, label, _PHRASE) for text in dict.fromkeys(asked)]
    headings = {subject.heading: subject.collection for subject in content}
    shares = shares_of(agents)
    # Every n-th heading and not the first ones: each collection keeps its share.
    kept = list(headings.items())[:: math.ceil(len(headings) / MOST_HEADINGS) or 1]
    return samples + [Sample(text, shares(collection), _HEADING, is_heading=True) for text, collection in kept]


def _bare(phrase: str) -> str:
    """A phrase without its arguments and signs."""
    return re.sub(r"\{[^}]*\}|[\[\]|]", " ", phrase)


def shares_of(agents: Sequence[RoutedAgent]) -> Any:
    """Collection -> for whom it speaks. It speaks for those that answer from it, more for one that names it earlier."""

    def shares(collection: str) -> Floats:
        weights = np.array([_claim(agent.knowledge, collection) for agent in agents])
        # A collection that no agent answers from speaks for all of them alike.
        return weights / weights.sum() if weights.any() else np.full(len(agents), 1 / len(agents))

    return shares


def _claim(knowledge: Sequence[str] | None, collection: str) -> float:
    if knowledge is None:
        # An agent for all collections is for none in particular: others name the ones that they are for.
        return 0.25
    return 1 / (1 + list(knowledge).index(collection)) if collection in knowledge else 0.0


def owners_of(agents: Sequence[RoutedAgent]) -> Mapping[Tool[..., Any], int]:
    """The tools that one agent alone has with the agent's place."""
    owners: dict[Tool[..., Any], int] = {}
    count = Counter(tool for agent in agents for tool in agent.tools)
    for place, agent in enumerate(agents):
        owners.update({tool: place for tool in agent.tools if count[tool] == 1})
    return owners


def section_text(subject: Subject) -> str:
    """What a section is compared by. Its heading counts twice."""
    # The search also counts a word of the heading twice.
    return f"{subject.heading} {subject.heading}\n{subject.text}"
