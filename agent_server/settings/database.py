"""Where the database is, and how many connections there are to it."""

from typing import Annotated

from pydantic import BaseModel, Field, PositiveInt, SecretStr, field_validator

from agent_server.settings.vendor import vendor_setting


class DatabaseSettings(BaseModel):
    """Settings of the one Postgres."""

    database_url: SecretStr | None = vendor_setting("DATABASE_URL")
    database_direct_url: SecretStr | None = vendor_setting("DATABASE_DIRECT_URL")
    database_owner_url: SecretStr | None = vendor_setting("DATABASE_OWNER_URL")
    database_pool_size: PositiveInt = 8
    database_pool_timeout: Annotated[
        float, Field(gt=0, description="Longest wait for a connection while none gets free, seconds.")
    ] = 5.0
    database_sleep: Annotated[
        float | None,
        Field(gt=0, description="Seconds without work after which the server leaves the database alone; unset: never."),
    ] = None
    migrate: Annotated[bool, Field(description="Apply pending migrations when the server starts.")] = True

    @field_validator("database_url", "database_direct_url", "database_owner_url")
    @classmethod
    def _postgres_only(cls, value: SecretStr | None) -> SecretStr | None:
        # The message does not show the value, which holds a password.
        if value is not None and not value.get_secret_value().startswith(("postgres://", "postgresql://")):
            raise ValueError("must start with postgresql:// (leave it unset for the embedded server)")
        return value
