"""The source of a prompt as it is stored with requests."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from agent_server.db import Executor
from agent_server.prompts import AgentPrompt
from agent_server.prompts.inputs import Input
from agent_server.requests.instructions import Told
from agent_server.turns.requests import STORED, TEXTS, expand

STORED_FILE = "stored with requests"
"""What stands for the file of a prompt that is stored."""


def source_of(prompt: AgentPrompt) -> dict[str, Any]:
    """What `render_source` needs of a prompt, as JSON-ready data, and the shape of its answers."""
    source: dict[str, Any] = {"name": prompt.name, "sha": prompt.sha, "body": prompt.body}
    if prompt.parts:
        source["parts"] = dict(prompt.parts)
    if prompt.inputs:
        source["inputs"] = {
            name: declared.model_dump(mode="json", exclude_unset=True) for name, declared in prompt.inputs.items()
        }
    if prompt.output:
        source["shape"] = prompt.output.schema
    return source


def prompt_of(source: Mapping[str, Any]) -> AgentPrompt:
    """The prompt of a source, with the text and the inputs alone: of its front matter no more is stored."""
    return AgentPrompt(
        name=source["name"],
        description="",
        tools=(),
        knowledge=None,
        model=None,
        examples=(),
        handoffs=(),
        body=source["body"],
        sha=source["sha"],
        file=STORED_FILE,
        parts=source.get("parts", {}),
        inputs={name: Input.model_validate(declared) for name, declared in source.get("inputs", {}).items()},
    )


def render_source(source: Mapping[str, Any], told: Told) -> str:
    """The prompt as it was rendered when its agent was told this. Raises ModelFailed where it does not render."""
    return prompt_of(source).render(profile=told.profile, today=told.today, inputs=told.inputs)


async def find_prompt(session: Executor, owner_id: UUID, turn_id: UUID, sha: str) -> AgentPrompt | None:
    """The prompt with this hash that a model was sent in a turn. None where that is past retention."""
    turn = (await session.execute(STORED, {"owner_id": owner_id, "id": turn_id})).one_or_none()
    if turn is None:
        return None
    keys = sorted({recipe["f"] for recipe in expand(turn.requests).values()})
    values = {"owner_id": owner_id, "conversation_id": turn.conversation_id, "keys": keys}
    frames = [json.loads(row.text) for row in await session.execute(TEXTS, values)]
    return next((prompt_of(frame["prompt"]) for frame in frames if frame["prompt"]["sha"] == sha), None)
