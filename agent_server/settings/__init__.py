"""One frozen `Settings`, built once from presets, `.env` and the environment, and passed down.

Precedence, highest first: arguments, environment variables, `.env`, the preset of `AGENT_SERVER_ENVIRONMENT`, defaults.
Vendor names keep their vendor's spelling (`DATABASE_URL`, `OPENAI_API_KEY`); everything else is `AGENT_SERVER_*`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from agent_server.errors import FieldError, InvalidInput
from agent_server.settings.database import DatabaseSettings
from agent_server.settings.identity import IdentitySettings, Issuer
from agent_server.settings.limits import LimitSettings
from agent_server.settings.models import ModelSettings
from agent_server.settings.server import Environment, ServerSettings

__all__ = ["PRESETS", "Issuer", "Settings", "load_settings", "variable_of"]

PRESETS: Mapping[Environment, Mapping[str, Any]] = {
    "development": {"log_format": "console"},
    "test": {"log_format": "console", "log_level": "WARNING"},
    "staging": {"log_format": "json"},
    # Migrating is a step of the deployment, which can fail before the first replica is started.
    "production": {"log_format": "json", "migrate": False},
}


class Settings(ServerSettings, DatabaseSettings, ModelSettings, IdentitySettings, LimitSettings, BaseSettings):
    """Everything an operator can turn."""

    model_config = SettingsConfigDict(
        env_prefix="AGENT_SERVER_",
        env_file=".env",
        # `AGENT_SERVER_X=` in a compose file or an `.env` means that it is not set.
        env_ignore_empty=True,
        # The environment and `.env` hold variables of other programs.
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The preset is chosen by a setting, so the other sources have to be read before it is known.
        chosen: dict[str, Any] = {**dotenv_settings(), **env_settings(), **init_settings()}
        preset = PRESETS.get(chosen.get("environment", "development"), {})
        return init_settings, env_settings, dotenv_settings, InitSettingsSource(settings_cls, dict(preset))


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; raises InvalidInput that names each wrong variable."""
    try:
        # An option of the command line that was not given is None, and must not hide the environment.
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except SettingsError as error:  # a list that is no JSON; its message names the field
        raise InvalidInput(f'{error}; write lists as JSON, as in ["https://example.com"]') from None
    except ValidationError as error:
        fields = [FieldError(variable_of(str(e["loc"][0])), _place(e["loc"][1:]) + e["msg"]) for e in error.errors()]
        # "from None": pydantic's own text quotes the values, and some are secrets.
        raise InvalidInput("; ".join(f"{f.field}: {f.message}" for f in fields), fields) from None


def _place(inside: tuple[int | str, ...]) -> str:
    """Where in a setting's JSON the mistake is."""
    return ".".join(map(str, inside)) + ": " if inside else ""


def variable_of(field: str) -> str:
    """The environment variable that sets `field`."""
    info = Settings.model_fields.get(field.lower())
    alias = info.validation_alias if info else None
    if isinstance(alias, AliasChoices):
        return str(alias.choices[-1])
    return field if info is None else f"AGENT_SERVER_{field.upper()}"
