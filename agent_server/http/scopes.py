"""What a route asks its caller to hold; tools ask for theirs in `call_tool`."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends

from agent_server.caller import Caller
from agent_server.errors import Forbidden
from agent_server.http.auth import get_caller, get_caller_or_new_guest


def require(caller: Caller, scope: str) -> None:
    """Raises Forbidden."""
    if not caller.may(scope):
        raise Forbidden(f"This needs the scope {scope}, which this caller lacks", scope)


def holding(scope: str, *, guests: bool = True, caller_of: Callable[..., Awaitable[Caller]] = get_caller) -> Any:
    """The dependency of a route on a caller who holds `scope`, and is no guest unless `guests` may. Raises
    Unauthorized, TooMany and Forbidden."""

    async def get_holder(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        if caller.kind == "guest" and not guests:
            raise Forbidden("A guest may chat; this needs somebody who has signed in, or an API key", scope)
        require(caller, scope)
        return caller

    return Depends(get_holder)


ReaderDep = Annotated[Caller, holding("conversations:read")]
WriterDep = Annotated[Caller, holding("conversations:write")]
SpeakerDep = Annotated[Caller, holding("conversations:write", caller_of=get_caller_or_new_guest)]
SelfReaderDep = Annotated[Caller, holding("account:read")]
SelfWriterDep = Annotated[Caller, holding("account:write")]
