"""Tools for a diver's profile: what the agents know of the caller."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, JsonValue

import agent_server
from agent_server import InvalidInput, ToolContext, tool
from tools.diving.arguments import OwnLevel

PROFILE = """
{% for key in profile %}
- {{ key | words | capitalize }}: {{ profile[key] | words }}
{% else %}
Nothing is known of you as a diver yet. Tell me, for example: I have 40 dives.
{% endfor %}
"""
"""How a profile reads."""


class ProfileView(BaseModel):
    """What is known of the caller: level, dives, conditions, and whatever else was stored; empty if nothing is."""

    profile: dict[str, JsonValue]


@tool(
    scope="profile:read",
    effect="read",
    phrases=("what do you know about me", "show [me] my [diver|diving] profile"),
    result=PROFILE,
)
async def read_profile(context: ToolContext) -> ProfileView:
    """Read what is known of the user as a diver: level, number of dives, conditions."""
    return ProfileView(profile=await agent_server.read_profile(context.session, context.caller))


@tool(
    scope="profile:write",
    effect="stored",
    phrases=(
        "remember that i am [a|an] {level} diver",
        "remember that i have {dives} [logged] dives",
        "my level is {level}",
        "my certification is {level}",
        "i have [logged|done] {dives} [logged] dives",
    ),
    result=f"This is what I will remember:\n{PROFILE}",
)
async def update_profile(
    context: ToolContext,
    level: OwnLevel | None = None,
    dives: Annotated[int | None, Field(ge=0, le=100_000, description="How many dives are logged.")] = None,
    conditions: Annotated[
        str | None,
        Field(
            min_length=1, max_length=500, description="What the diver is used to or wants: cold water, currents, ..."
        ),
    ] = None,
    forget: Annotated[
        Sequence[Literal["level", "dives", "conditions"]], Field(max_length=3, description="What to forget.")
    ] = (),
) -> ProfileView:
    """Remember what the user said of themselves as a diver. What is not given stays as it was."""
    given: dict[str, Any] = {"level": level, "dives": dives, "conditions": conditions}
    changes = {name: value for name, value in given.items() if value is not None}
    if both := changes.keys() & set(forget):
        raise InvalidInput(f"{', '.join(sorted(both))}: either give a new value or forget it")
    changes |= dict.fromkeys(forget)
    if not changes:
        raise InvalidInput("There is nothing to remember; give level, dives, conditions or forget")
    return ProfileView(profile=await agent_server.update_profile(context.session, context.caller, changes))
