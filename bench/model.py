"""The model that both servers are given: it asks for the one tool, then answers in 60 pieces."""

import json
from typing import Any

from agent_server.testing.wire import Reply, chunks

FIRST, LAST = "FIRST", "LAST"
"""The first and the last word of each answer, by which clients know it."""
_WORDS = (FIRST, *(f" word{i}" for i in range(1, 59)), f" {LAST}")


class Script:
    """Answers each request at once, in one piece of many frames, so that it is never what is waited for."""

    name = "scripted"
    complaint: str | None = None

    def __init__(self) -> None:
        self.instructions = ""
        """What it was told last before the conversation."""
        self._calls = 0
        self._answer = _stream(*({"content": word} for word in _WORDS), finish="stop")

    async def reply(self, request: dict[str, Any]) -> Reply:
        self.instructions = str([each["content"] for each in request["messages"] if each["role"] == "system"])
        if request["messages"][-1]["role"] != "user":
            return Reply(200, chunks(self._answer))
        self._calls += 1
        name = next(tool["function"]["name"] for tool in request["tools"] if "search" in tool["function"]["name"])
        function = {"name": name, "arguments": '{"query": "reset password"}'}
        call = {"index": 0, "id": f"call_{self._calls}", "type": "function", "function": function}
        return Reply(200, chunks(_stream({"tool_calls": [call]}, finish="tool_calls")))


def _stream(*deltas: dict[str, Any], finish: str) -> bytes:
    """The frames of Chat Completions, down to the one that ends the stream."""
    choices: list[dict[str, Any]] = [{"index": 0, "delta": {"role": "assistant", **delta}} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    bodies: list[dict[str, Any]] = [{"choices": [choice]} for choice in choices]
    bodies.append({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 60, "total_tokens": 160}})
    same = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": Script.name}
    return b"".join(f"data: {json.dumps({**same, **body})}\n\n".encode() for body in bodies) + b"data: [DONE]\n\n"
