"""How much there may be of something, how often and how long."""

from typing import Annotated

from pydantic import BaseModel, Field, PositiveInt


class LimitSettings(BaseModel):
    """Settings of what is bounded."""

    message_limit: Annotated[PositiveInt, Field(description="Longest message of a user, characters.")] = 2_000
    history_limit: Annotated[PositiveInt, Field(description="Most stored items a model is given of earlier turns.")] = (
        40
    )
    queue_limit: Annotated[PositiveInt, Field(description="Most turns that wait in one conversation.")] = 5
    turns_per_user: Annotated[
        PositiveInt, Field(description="Most turns of a user that run at once, over all processes; more wait.")
    ] = 16
    turns_per_guest: Annotated[
        PositiveInt, Field(description="Most turns of a guest that run at once, over all processes; more wait.")
    ] = 4
    waiting_per_user: Annotated[
        PositiveInt, Field(description="Most turns of a user that wait in one process beside those; more: 429.")
    ] = 256
    waiting_per_guest: Annotated[
        PositiveInt, Field(description="Most turns of a guest that wait in one process beside those; more: 429.")
    ] = 8
    turns_per_process: Annotated[PositiveInt, Field(description="Most turns that run at once in one process.")] = 64
    waiting_per_process: Annotated[
        int, Field(ge=0, description="Most turns that wait in one process beside those; more: 503.")
    ] = 512
    turn_timeout: Annotated[float, Field(gt=0, description="Longest turn, seconds.")] = 300.0
    tool_timeout: Annotated[float, Field(gt=0, description="Longest tool call, seconds.")] = 30.0
    long_tool_timeout: Annotated[float, Field(gt=0, description="The same for a tool declared `long`, seconds.")] = (
        3_600.0
    )
    tasks_per_user: Annotated[PositiveInt, Field(description="Most MCP tasks of a user that are open at once.")] = 16
    tasks_per_process: Annotated[
        PositiveInt, Field(description="Most MCP tasks that run at once in one process; more wait.")
    ] = 16
    task_hours: Annotated[PositiveInt, Field(description="How long an MCP task and its result are kept, hours.")] = 24
    tool_result_limit: Annotated[PositiveInt, Field(description="Largest result of a tool as JSON, bytes.")] = 1_048_576
    model_calls_per_turn: Annotated[PositiveInt, Field(description="Most model calls in one turn.")] = 12

    event_hours: Annotated[
        PositiveInt, Field(description="How long the stream of a finished turn can be replayed, hours.")
    ] = 48
    call_hours: Annotated[
        PositiveInt, Field(description="How long the model and tool calls of a finished turn are on record, hours.")
    ] = 720
    deleted_days: Annotated[
        PositiveInt | None,
        Field(description="How long deleted rows of `SoftDeleted` tables can be restored, days; without, for good."),
    ] = None

    rate_per_caller: Annotated[int, Field(ge=0, description="Most requests of a caller in a minute; 0: any.")] = 600
    rate_per_address: Annotated[int, Field(ge=0, description="Most requests from an address in a minute; 0: any.")] = (
        1200
    )
    rate_guests_per_address: Annotated[
        int, Field(ge=0, description="Most new guests from an address in an hour; 0: any.")
    ] = 120

    search_limit: Annotated[int, Field(ge=1, le=20, description="Passages a question is answered from.")] = 5
    # Set for the cosines of the default embedder; those of another may lie higher or lower.
    search_min_score: Annotated[
        float, Field(ge=0, description="Passages scoring below this are not relevant (0 to 1.5, see docs).")
    ] = 0.25

    documents_per_user: Annotated[
        int, Field(ge=0, description="Most documents that a user has of their own; 0: none are taken.")
    ] = 100
    document_bytes_per_user: Annotated[
        PositiveInt, Field(description="Most bytes of a user's own documents together, of files or of their texts.")
    ] = 20_000_000
    document_limit: Annotated[PositiveInt, Field(description="Largest file of an own document, bytes.")] = 10_000_000
