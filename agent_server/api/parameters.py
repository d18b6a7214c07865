"""Parameters that several routes take."""

from typing import Annotated, Any

from fastapi import Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from agent_server.bodies import refuse_unstorable
from agent_server.http.auth import ServerDep, address_of
from agent_server.identity.accounts import Accounts, Act
from agent_server.identity.passwords import LONGEST, SHORTEST


class Body(BaseModel):
    """A body with no unknown fields and no text that cannot be stored."""

    # A field that is spelt wrong would otherwise be left out silently, `disabled` for one.
    model_config = ConfigDict(extra="forbid")

    def model_post_init(self, _: Any) -> None:
        # Postgres takes no NUL and no half a character; here the mistake still has the name of its field.
        for name, value in self:
            if isinstance(value, str):
                refuse_unstorable(value, (name,))


Password = Annotated[str, Field(min_length=SHORTEST, max_length=LONGEST)]
Given = Annotated[str, Field(max_length=LONGEST, description="As it is now.")]
Token = Annotated[str, Field(max_length=8_192)]
# The form is said here, so that what is no guest's token is refused by its field.
GuestToken = Annotated[str, Field(max_length=200, pattern=r"^asg_[0-9a-f]{32}\.[\w-]+$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Scope = Annotated[str, Field(max_length=100, description="`resource:verb`, `resource:*` or `*`.")]
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=100)]


async def get_act(request: Request) -> Act:
    return Act(surface="rest", address=address_of(request))


async def get_accounts(server: ServerDep) -> Accounts:
    return Accounts(server.database, server.resolver)


ActDep = Annotated[Act, Depends(get_act)]
AccountsDep = Annotated[Accounts, Depends(get_accounts)]
