"""An agent as its file declares it, and which of its versions takes a conversation."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from agent_server.errors import ModelFailed
from agent_server.prompts.inputs import Input, fill_inputs
from agent_server.prompts.output import Output
from agent_server.prompts.templates import TEMPLATE_FAILS, VARIABLES, Known, compile_template, write_plainly

_STEPS = 10_000
"""Of so many equal parts of all conversations a share is made up: it is a percentage with two digits behind the point."""


@dataclass(frozen=True, kw_only=True)
class AgentPrompt:
    """An agent as its file declares it. `sha` identifies the file's text with all that it includes; every message it
    makes carries it, and `version`.

    `parts` are the files that the body includes, by name. `candidates` are other versions of this agent, each with the
    `share` of conversations that it takes, in percent. With `rephrase` its answers are quotes, which its model says in its
    own words. `temperature` is the model's, `max_turns` the most model calls
    of this agent in a turn, and `output` what its answers have to be where they are data. `mcp` says whether MCP clients
    are offered it as a prompt, and whether it is nothing else.
    """

    name: str
    description: str
    tools: tuple[str, ...]
    knowledge: tuple[str, ...] | None
    model: str | None
    examples: tuple[str, ...]
    handoffs: tuple[str, ...]
    body: str
    sha: str
    file: str
    lines: Mapping[str, int] = field(default_factory=dict)
    version: str | None = None
    temperature: float | None = None
    max_turns: int | None = None
    inputs: Mapping[str, Input] = field(default_factory=dict)
    output: Output | None = None
    rephrase: bool = False
    mcp: bool | Literal["only"] = False
    share: float | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    candidates: Sequence["AgentPrompt"] = ()

    @property
    def versions(self) -> Sequence["AgentPrompt"]:
        """This and the candidates."""
        return [self, *self.candidates]

    @property
    def title(self) -> str:
        return self.name.replace("_", " ").replace("-", " ").capitalize()

    def render(
        self,
        *,
        profile: Mapping[str, Any] = VARIABLES["profile"],
        today: str = VARIABLES["today"],
        inputs: Mapping[str, Any] | None = None,
    ) -> str:
        """The instructions. `inputs` are those that a request has given.

        Raises InvalidInput with all inputs that are missing, and ModelFailed when the template fails with these values.
        """
        values = fill_inputs(self.name, self.inputs, inputs or {}, profile) if self.inputs else {}
        try:
            template = compile_template(self.body, tuple(self.parts.items()))
            return str(template.render(values, profile=Known(profile), today=write_plainly(today)))
        except TEMPLATE_FAILS as error:
            raise ModelFailed(f"The prompt of {self.name} does not render: {error}") from error

    def choose(self, conversation_id: UUID) -> "AgentPrompt":
        """This version or the candidate that takes a conversation. It is the same one on every replica, and in every
        turn until the shares change."""
        if not self.candidates:
            return self
        # With the name: the candidates of two agents must not always meet in the same conversations.
        digest = hashlib.sha256(f"{self.name}:{conversation_id}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") % _STEPS
        for candidate in self.candidates:
            place -= round((candidate.share or 0) * _STEPS / 100)
            if place < 0:
                return candidate
        return self
