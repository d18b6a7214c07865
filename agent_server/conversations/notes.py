"""What the reader of an answer should know about it."""

from collections.abc import Iterable
from typing import Literal

Finish = Literal["stop", "length", "content_filter"]

DECLINED = "declined"
DATA = "data"
"""An answer whose text is JSON of the shape that its agent asks for."""
HISTORY_SHORTENED = "history_shortened"
NOTES = {
    "length": "The answer ends here because the model has reached its longest answer.",
    "content_filter": "The answer ends here because the model's provider has filtered what came next.",
    HISTORY_SHORTENED: "The conversation has become too long for the model, which was given the later half of it.",
}
"""What is shown for the code of a note. The text of an answer that was `declined` says so itself."""


def finish_of(codes: Iterable[str]) -> Finish:
    """Why an answer with these notes ends."""
    noted = set(codes)
    if "length" in noted:
        return "length"
    return "content_filter" if noted & {"content_filter", DECLINED} else "stop"
