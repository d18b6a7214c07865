"""The name of the model that answers, where only its server knows it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from agent_server.errors import ModelFailed
from agent_server.models.choice import ModelChoice

AGAIN_SECONDS = 2.0
"""Until a server that did not say its models is asked again."""


class ServedModel:
    """The name of the model of `choice`. One that OPENAI_BASE_URL is to choose is asked for with `find`, by a task."""

    def __init__(self, choice: ModelChoice, find: Callable[[], Awaitable[str]]) -> None:
        self._choice, self._find = choice, find
        self._name = None if choice.of_server else choice.name
        self._asked, self._known = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.problem: str | None = None
        """Why the name is not known, once the server was asked in vain."""

    @property
    def name(self) -> str | None:
        """`provider/model`, or None until it is known."""
        return self._name

    @property
    def title(self) -> str:
        """The name for people."""
        return self._name or self._choice.title

    def start(self) -> None:
        """Begin to ask. It holds nothing up, and asks again for as long as the server does not answer."""
        if self._name is None:
            self._task = asyncio.create_task(self._learn())

    async def wait(self) -> str | None:
        """The name, or None where it was asked for in vain once."""
        if self._name is None:
            await self._asked.wait()
        return self._name

    async def wait_for_name(self) -> str:
        """The name, however long it takes."""
        if self._name is None:
            await self._known.wait()
        assert self._name is not None
        return self._name

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _learn(self) -> None:
        while True:
            try:
                self._name = f"{self._choice.name}{await self._find()}"
            except ModelFailed as error:
                self.problem = error.message
                self._asked.set()
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                self._asked.set()
                self._known.set()
                return
