"""What the SDK sorts is in the same order, and one thing is sorted without a look at it."""

import builtins
from typing import Any

from agents import Agent, RunContextWrapper, function_tool
from agents._run_state_agent_identity import _build_agent_identity_map
from hypothesis import given
from hypothesis import strategies as st

from agent_server.models.single import sort


@given(st.lists(st.integers() | st.floats(allow_nan=False)), st.booleans(), st.sampled_from([None, abs, str]))
def test_the_order_is_that_of_sorted(items: list[Any], reverse: bool, key: Any) -> None:
    assert sort(items, key=key, reverse=reverse) == builtins.sorted(items, key=key, reverse=reverse)
    assert sort(iter(items)) == builtins.sorted(items)


@function_tool
async def look(_: RunContextWrapper[Any]) -> str:
    """Look."""
    return ""


def test_the_sdk_tells_agents_of_one_name_apart_as_before_and_looks_at_no_other() -> None:
    class Watched(Agent[Any]):
        looked = 0

        def __getattribute__(self, name: str) -> Any:
            if name == "reset_tool_choice":  # only what describes an agent reads it there
                Watched.looked += 1
            return super().__getattribute__(name)

    twin, other = Watched(name="guide", tools=[look]), Watched(name="other")
    first = Watched(name="guide", handoffs=[twin, other])
    Watched.looked = 0
    assert _build_agent_identity_map(first) == {"guide": first, "guide#2": twin, "other": other}
    assert Watched.looked == 2
