"""How an answer in Chat Completions ends, whichever client reads it."""

from collections.abc import Mapping
from typing import Literal

from openai.types.responses import Response
from openai.types.responses.response import IncompleteDetails

from agent_server.models.faults import Fault, broken_answer
from agent_server.models.thoughts import Thoughts

THOUGHT_IN_TEXT = {"thought": "in the text"}
"""Metadata of a response whose thoughts were parted from its text. No server is given those back."""

# What Chat Completions calls the reasons why an answer is not whole, as the SDK's responses name them.
_INCOMPLETE: Mapping[str, Literal["max_output_tokens", "content_filter"]] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}


def note_end(response: Response, reason: str | None, *, spoke: bool, tags: Thoughts) -> None:
    """Note in `response` why the answer is not whole, and whether thoughts were parted from its text.

    `reason` is what the stream gave for its end, `spoke` whether it had a word or a call. Raises Fault where there is no
    reason, or nothing before the longest answer was reached.
    """
    if reason is None:
        raise broken_answer()
    if reason == "length" and not spoke:
        raise Fault("The model reached its longest answer before it said anything", again=False)
    if reason in _INCOMPLETE:
        response.incomplete_details = IncompleteDetails(reason=_INCOMPLETE[reason])
    if tags.found:
        response.metadata = THOUGHT_IN_TEXT
