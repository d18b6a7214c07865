"""Whose rows a statement can reach, enforced by the database itself.

Every transaction runs as `APP_ROLE`, which owns nothing, and names the owners it acts for in a setting of its own
(`Database.transaction`); the policies of each table, forced on its owner too, compare the rows with that. Where nobody
is named, no owned row is there. Policies follow from the models: a table whose model has an `owner_id` has them.

    agent_server_app      what transactions run as: reads and writes rows, as the policies let it
    agent_server_system   owns the few functions that look across owners (migrations), and may read no more than the
                          columns that those need
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, FromClause, Table, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel
from sqlmodel.main import default_registry

from agent_server.db.address import Address
from agent_server.db.types import OUT_OF_REACH, PURGE, SYSTEM, RowPolicy, SoftDeleted
from agent_server.errors import InvalidInput

APP_ROLE = "agent_server_app"
SYSTEM_ROLE = "agent_server_system"
OWNERS, SCOPES = "agent_server.owners", "agent_server.scopes"

_NOT_ALLOWED = "42501"
_SCOPE = re.compile(r"[a-z_:*]+")
# No subqueries, which a database that is spread over servers by owner takes in no policy. Not `= any (...)`: of a statement
# that names the owner, as all do, Postgres would then believe that it finds hardly a row by the owner alone, whatever the
# index, and read all turns of an owner for one. As text, a list of owners has no other's id in it than theirs. A setting
# that some earlier transaction of the session had is not null but empty.
_OWN = f"position({{column}}::text in current_setting('{OWNERS}', true)) > 0"
_HELD = f"coalesce(nullif(current_setting('{SCOPES}', true), ''), '{{}}')::text[]"


def preamble(owners: Collection[UUID], scopes: Collection[str]) -> str:
    """The statement with which a transaction begins that acts for these owners.

    Raises ValueError for a scope that is none.
    """
    # What is sent with BEGIN takes no parameters, so scopes are spelled into the statement.
    if wrong := [scope for scope in scopes if not _SCOPE.fullmatch(scope)]:
        raise ValueError(f"not scopes: {wrong}")
    settings = {
        "role": APP_ROLE,
        # Read and printed again, so that nothing but a UUID gets into the statement.
        OWNERS: f"{{{','.join(str(UUID(str(owner))) for owner in owners)}}}",
        SCOPES: f"{{{','.join(sorted(scopes))}}}",
    }
    # One statement. A database that is spread over servers hands `set local` on to them, one for each setting.
    return "select " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())


@dataclass(frozen=True)
class _Rule:
    """What the application's role may do with a table, and with which of its rows."""

    table: str
    policy: RowPolicy | None
    out_of_reach: bool = False

    @property
    def privileges(self) -> Sequence[str]:
        if self.out_of_reach:
            return ()
        if self.policy is not None and self.policy.append_only:
            return ("select", "insert")
        return ("select", "insert", "update", "delete")

    @property
    def policies(self) -> Iterator[tuple[str, str]]:
        """Each policy's name and its text after `create policy ... on ...`."""
        if (policy := self.policy) is None:
            return
        own = _OWN.format(column=policy.column)
        read = own if policy.own_read is None else f"({own} and {_may(policy.own_read)})"
        if policy.read_scope is not None:
            read = f"{read} or {_may(policy.read_scope)}"
        if policy.soft_deleted:
            # Not by `_may`: to hold `*` is not to be the job that purges.
            read = f"{read} or (deleted_at is not null and '{PURGE}' = any ({_HELD}))"
        write = own if policy.write_scope is None else f"{own} or {_may(policy.write_scope)}"
        if policy.shared:
            # Nobody else's row can be in it. A condition here would keep text search from its index: its operator is
            # not leakproof, so Postgres would look at every row first.
            read, write = "true", f"{own} and {policy.column} = '{SYSTEM}'::uuid"
        yield "reads", f"for select to {APP_ROLE} using ({read})"
        yield "inserts", f"for insert to {APP_ROLE} with check ({write})"
        if not policy.append_only:
            yield "updates", f"for update to {APP_ROLE} using ({write}) with check ({write})"
            yield "deletes", f"for delete to {APP_ROLE} using ({write})"


