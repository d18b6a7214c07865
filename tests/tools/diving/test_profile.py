"""What is known of a diver: their own, merged, and forgotten on request."""

from typing import Any

import pytest

from agent_server import Forbidden, InvalidInput, Tool, update_profile
from agent_server.calls.call import Runtime
from agent_server.phrases import match, template_problems
from tests.tools.conftest import Tools, everything
from tools.diving import profile
from tools.diving.profile import read_profile

TOOLS: tuple[Tool[..., Any], ...] = (read_profile, profile.update_profile)


async def test_another_callers_profile_is_neither_read_nor_changed(mine: Tools, theirs: Tools) -> None:
    await theirs(profile.update_profile, level="advanced")
    assert await mine(read_profile) == {"profile": {}}
    await mine(profile.update_profile, level="Open Water")
    assert await theirs(read_profile) == {"profile": {"level": "advanced"}}


async def test_a_caller_without_the_scope_is_refused(mine: Tools) -> None:
    with pytest.raises(Forbidden, match="profile:write"):
        await mine.limited_to("profile:read")(profile.update_profile, dives=1)
    with pytest.raises(Forbidden, match="profile:read"):
        await mine.limited_to("profile:write")(read_profile)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"forget": []},
        {"dives": -1},
        {"dives": 100_001},
        {"dives": 1.5},
        {"dives": "many"},
        {"level": ""},
        {"level": "expert"},
        {"level": "Rescue\x00"},
        {"conditions": "x" * 501},
        {"age": 40},
        {"forget": ["name"]},
        {"level": "advanced", "forget": ["level"]},
    ],
)
async def test_a_change_that_is_not_right_is_refused_and_not_kept(mine: Tools, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await mine(profile.update_profile, **arguments)
    assert await mine(read_profile) == {"profile": {}}


async def test_what_is_not_given_stays_as_it_was(mine: Tools) -> None:
    await mine(profile.update_profile, level="advanced", dives=84)
    changed = await mine(profile.update_profile, dives=85, conditions="cold water")
    assert changed == {"profile": {"level": "advanced", "dives": 85, "conditions": "cold water"}}
    assert await mine(read_profile) == changed


async def test_a_level_may_be_written_as_people_write_it(mine: Tools) -> None:
    assert await mine(profile.update_profile, level="Open Water") == {"profile": {"level": "open_water"}}


async def test_what_is_to_be_forgotten_is_forgotten(mine: Tools) -> None:
    await mine(profile.update_profile, level="advanced", dives=84)
    assert await mine(profile.update_profile, forget=["level", "conditions"]) == {"profile": {"dives": 84}}


async def test_what_the_page_stored_beside_it_is_read_and_kept(mine: Tools, runtime: Runtime) -> None:
    async with everything(runtime.database) as session:
        await update_profile(session, mine.caller, {"language": "de", "level": 2})
    assert await mine(read_profile) == {"profile": {"language": "de", "level": 2}}
    assert await mine(profile.update_profile, dives=3) == {"profile": {"language": "de", "level": 2, "dives": 3}}


@pytest.mark.parametrize(
    ("message", "name", "arguments"),
    [
        ("What do you know about me?", "read_profile", {}),
        ("Please remember that I am an advanced diver", "update_profile", {"level": "advanced"}),
        ("Remember that I am a hungry diver", None, None),
        ("I have 85 dives", "update_profile", {"dives": "85"}),
        ("I have done 85 dives", "update_profile", {"dives": "85"}),
        ("I have many dives", None, None),
    ],
)
def test_a_plain_request_is_recognised(message: str, name: str | None, arguments: dict[str, str] | None) -> None:
    assert [problem for tool in TOOLS for problem in template_problems(tool)] == []
    found = match(message, TOOLS)
    assert (found and found.tool.name, found and found.arguments) == (name, arguments)
