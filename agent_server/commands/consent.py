"""Questions before something is lost for good, asked on a terminal."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from agent_server.audit import Surface
from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.calls.confirmations import Changed
from agent_server.calls.consent import confirm_call, decline_call
from agent_server.commands.terminal import agree, fail
from agent_server.tool import Tool


class Asked(Protocol):
    """A question that waits for its answer."""

    @property
    def id(self) -> str: ...

    @property
    def question(self) -> str: ...


@dataclass(frozen=True)
class Done:
    """A call that was made."""

    output: Any


async def settle(
    runtime: Runtime, tools: Mapping[str, Tool[..., Any]], asked: Asked, *, caller: Caller, surface: Surface
) -> Done | None:
    """Ask, and make the call where the answer is a yes; None where it is a no. Raises as `confirm_call`, but asks again
    where the call would lose something else by now."""
    while True:
        if not await asyncio.to_thread(agree, asked.question):
            await decline_call(runtime, UUID(asked.id), caller=caller, surface=surface)
            return None
        try:
            return Done(await confirm_call(runtime, tools, UUID(asked.id), caller=caller, surface=surface))
        except Changed as changed:
            if changed.question is None:
                raise
            fail("Not done, because it has changed since you were asked")
            asked = changed.question
