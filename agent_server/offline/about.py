"""What an assistant says of itself, and what it answers to small talk without a language model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent_server.knowledge.search import CollectionSummary
from agent_server.offline.small_talk import Kind
from agent_server.wording import count
from agent_server.workspace import Workspace

SUGGESTIONS = 3
_MOST_COLLECTIONS = 8
# A description that begins with what its agent does can follow the agent's name.
_DOES = re.compile(
    r"(answers|handles|helps|keeps|gives|finds|explains|knows|plans|books|shows|tells|looks|manages|writes|"
    r"makes|sells|advises|recommends|compares|tracks|teaches|covers|reads|searches|greets)\b",
    re.IGNORECASE,
)
_MODE = "I answer in the words of the content, and show where they are from"


@dataclass(frozen=True, kw_only=True)
class About:
    """An assistant as it describes itself: its agents with what each does, what its content covers, what one may ask."""

    name: str = "the assistant"
    agents: Sequence[tuple[str, str]] = ()
    collections: Sequence[CollectionSummary] = ()
    suggestions: Sequence[str] = ()

    def facts(self) -> dict[str, Any]:
        """What a language model is told, so that it can say so itself."""
        return {
            "name": self.name,
            "specialists": dict(self.agents),
            "content": {c.title: [count(c.pages, "page"), *c.titles] for c in self.collections},
            "examples_of_questions": list(self.suggestions),
        }


def describe(workspace: Workspace, name: str, collections: Sequence[CollectionSummary]) -> About:
    """The assistant of a workspace with what its caller may read of the content."""
    examples = list(workspace.suggestions) or [f"Tell me about {c.titles[0]}" for c in collections if c.titles]
    return About(
        name=name,
        agents=[(agent.title, agent.description) for agent in workspace.specialists],
        collections=collections,
        suggestions=examples[:SUGGESTIONS],
    )


def reply_to(kind: Kind, about: About, *, configured: bool) -> str:
    """The answer to small talk. `configured` says that there is a language model, which cannot answer now."""
    why = "My language model is not available just now" if configured else "No language model is set up"
    match kind:
        case "greeting":
            said = [f"Hello. This is **{about.name}**. {_MODE}.", *_abilities(about), *_suggestions(about)]
        case "about":
            said = [f"This is **{about.name}**. {_MODE}.", *_abilities(about), *_suggestions(about)]
        case "robot":
            said = [f"I am a program and not a person. {why}: {_MODE}.", *_suggestions(about)]
        case "wellbeing":
            said = ["All is well here, thank you.", *_suggestions(about)]
        case "insult":
            said = [
                "I am sorry that this was of no help. Say it in other words, and I will look again.",
                *_suggestions(about),
            ]
        case "thanks":
            said = ["You are welcome. Ask me whenever there is more."]
        case "farewell":
            said = ["Goodbye, and come back whenever you like."]
        case "agreement":
            said = ["Good. What else would you like to know?"]
    return "\n\n".join(said)


def _abilities(about: About) -> list[str]:
    said: list[str] = []
    if about.agents:
        agents = [_sentence(name, description) for name, description in about.agents]
        said += [agents[0]] if len(agents) == 1 else ["What I can do:", "\n".join(f"- {agent}" for agent in agents)]
    if about.collections:
        lines = [f"- **{c.title}**: {_titles(c)}" for c in about.collections[:_MOST_COLLECTIONS]]
        if (more := len(about.collections) - _MOST_COLLECTIONS) > 0:
            lines.append(f"- and {more} more")
        said += ["What the content covers:", "\n".join(lines)]
    return said


def _suggestions(about: About) -> list[str]:
    if not about.suggestions:
        return []
    return ["Try one of these:", "\n".join(f"- {question}" for question in about.suggestions)]


def _sentence(name: str, description: str) -> str:
    text = " ".join(description.split())
    # "Takes" is what a router reads of an agent.
    text = re.sub(r"^takes\s+(\w)", lambda found: found[1].upper(), text, flags=re.IGNORECASE)
    return f"**{name}** {text[:1].lower()}{text[1:]}" if _DOES.match(text) else f"**{name}**: {text}"


def _titles(collection: CollectionSummary) -> str:
    more = collection.pages - len(collection.titles)
    return "; ".join(collection.titles) + (f"; and {more} more" if more > 0 else "")
