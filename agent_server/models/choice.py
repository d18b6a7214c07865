"""Which model answers."""

from dataclasses import dataclass

from agent_server.errors import find_near
from agent_server.models.windows import is_provider, list_providers
from agent_server.settings import Settings

OFFLINE = "offline"
_FIRST_OF_SERVER = "openai/"
_EXAMPLE = "write as in openai/gpt-5.4-mini"

# A provider whose key is set answers with its small and current model, where the settings name none.
_DEFAULTS = {
    "openai_api_key": "openai/gpt-5.4-mini",
    "gemini_api_key": "gemini/gemini-flash-latest",
    "groq_api_key": "groq/openai/gpt-oss-120b",
    "anthropic_api_key": "anthropic/claude-haiku-5-5",
}


@dataclass(frozen=True)
class ModelChoice:
    """The model that answers. Its `name` is `provider/model` as litellm spells it, or `offline`."""

    name: str

    @property
    def offline(self) -> bool:
        """Whether no language model is configured."""
        return self.name == OFFLINE

    @property
    def of_server(self) -> bool:
        """Whether it is the first model of OPENAI_BASE_URL, whose name only that server knows."""
        return self.name == _FIRST_OF_SERVER

    @property
    def title(self) -> str:
        """The name for people."""
        return "not known yet: the first model that OPENAI_BASE_URL lists" if self.of_server else self.name


def choose_model(settings: Settings) -> ModelChoice:
    """The model that the settings name.

    Without one it is the default of the first provider whose key is set, and `offline` where there is no key either.
    """
    if settings.model:
        return ModelChoice(full_name(settings.model, settings))
    if settings.openai_base_url:
        return ModelChoice(_FIRST_OF_SERVER)
    for key, name in _DEFAULTS.items():
        if getattr(settings, key) is not None:
            return ModelChoice(name)
    return ModelChoice(OFFLINE)


def full_name(name: str, settings: Settings) -> str:
    """`name` with its provider.

    A name without one is a model of OpenAI's. Where OPENAI_BASE_URL is set, every name is one of that server's: its
    models have slashes in their names too.
    """
    if name == OFFLINE or ("/" in name and not settings.openai_base_url):
        return name
    return name if name.startswith("openai/") else f"openai/{name}"


def find_problem_of_name(name: str, settings: Settings) -> str | None:
    """What keeps `name` from being a model's: a provider that nobody knows."""
    provider, slash, model = name.strip().partition("/")
    if not slash or settings.openai_base_url or is_provider(provider):
        return (
            None if model.strip() or not slash or name == _FIRST_OF_SERVER else f"{name!r} names no model; {_EXAMPLE}"
        )
    near = find_near(provider, list_providers())
    meant = f"did you mean {f'{near}/{model}'!r}" if near else f"write provider/model, {_EXAMPLE[6:]}"
    return f"there is no provider {provider!r}; {meant}{'?' if near else '.'} For a model of your own server set OPENAI_BASE_URL"
