"""Which models answer, with which keys, and how long they may take."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, SecretStr

from agent_server.settings.vendor import vendor_setting


class ModelSettings(BaseModel):
    """Settings of the models."""

    model: Annotated[
        str | None,
        Field(description="The model that answers: `offline`, a name, or `provider/name` as litellm has it."),
    ] = None
    openai_api_key: SecretStr | None = vendor_setting("OPENAI_API_KEY")
    openai_base_url: str | None = vendor_setting("OPENAI_BASE_URL")
    gemini_api_key: SecretStr | None = vendor_setting("GEMINI_API_KEY")
    groq_api_key: SecretStr | None = vendor_setting("GROQ_API_KEY")
    anthropic_api_key: SecretStr | None = vendor_setting("ANTHROPIC_API_KEY")
    model_fallback: Annotated[
        str | None, Field(description="The model that takes over while the first one's provider is failing.")
    ] = None
    model_client: Annotated[
        Literal["lean", "sdk"],
        Field(description="What talks to OpenAI and servers like it: our own client, or the SDK's, which costs more."),
    ] = "lean"
    model_connect_timeout: Annotated[float, Field(gt=0, description="Seconds.")] = 3.0
    model_first_token_timeout: Annotated[float, Field(gt=0, description="Seconds until a model's first token.")] = 30.0
    model_token_timeout: Annotated[float, Field(gt=0, description="Longest pause between two tokens, seconds.")] = 20.0
    model_call_timeout: Annotated[float, Field(gt=0, description="Longest model call, seconds.")] = 120.0
    model_retries: Annotated[int, Field(ge=0, le=5, description="Retries of a model call with no output yet.")] = 2

    context_window: Annotated[
        int | None,
        Field(
            ge=1_024, description="Tokens that a model takes at once. Without it: what is known of the model, or 8192."
        ),
    ] = None
    summaries: Annotated[
        bool, Field(description="Whether the first turns of a long conversation are summarised by its model.")
    ] = False
    tool_output_limit: Annotated[
        int,
        Field(ge=200, description="Longest output of a tool that a model is given, characters; people get all of it."),
    ] = 20_000

    embedder: Annotated[
        str, Field(min_length=1, description="What makes vectors of texts: its name, or `package.module:factory`.")
    ] = "wordllama"
    embedder_model: Annotated[
        str | None, Field(min_length=1, description="Model of the embedder `openai` or `litellm` (`provider/name`).")
    ] = None
    embedder_url: Annotated[
        str | None, Field(description="Where that embedder is, as in http://localhost:8080/v1.")
    ] = None
    embedder_key: Annotated[SecretStr | None, Field(description="Its key.")] = None
    embedder_dimensions: Annotated[
        int | None, Field(ge=1, le=16_000, description="How many numbers its vectors have.")
    ] = None
    embedder_weight: Annotated[
        float, Field(ge=0, le=10, description="What the cosine of its vectors counts for beside the words.")
    ] = 1.0
    embedder_timeout: Annotated[float, Field(gt=0, description="Longest request to it, seconds.")] = 30.0

    offline_words_per_second: Annotated[
        float, Field(ge=0, description="Pace at which the offline model's quotes appear; 0: at once.")
    ] = 60.0
