"""Roles are named sets of scopes."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlmodel import SQLModel

from agent_server.caller import beyond, covers
from agent_server.db.isolation import row_policy_of
from agent_server.errors import InvalidInput, quote_value
from agent_server.identity.rights import GUEST_SCOPES, name_scopes

USER, STAFF, ADMIN = "user", "staff", "admin"
OWN_ACCOUNT = GUEST_SCOPES | {"keys:read", "keys:write", "documents:read", "documents:write"}
"""What every user may do with what is its own."""
FOR_STAFF = frozenset({"audit:read", "feedback:read", "users:read"})


@dataclass(frozen=True)
class Roles:
    """The scopes of each role that there is."""

    scopes: Mapping[str, frozenset[str]]

    def of(self, names: Iterable[str]) -> frozenset[str]:
        """The scopes of somebody with these roles.

        Without any they are those of a `user`; unknown roles are ignored.
        """
        # An account may still name a role that is no longer in the settings.
        held = [self.scopes[name] for name in names if name in self.scopes]
        return frozenset().union(*held) if held else self.scopes[USER]

    def check(self, names: Collection[str], giver: Collection[str] | None = None) -> None:
        """Raises InvalidInput for a role that is not there or holds more than the scopes of `giver`.

        To name none is to name `user`.
        """
        for name in names or (USER,):
            if name not in self.scopes:
                raise InvalidInput(
                    f"roles: there is no role {quote_value(name)}; there are {', '.join(sorted(self.scopes))}"
                )
            if giver is not None and (more := beyond(self.scopes[name], giver)):
                raise InvalidInput(
                    f"roles: {quote_value(name)} has {name_scopes(more)}, which you lack; ask somebody who has as much"
                )


def define_roles(
    given: Mapping[str, Collection[str] | None], agents: Collection[str], staff: Collection[str] = ()
) -> Roles:
    """The roles of the settings beside `user`, `staff` and `admin`.

    The settings may define these anew. `agents` are the scopes that the agents' tools need: a `user` has them, but for
    those that are for staff. `staff` are the scopes that tools declare to be for staff.
    """
    # A prompt may list a tool that is for staff. That must not open it to every user.
    user = (frozenset(agents) - staff_scopes() - frozenset(staff)) | OWN_ACCOUNT
    roles = {USER: user, STAFF: user | FOR_STAFF | frozenset(staff), ADMIN: frozenset({"*"})}
    return Roles({**roles, **{name: user if scopes is None else frozenset(scopes) for name, scopes in given.items()}})


def staff_scopes() -> frozenset[str]:
    """The scopes that open rows of all owners in whichever table. Nobody has them by default."""
    # Read from the models, so that a new table of the workspace cannot be forgotten.
    found = (row_policy_of(table) for table in SQLModel.metadata.sorted_tables)
    scopes = {scope for policy in found if policy is not None for scope in (policy.read_scope, policy.write_scope)}
    return frozenset(scope for scope in scopes if scope is not None)


def narrow(scopes: Collection[str], asked: Iterable[str]) -> frozenset[str]:
    """What is both in `scopes` and in `asked`."""
    asked = frozenset(asked)
    return frozenset(s for s in asked if covers(scopes, s)) | frozenset(s for s in scopes if covers(asked, s))