def _may(scope: str) -> str:
    return f"{_HELD} && array['{scope}', '{scope.partition(':')[0]}:*', '*']"


# To look through all of them is most of what a server does as it begins, which asks for the policy of each table.
_classes: WeakKeyDictionary[FromClause, type] = WeakKeyDictionary()
"""The class of each table that has one."""


def row_policy_of(table: Table) -> RowPolicy | None:
    """How the rows of a declared table are guarded; None for one whose rows are nobody's."""
    if table not in _classes:
        _classes.update({mapper.local_table: mapper.class_ for mapper in default_registry.mappers})
    model = _classes.get(table)
    declared: RowPolicy | None = getattr(model, "row_policy", None)
    policy = declared or (RowPolicy() if "owner_id" in table.columns else None)
    if policy is not None and model is not None and issubclass(model, SoftDeleted):
        return replace(policy, soft_deleted=True)
    return policy


def ensure_roles(connection: Connection, login: Address | None = None) -> None:
    """Make the roles where they are missing, and the user that the address `login` names, as a member of `APP_ROLE`.

    Roles belong to all databases of a server, so they may be another owner's. Raises InvalidInput that says what its
    administrator must run where this database user may not.
    """
    for role in (APP_ROLE, SYSTEM_ROLE):
        _create_role(connection, role, f"create role {role} nologin")
    for role in (APP_ROLE, SYSTEM_ROLE):
        _join(connection, role, None)
    if login is not None and login.user:
        # `create role` takes no parameters; Postgres itself quotes the name and the password.
        spelled = "create role %I login" + (" password %L" if login.password else "")
        statement = connection.execute(
            text("select format(:spelled, cast(:name as text), cast(:password as text))"),
            {"spelled": spelled, "name": login.user, "password": login.password or ""},
        ).scalar_one()
        _create_role(connection, login.user, statement, shown=f"create role {_quote(connection, login.user)} login")
        _join(connection, APP_ROLE, login.user)


def _create_role(connection: Connection, name: str, statement: str, *, shown: str | None = None) -> None:
    """Make a role where it is missing. `shown` is the statement without a password."""
    there = text("select 1 from pg_roles where rolname = cast(:name as name)")
    if connection.execute(there, {"name": name}).first() is not None:
        return
    # Another database of this server may be migrated in this instant, and make the role too.
    body = connection.execute(
        text("select format('begin execute %L; exception when duplicate_object or unique_violation then null; end', "
             "cast(:statement as text))"),
        {"statement": statement},
    ).scalar_one()  # fmt: skip
    # A literal, and not between two `$$`, which a password may hold.
    block = connection.execute(text("select quote_literal(cast(:body as text))"), {"body": body}).scalar_one()
    _run(connection, f"do {block}", shown or statement)


def _join(connection: Connection, role: str, login: str | None) -> None:
    """Make `login` a member of a role of ours; with None, the user of this connection."""
    lacks = text("select not pg_has_role(coalesce(cast(:login as name), current_user), cast(:role as name), 'SET')")
    if connection.execute(lacks, {"login": login, "role": role}).scalar_one():
        me = connection.execute(text("select current_user")).scalar_one()
        grant = f"grant {role} to {_quote(connection, login or me)}"
        # Who is to make the login a member must be able to hand the role on.
        _run(connection, grant, grant if login is not None else f"{grant} with admin option")


def _quote(connection: Connection, name: str) -> str:
    quoted: str = connection.execute(text("select quote_ident(cast(:name as name))"), {"name": name}).scalar_one()
    return quoted


def _run(connection: Connection, statement: str, shown: str) -> None:
    try:
        connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _NOT_ALLOWED:
            raise
        # "from None": the error quotes the statement, perhaps with its password.
        raise InvalidInput(
            f"The database user may not make or hand on the roles that keep callers apart, which are the whole "
            f"server's and may be another owner's: have an administrator run `{shown}`"
        ) from None


