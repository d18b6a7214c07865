"""What a route asks its caller to hold; tools ask for theirs in `call_tool`."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends

from agent_server.errors import Forbidden
from agent_server.http.auth import get_caller, get_caller_or_new_guest
from agent_server.identity import Caller


def requires(scope: str, caller_of: Callable[..., Awaitable[Caller]] = get_caller) -> Any:
    """The dependency of a route on a caller who holds `scope`. Raises Unauthorized and Forbidden."""

    async def get_holder(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        if not caller.may(scope):
            raise Forbidden(f"This needs the scope {scope}, which this caller lacks", scope)
        return caller

    return Depends(get_holder)


ReaderDep = Annotated[Caller, requires("conversations:read")]
WriterDep = Annotated[Caller, requires("conversations:write")]
SpeakerDep = Annotated[Caller, requires("conversations:write", get_caller_or_new_guest)]
SelfReaderDep = Annotated[Caller, requires("account:read")]
SelfWriterDep = Annotated[Caller, requires("account:write")]
