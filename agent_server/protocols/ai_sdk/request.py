"""The message in a request of the AI SDK's `useChat` or of a plain client."""

import hashlib
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from agent_server.bodies import refuse_unstorable
from agent_server.conversations.ids import LONGEST_ID
from agent_server.errors import InvalidInput
from agent_server.turns.accept import Message, OnBusy
from agent_server.turns.replacing import MessageName

KEY_LENGTH = 200


class UIPart(BaseModel):
    """One part of an AI SDK message. Only `text` parts are read."""

    # The SDK has many kinds of parts, each with fields of its own, and adds more.
    model_config = ConfigDict(extra="allow")

    type: str = Field(max_length=100)
    text: str | None = None


class UIMessage(BaseModel):
    """A message as `useChat` sends it."""

    model_config = ConfigDict(extra="allow")

    id: str | None = None
    role: Literal["user", "assistant", "system"]
    parts: list[UIPart] = Field(default_factory=list)


_ONLY_MESSAGE: JsonDict = {
    "required": ["message"],
    "properties": {"message": {"type": "string"}, "messages": {"type": "null"}},
}
_ONLY_MESSAGES: JsonDict = {
    "required": ["messages"],
    "properties": {"messages": {"type": "array"}, "message": {"type": "null"}},
}


def _describe_forms(schema: JsonDict) -> None:
    # Only the AI SDK's clients send fields that are not ours.
    del schema["additionalProperties"]
    known: JsonDict = {"propertyNames": {"enum": list(ChatRequest.model_fields)}}
    schema["oneOf"] = [_ONLY_MESSAGE | known, _ONLY_MESSAGES]


class ChatRequest(BaseModel):
    """A message to answer. It is `message` or the last of the AI SDK's `messages`.

    With `messages`, unknown fields are ignored: `useChat` adds whatever its page passes as `body`.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra=_describe_forms)

    id: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_ID,
        description="The conversation, by any of its ids; absent for a new one.",
    )
    message: str | None = Field(None, description="What the user says.")
    messages: list[UIMessage] | None = Field(None, description="As `useChat` sends them; earlier ones are not read.")
    agent: str | None = Field(
        None, max_length=100, description="Who answers, where it is not for the server to decide."
    )
    inputs: dict[str, Any] = Field(
        default_factory=dict, max_length=50, description="Values of the variables that prompts declare, by name."
    )
    on_busy: OnBusy = Field(
        "queue",
        description="While an answer is being written: wait behind it, be refused, be put into it, or stop it.",
    )
    cancel_on_disconnect: float | None = Field(
        None, ge=2, le=3600, description="Cancel the turn when nobody has followed it for so many seconds."
    )
    stream: bool = Field(True, description="False: one JSON document when the answer is complete.")
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    messageId: str | None = Field(
        None, max_length=KEY_LENGTH, description="The message that is edited or answered anew."
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_unknown(cls, body: Any) -> Any:
        if not isinstance(body, dict) or body.get("messages") is None:
            return body
        return {name: value for name, value in body.items() if name in cls.model_fields}

    @model_validator(mode="after")
    def _one_form(self) -> "ChatRequest":
        if (self.message is None) == (self.messages is None):
            raise ValueError("send either `message` (a text) or `messages` (AI SDK)")
        return self

    @property
    def text(self) -> str:
        if self.message is not None:
            return self.message
        last = self._last
        # Refused: left out silently, the answer would be about a file that nobody has read.
        if any(part.type == "file" for part in last.parts):
            raise InvalidInput("messages: files cannot be read; send text")
        return "".join(part.text or "" for part in last.parts if part.type == "text")

    @property
    def _key(self) -> str | None:
        """The AI SDK's id of the message as a key."""
        if self.messages is None or self._last.id is None:
            return None
        # With the chat's id: the client makes up both, and may use one message id in two chats.
        return f"message:{hashlib.sha256(f'{self.id}:{self._last.id}'.encode()).hexdigest()}"

    @property
    def name(self) -> MessageName | None:
        """What the AI SDK calls the message, which may be another version of one that it has sent before."""
        again = self.trigger == "regenerate-message"
        if self.messages is None and not again:
            return None
        named = (self.messageId, self._last.id if self.messages else None)
        ids = tuple(id for id in map(_turn_of, named) if id is not None)
        return MessageName(key=self._key, ids=ids, again=again, answer=_turn_of(self.messageId))

    @property
    def _last(self) -> UIMessage:
        said = [message for message in self.messages or () if message.role == "user"]
        if not said:
            raise InvalidInput("messages: there is no message of the user's")
        return said[-1]


def _turn_of(id: str | None) -> UUID | None:
    """Our turn that a message of this id belongs to: an answer has the turn's, and a question a number after it."""
    try:
        return UUID((id or "").partition(".")[0])
    except ValueError:
        return None


def read_message(request: ChatRequest, idempotency_key: str | None) -> Message:
    """The message that a request holds. Raises InvalidInput."""
    refuse_unstorable(request.id, ("id",))
    return Message(
        text=request.text,
        conversation_id=request.id,
        # `useChat` makes up its chat ids, and sends the first message with one.
        create=request.id is None or request.messages is not None,
        client_key=idempotency_key,
        name=request.name,
        agent=request.agent,
        inputs=request.inputs,
        on_busy=request.on_busy,
        leave_after=request.cancel_on_disconnect,
    )
