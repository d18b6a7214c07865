"""The source of a prompt as it is stored with requests."""

from collections.abc import Mapping
from typing import Any

from agent_server.prompts import AgentPrompt
from agent_server.requests.instructions import Told


def source_of(prompt: AgentPrompt) -> dict[str, Any]:
    """What `render_source` needs of a prompt, as JSON-ready data."""
    return {"name": prompt.name, "sha": prompt.sha, "body": prompt.body}


def render_source(source: Mapping[str, Any], told: Told) -> str:
    """The prompt as it was rendered when its agent was told this. Raises ModelFailed where it does not render."""
    prompt = AgentPrompt(
        name=source["name"],
        description="",
        tools=(),
        knowledge=None,
        model=None,
        examples=(),
        handoffs=(),
        body=source["body"],
        sha=source["sha"],
        file="",
    )
    return prompt.render(profile=told.profile, today=told.today)
