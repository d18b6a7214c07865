"""What a stream tells its client: the subjects that change, for as long as its caller may hear of them."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

from mcp.shared.exceptions import MCPError

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.changes import LISTS, Watch
from agent_server.errors import AgentServerError, Unauthorized, Unavailable
from agent_server.mcp.offers import Offers, Watching
from agent_server.mcp.resources import read_resource
from agent_server.readable import Documents


async def may_read(runtime: Runtime, documents: Documents | None, offers: Offers, caller: Caller, uri: str) -> bool:
    """Whether there is something at an address that this caller may read. It is read to know."""
    try:
        await read_resource(runtime, documents, offers, caller, uri)
    except Unavailable:
        raise
    except (AgentServerError, MCPError):
        return False
    return True


async def list_changes(
    watching: Watching, watch: Watch, caller: Caller, choose: Callable[[Caller], Awaitable[Sequence[str]]]
) -> AsyncIterator[str]:
    """The subjects that change, until the caller's credential or this process ends.

    With the caller's rights all lists change, and addresses are watched that it may still read: `choose` says which.
    """
    asked = time.monotonic()
    while not watching.changes.is_closed:
        changed: Collection[str] = await watch.wait(max(0.0, asked + watching.seconds - time.monotonic()))
        if time.monotonic() >= asked + watching.seconds:
            asked = time.monotonic()
            try:
                now = await watching.renew(caller)
                if now.scopes != caller.scopes:
                    watch.follow([*await choose(now), *LISTS])
                    changed = [*(subject for subject in changed if watch.follows(subject)), *LISTS]
                caller = now
            except Unauthorized:
                return
            # Asked again the next time.
            except Unavailable:
                pass
        for subject in changed:
            yield subject
