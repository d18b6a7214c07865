"""One frozen `Settings`, built once from presets, `.env` and the environment, and passed down.

Precedence, highest first: arguments, environment variables, the workspace's `.env`, the current folder's `.env`, the
preset of `AGENT_SERVER_ENVIRONMENT`, defaults. Where the workspace is, its own `.env` cannot say.
Vendor names keep their vendor's spelling (`DATABASE_URL`, `OPENAI_API_KEY`); everything else is `AGENT_SERVER_*`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from pydantic import AliasChoices, ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError

from agent_server.errors import FieldError, InvalidInput
from agent_server.settings.database import DatabaseSettings
from agent_server.settings.identity import IdentitySettings, Issuer
from agent_server.settings.limits import LimitSettings
from agent_server.settings.models import ModelSettings
from agent_server.settings.server import Environment, ServerSettings

__all__ = [
    "ENV_FILE",
    "PRESETS",
    "Issuer",
    "Settings",
    "default_settings",
    "find_env_files",
    "load_settings",
    "variable_of",
]

ENV_FILE = ".env"
_EXAMPLES: Mapping[type, str] = {tuple: '["one", "two"]', dict: '{"support": ["leads:read"]}'}
"""What stands for a list and for an object where a setting is one."""

PRESETS: Mapping[Environment, Mapping[str, Any]] = {
    "development": {"log_format": "console"},
    "test": {"log_format": "console", "log_level": "WARNING"},
    "staging": {"log_format": "json"},
    # Migrating is a step of the deployment, which can fail before the first replica is started.
    "production": {"log_format": "json", "migrate": False},
}


_CONFIG = SettingsConfigDict(
    env_prefix="AGENT_SERVER_",
    # Editors on Windows begin a file with a byte order mark.
    env_file_encoding="utf-8-sig",
    # `AGENT_SERVER_X=` in a compose file or an `.env` means that it is not set.
    env_ignore_empty=True,
    # The environment and `.env` hold variables of other programs.
    extra="ignore",
    frozen=True,
    populate_by_name=True,
)


class _Place(BaseSettings):
    """Where the workspace is, which has to be known before the `.env` in it is read."""

    model_config = _CONFIG

    workspace: Path = Path(".")


class Settings(ServerSettings, DatabaseSettings, ModelSettings, IdentitySettings, LimitSettings, BaseSettings):
    """Everything an operator can turn."""

    model_config = _CONFIG

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The preset is chosen by a setting, so the other sources have to be read before it is known. What was read is
        # passed on, since each reading takes milliseconds, also of no file.
        is_there = isinstance(dotenv_settings, DotEnvSettingsSource) and dotenv_settings.env_file
        read = [init_settings(), env_settings(), dotenv_settings() if is_there else {}]
        environment: Any = next((values["environment"] for values in read if "environment" in values), "development")
        preset = InitSettingsSource(settings_cls, dict(PRESETS.get(environment, {})))
        return tuple(cast(PydanticBaseSettingsSource, partial(dict, values)) for values in (*read, preset()))


def load_settings(**overrides: Any) -> Settings:
    """Read the settings. Raises InvalidInput that names each wrong variable and the file that it stands in."""
    # An option of the command line that was not given is None, and must not hide the environment.
    given = {name: value for name, value in overrides.items() if value is not None}
    files: Sequence[Path] = ()
    try:
        if "_env_file" not in overrides:
            if "workspace" not in given:
                _check_file(Path(ENV_FILE))
                given["workspace"] = _Place(_env_file=ENV_FILE).workspace
            files = find_env_files(Path(given["workspace"]))
            for file in files:
                _check_file(file)
            given["_env_file"] = [*reversed(files)]  # in which the last one wins
        return Settings(**given)
    except SettingsError as error:  # a list that is no JSON; its message names the field
        field = _quoted(str(error))
        variable, value = variable_of(field), _EXAMPLES[type(Settings.model_fields[field].default)]
        raise InvalidInput(f"{variable}{_origin(variable, files)}: is not JSON; write {variable}={value}") from None
    except ValidationError as error:
        wrong = [(variable_of(str(e["loc"][0])), _place(e["loc"][1:]) + _say(e)) for e in error.errors()]
        lines = [f"{variable}{_origin(variable, files)}: {message}" for variable, message in wrong]
        # "from None": pydantic's own text quotes the values, and some are secrets.
        raise InvalidInput("; ".join(lines), [FieldError(*each) for each in wrong]) from None
    except OSError as error:
        raise InvalidInput(f"{error.filename}: cannot be read ({error.strerror})") from None


def default_settings(workspace: Path | None) -> Settings:
    """The defaults, and the workspace that was given or is set. Nothing else is read, so that nothing of it can be wrong."""
    try:
        return Settings.model_construct(workspace=workspace or _Place(_env_file=ENV_FILE).workspace)
    except (UnicodeDecodeError, OSError):
        return Settings.model_construct(workspace=_Place(_env_file=None).workspace)


def find_env_files(workspace: Path) -> Sequence[Path]:
    """The `.env` files that the settings are read from, the one that wins first: the workspace's, the current folder's."""
    found: list[Path] = []
    for file in (workspace / ENV_FILE, Path(ENV_FILE)):
        # A pipe is what a password manager has in the place of a file.
        if (file.is_file() or file.is_fifo()) and not any(file.samefile(other) for other in found):
            found.append(file)
    return found


def _check_file(file: Path) -> None:
    """Raises InvalidInput for a file that is no text and for a line that sets nothing, which would be passed over."""
    if not file.is_file():
        return
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InvalidInput(f"{file}: is not text in UTF-8; save it as UTF-8") from None
    names = "|".join(variable_of(field) for field in Settings.model_fields)
    for number, line in enumerate(lines, 1):
        if found := re.match(rf"\s*(?:export\s+)?({names}|AGENT_SERVER_\w+)\b(?!\s*=)", line):
            raise InvalidInput(f"{file}:{number}: write {found[1]}=VALUE, as in AGENT_SERVER_PORT=8000")


def _origin(variable: str, files: Sequence[Path]) -> str:
    """The file that a variable's value is from, as a message goes on with it; nothing where it is from elsewhere."""
    if variable.lower() in EnvSettingsSource(Settings).env_vars:
        return ""
    for file in files:
        if file.is_file() and variable.lower() in DotEnvSettingsSource(Settings, env_file=file).env_vars:
            return f" in {file}"
    return ""


def _say(error: Any) -> str:
    """What is wrong with a value, and one that would be right."""
    message: str = error["msg"].removeprefix("Value error, ")
    field = Settings.model_fields.get(str(error["loc"][0]).lower())
    if error["type"] == "value_error" or field is None or not isinstance(field.default, str | int | float):
        return message
    example = json.dumps(field.default) if isinstance(field.default, bool) else field.default
    return f"{message}, as in {variable_of(str(error['loc'][0]))}={example}"


def _quoted(text: str) -> str:
    found = re.search(r'"(\w+)"', text)
    return found[1] if found else text


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
