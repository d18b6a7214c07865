"""The answer of a model with its citations checked, while it comes and when it is whole."""

from collections.abc import Collection

from openai.types.responses import Response, ResponseOutputItem, ResponseOutputMessage

from agent_server.citing.marks import MarkReader
from agent_server.models.answer import Display, message_text, with_text

INVENTED = "invented_citations"
"""Where the metadata of a response, and the usage of its turn, say how many numbers were left out of it."""


class CheckedDisplay:
    """Shows an answer with the citations that it may have. What is not decided yet waits for the next words.

    `allow` says which; without it the text is shown as it comes.
    """

    def __init__(self, shown: Display) -> None:
        self._shown = shown
        self.allow(None)

    def allow(self, known: Collection[int] | None) -> None:
        """Begin an answer that may cite these numbers. With None its text is shown as it comes."""
        self._known, self._reader = known, MarkReader(known or ())

    async def add(self, delta: str) -> None:
        if self._known is None:
            await self._shown.add(delta)
        elif text := self._reader.feed(delta):
            await self._shown.add(text)

    async def think(self, delta: str) -> None:
        await self._shown.think(delta)

    async def void(self) -> None:
        self._reader = MarkReader(self._known or ())
        await self._shown.void()

    def shorten(self) -> None:
        self._shown.shorten()

    async def finish(self, response: Response) -> Response:
        """Show what is left of the answer. Returns it as it was shown."""
        if self._known is None:
            return response
        if text := self._reader.finish():
            await self._shown.add(text)
        return check(response, self._known)


def check(response: Response, known: Collection[int]) -> Response:
    """The same answer with the citations that it may have. Its metadata say how many numbers were left out."""
    reader = MarkReader(known)
    outputs: list[ResponseOutputItem] = []
    last = max((i for i, output in enumerate(response.output) if isinstance(output, ResponseOutputMessage)), default=-1)
    for i, output in enumerate(response.output):
        if isinstance(output, ResponseOutputMessage):
            said = message_text(output)
            # One reader for all: they were shown as one text.
            read = reader.feed(said) + (reader.finish() if i == last else "")
            output = output if read == said else with_text(output, read)
        outputs.append(output)
    metadata = {**(response.metadata or {}), INVENTED: str(reader.dropped)} if reader.dropped else response.metadata
    return response.model_copy(update={"output": outputs, "metadata": metadata})


def count_invented(response: Response) -> int:
    """How many numbers were left out of an answer."""
    return int((response.metadata or {}).get(INVENTED, 0))