def protect(connection: Connection) -> None:
    """Give the application's role its rights, and every owned table its policies, as the models have them now."""
    schema = connection.execute(text("select quote_ident(current_schema())")).scalar_one()
    connection.exec_driver_sql(f"grant usage on schema {schema} to {APP_ROLE}, {SYSTEM_ROLE}")
    there = {name for (name,) in connection.execute(_TABLES)}
    if "alembic_version" in there:
        connection.exec_driver_sql(f"grant select on alembic_version to {APP_ROLE}")
    for table in SQLModel.metadata.sorted_tables:
        if table.name in there:
            _protect(connection, _Rule(table.name, row_policy_of(table), OUT_OF_REACH.items() <= table.info.items()))


def guard_undeclared(connection: Connection, table: str) -> None:
    """Keep the rows of a table that no model declares to their owners. Raises InvalidInput for one without owners."""
    owned = text("select exists (select from pg_attribute where attrelid = cast(:table as regclass)"
                 " and attname = 'owner_id' and not attisdropped)")  # fmt: skip
    quoted = connection.dialect.identifier_preparer.quote(table)
    if not connection.execute(owned, {"table": quoted}).scalar_one():
        raise InvalidInput(f"{table}: has no owner_id, so that its rows cannot be kept to their owners; drop it")
    _protect(connection, _Rule(table, RowPolicy()))


_TABLES = text("""
    select c.relname from pg_class c
    where c.relkind in ('r', 'p') and c.relnamespace = (select oid from pg_namespace where nspname = current_schema())""")


def _protect(connection: Connection, rule: _Rule) -> None:
    quoted = connection.dialect.identifier_preparer.quote(rule.table)
    run = connection.exec_driver_sql
    run(f"revoke all on {quoted} from {APP_ROLE}, public")
    if rule.privileges:
        run(f"grant {', '.join(rule.privileges)} on {quoted} to {APP_ROLE}")
    if rule.policy is None:
        return
    run(f"alter table {quoted} enable row level security")
    # Without it the owner of the table sees all rows, and on one's own machine that is who logs in.
    run(f"alter table {quoted} force row level security")
    for name, body in rule.policies:
        # Postgres has no `create or replace` for policies.
        run(f"drop policy if exists {name} on {quoted}")
        run(f"create policy {name} on {quoted} {body}")


_LOGIN = text("""
    select session_user as login, current_user as role, r.rolsuper or r.rolbypassrls as bypasses,
           exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                   where n.nspname = current_schema() and c.relkind in ('r', 'p')
                     and pg_has_role(r.oid, c.relowner, 'MEMBER')) as owns
    from pg_roles r where r.rolname = :role""")
_UNGUARDED = text("""
    select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = current_schema() and c.relkind in ('r', 'p') and not (c.relrowsecurity and c.relforcerowsecurity)
      and (c.relname = any(:tables) or exists (
          select from pg_attribute a where a.attrelid = c.oid and a.attname = 'owner_id' and not a.attisdropped))""")


def refuse_unguarded(connection: Connection, *, login_too: bool) -> None:
    """Raises InvalidInput unless the role of this transaction is kept to its owners' rows; with `login_too`, unless
    the user that it logs in as is as well, who could go back to being it."""
    names = connection.execute(text("select current_user, session_user")).one()
    for name in names if login_too else names[:1]:
        found = connection.execute(_LOGIN, {"role": name}).one()
        if found.bypasses or found.owns:
            what = "passes over row-level security" if found.bypasses else "owns the tables"
            raise InvalidInput(
                f"DATABASE_URL: its user {name} {what}, so that the database would not keep callers apart. "
                "Put this address into DATABASE_OWNER_URL, and an address with another user name and password into "
                "DATABASE_URL; `agent-server db upgrade` makes that user"
            )
    owned = [table.name for table in SQLModel.metadata.sorted_tables if row_policy_of(table) is not None]
    if unguarded := sorted(name for (name,) in connection.execute(_UNGUARDED, {"tables": owned})):
        raise InvalidInput(
            f"The tables {', '.join(unguarded)} have no row-level security; run `agent-server db upgrade`, which "
            "gives it to every table that a model declares (one that none declares any more is left over: "
            "`agent-server db leftovers` shows it, drops it or guards it)"
        )
