"""What an attempt writes with its next write."""

from dataclasses import dataclass, field
from typing import Any

from agent_server.conversations.items import NewItem
from agent_server.turns.events import Event


@dataclass
class Held:
    """What goes with the next write. `acts` are rows of the audit, `response` is that of the journal."""

    events: list[Event] = field(default_factory=list)
    items: list[NewItem] = field(default_factory=list)
    acts: list[dict[str, Any]] = field(default_factory=list)
    response: dict[str, Any] | None = None

    @property
    def is_empty(self) -> bool:
        return self.response is None and not (self.events or self.items or self.acts)

    def before(self, later: "Held") -> "Held":
        """This and what was held after it."""
        return Held(
            self.events + later.events,
            self.items + later.items,
            self.acts + later.acts,
            self.response or later.response,
        )
