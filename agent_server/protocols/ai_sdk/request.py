"""The message in a request of the AI SDK's `useChat` or of a plain client."""

import hashlib
from typing import Literal
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from agent_server.caller import Caller
from agent_server.errors import InvalidInput
from agent_server.turns.accept import Message, OnBusy

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


class ChatRequest(BaseModel):
    """A message to answer. It is `message` or the last of the AI SDK's `messages`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"oneOf": [_ONLY_MESSAGE, _ONLY_MESSAGES]})

    id: str | None = Field(None, max_length=100, description="The conversation; absent for a new one.")
    message: str | None = Field(None, description="What the user says.")
    messages: list[UIMessage] | None = Field(None, description="As `useChat` sends them; earlier ones are not read.")
    agent: str | None = Field(
        None, max_length=100, description="Who answers, where it is not for the server to decide."
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
    messageId: str | None = Field(None, max_length=KEY_LENGTH)

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
    def client_key(self) -> str | None:
        """The AI SDK's id of the message. It is None where a repeat is another send."""
        if self.messages is None or self.trigger != "submit-message" or self._last.id is None:
            return None
        # With the chat's id: the client makes up both, and may use one message id in two chats.
        return f"message:{hashlib.sha256(f'{self.id}:{self._last.id}'.encode()).hexdigest()}"

    @property
    def _last(self) -> UIMessage:
        said = [message for message in self.messages or () if message.role == "user"]
        if not said:
            raise InvalidInput("messages: there is no message of the user's")
        return said[-1]


def read_message(request: ChatRequest, caller: Caller, idempotency_key: str | None) -> Message:
    """The message that a request holds. Raises InvalidInput."""
    conversation_id, create = _read_conversation_id(request, caller)
    return Message(
        text=request.text,
        conversation_id=conversation_id,
        create=create,
        client_key=idempotency_key or request.client_key,
        agent=request.agent,
        on_busy=request.on_busy,
        leave_after=request.cancel_on_disconnect,
    )


def _read_conversation_id(request: ChatRequest, caller: Caller) -> tuple[UUID | None, bool]:
    """The conversation that is meant and whether to make it where it is not there.

    `useChat` makes up its chat ids, so that each stands for one conversation of this caller.
    """
    if request.id is None:
        return None, True
    if request.messages is not None:
        return client_conversation_id(request.id, caller), True
    return _parse_id(request.id), False


def client_conversation_id(id: str, caller: Caller) -> UUID:
    """Our id of the conversation that this caller's client calls `id`. Our own ids stand for themselves."""
    try:
        own = UUID(id)
    except ValueError:
        return uuid5(caller.id, id)
    # Ours are of version 7, and ids that clients make up are others. Made from the caller's id, the same chat id of two
    # callers is two conversations.
    return own if own.version == 7 else uuid5(caller.id, id)


def _parse_id(id: str) -> UUID:
    try:
        return UUID(id)
    except ValueError:
        raise InvalidInput("id: not a conversation's id; leave it out to begin a new one") from None
