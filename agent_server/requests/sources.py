"""The source of a prompt as it is stored with requests."""

from collections.abc import Mapping
from typing import Any

from agent_server.prompts import AgentPrompt
from agent_server.prompts.inputs import Input
from agent_server.requests.instructions import Told


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
        parts=source.get("parts", {}),
        inputs={name: Input.model_validate(declared) for name, declared in source.get("inputs", {}).items()},
    )
    return prompt.render(profile=told.profile, today=told.today, inputs=told.inputs)
