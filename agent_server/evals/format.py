"""What may stand in a file of cases.

The file is a dataset of pydantic-evals: a `name`, and `cases` with a `name`, `inputs`, `expected_output`, `evaluators`
and `metadata`. What is ours is under `metadata`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Kind = Literal["user", "guest"]
Order = Literal["exact", "in_order", "any_order"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CallerOfCase(_Part):
    """Who sends the messages. Each case has a caller of its own, who has no rows yet."""

    kind: Kind = Field("user", description="A user, or a guest.")
    scopes: tuple[str, ...] | None = Field(
        None, description="What they may do, as in [tasks:read]; by default what the role `user`, or a guest, may."
    )


class ExpectedCall(_Part):
    """A call of a tool that is expected."""

    tool: str = Field(description="The tool.")
    arguments: dict[str, Any] | None = Field(None, description="All of its arguments; any when absent.")
    some_arguments: dict[str, Any] = Field({}, description="Some of its arguments; the others may be any.")


class Stub(_Part):
    """What a tool returns in a case, in place of being called."""

    tool: str = Field(description="The tool.")
    arguments: dict[str, Any] | None = Field(None, description="The arguments it is for; any when absent.")
    returns: Any = Field(None, description="Its result, as `agent-server tool call` prints it.")
    error: str | None = Field(None, description="What it fails with, as in `not_found: There is no such task`.")


class Expected(_Part):
    """What is expected of an answer. What is absent is not looked at."""

    agent: str | None = Field(None, description="The agent that answers.")
    calls: tuple[ExpectedCall, ...] | None = Field(None, description="The tools it calls; [] for none.")
    order: Order = Field(
        "exact",
        description="exact: these calls and no other; in_order: these, with others between; any_order: these, wherever.",
    )
    no_tool: bool | None = Field(None, description="Whether it calls no tool.")
    citations: tuple[str, ...] | None = Field(
        None, description="Documents that it cites, as in guide/tools.md; others may be cited too. [] for none."
    )
    contains: tuple[str, ...] = Field((), description="Texts in the answer, in whatever capitals.")
    not_contains: tuple[str, ...] = Field((), description="Texts that are not in it.")
    matches: tuple[str, ...] = Field((), description="Regular expressions that are found in it.")
    not_matches: tuple[str, ...] = Field((), description="Regular expressions that are not found in it.")
    refusal: bool | None = Field(
        None,
        description="Whether it refuses: the model or its provider does, or its first sentence says that it cannot.",
    )
    declined: bool | None = Field(
        None, description="Whether it has no answer: it cites nothing, and no tool has given it a result."
    )
    out_of_scope: bool = Field(
        False, description="Whether the message is about nothing that an agent takes; routing is measured with it."
    )
    max_tokens: int | None = Field(None, ge=0, description="Tokens that the models read and wrote, at most.")
    max_cost: float | None = Field(None, ge=0, description="What that costs, US dollars, at most.")
    max_seconds: float | None = Field(None, ge=0, description="How long the turn takes, at most.")
    judge: str | None = Field(None, description="What a model is asked whether it is so. Off without a model.")

    @field_validator("calls", mode="before", json_schema_input_type=list[str | ExpectedCall] | str | None)
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        calls = [value] if isinstance(value, str | Mapping) else value
        return [{"tool": call} if isinstance(call, str) else call for call in calls] if calls is not None else None

    @field_validator(
        "citations",
        "contains",
        "not_contains",
        "matches",
        "not_matches",
        mode="before",
        json_schema_input_type=list[str] | str,
    )
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("matches", "not_matches")
    @classmethod
    def _compile(cls, value: Sequence[str]) -> Sequence[str]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression ({error})") from None
        return value

    @property
    def is_empty(self) -> bool:
        return self.model_dump(exclude={"order", "out_of_scope"}, exclude_defaults=True) == {}


class Metadata(_Part):
    """What a case says beside its messages."""

    caller: CallerOfCase = Field(CallerOfCase(), description="`user`, `guest`, or {kind, scopes}.")
    profile: dict[str, Any] = Field({}, description="What is known of the caller.")
    agent: str | None = Field(None, description="The agent that takes the messages; they are routed when absent.")
    stubs: tuple[Stub, ...] = Field((), description="What tools return. A `keyed` or `once` tool never runs without.")
    expect: Expected | tuple[Expected | None, ...] = Field(
        Expected(), description="What is expected of the last answer; a list for each answer of a conversation."
    )
    note: str = Field("", description="For whoever reads the file.")

    @field_validator("caller", mode="before", json_schema_input_type=Kind | CallerOfCase)
    @classmethod
    def _by_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class CaseBody(_Part):
    """A case as it stands in its file."""

    name: str = Field(min_length=1, description="What it shows, as a sentence.")
    inputs: str | tuple[str, ...] = Field(description="The message, or the messages of a conversation in order.")
    metadata: Metadata = Field(Metadata(), description="Caller, profile, agent, stubs, and what is expected.")
    expected_output: Any = Field(None, description="An answer to compare with, for `evaluators` and the judge.")
    evaluators: tuple[Any, ...] = Field((), description="Evaluators of pydantic-evals, as in `- Contains: bread`.")

    @field_validator("inputs")
    @classmethod
    def _not_empty(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value or not all(text.strip() for text in ([value] if isinstance(value, str) else value)):
            raise ValueError("is empty")
        return value


class FileBody(_Part):
    """A file of cases."""

    name: str | None = Field(None, description="What the cases are about.")
    cases: tuple[CaseBody, ...] = Field(description="The cases.")
    evaluators: tuple[Any, ...] = Field((), description="Evaluators of pydantic-evals for every case.")
    schema_: str | None = Field(None, alias="$schema", description="The JSON Schema of this file.")


def case_schema() -> dict[str, Any]:
    """The JSON Schema of a file of cases, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **FileBody.model_json_schema()}
