"""The schema of the extension `vector`, which need not be the one of the tables: Supabase has `extensions` for it.

Its types and operators are found by the `search_path`, so its schema is made the last one there.
"""

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from agent_server.errors import InvalidInput

_WHERE = "from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector'"


def widen_path(*, local: bool) -> str:
    """The statement that adds the extension's schema to the `search_path`, of the transaction or of the session."""
    # Never as the first one: the tables of the next migration would be made there.
    return (
        f"select set_config('search_path', concat_ws(', ', nullif(current_setting('search_path'), ''), "
        f"quote_ident(n.nspname)), {str(local).lower()}) {_WHERE} "
        "and current_schema() is not null and n.nspname <> all (current_schemas(true))"
    )


def ensure_extension(connection: Connection, *roles: str) -> None:
    """Make the extension where it is missing, and let `roles` use the schema that it is in.

    Raises InvalidInput where this database user may not.
    """
    schema = _find_schema(connection)
    if schema is None:
        _try(connection, "create extension if not exists vector", "make the extension vector")
        schema = _find_schema(connection)
    lack = text("select not has_schema_privilege(cast(:role as name), n.oid, 'usage') " + _WHERE)
    lacking = [role for role in roles if connection.execute(lack, {"role": role}).scalar_one()]
    if lacking:
        grant = f"grant usage on schema {schema} to {', '.join(lacking)}"
        what = f"let others use the schema {schema}, which the extension vector is in"
        _try(connection, grant, what)
        # Postgres only warns where a user may use the schema and may not hand that on.
        if any(connection.execute(lack, {"role": role}).scalar_one() for role in lacking):
            raise _refusal(what, grant)


def _find_schema(connection: Connection) -> str | None:
    """The quoted name of the schema that the extension is in. None where there is no extension."""
    found: str | None = connection.execute(text(f"select quote_ident(n.nspname) {_WHERE}")).scalar()
    return found


def _try(connection: Connection, statement: str, what: str) -> None:
    try:
        connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == "42501":
            raise _refusal(what, statement) from error
        raise


def _refusal(what: str, statement: str) -> InvalidInput:
    return InvalidInput(f"The database user may not {what}: have an administrator run `{statement}` in this database")
