"""Embeddings of another server: any that speaks OpenAI's `/v1/embeddings`, and every provider of litellm.

Texts go in batches, some at a time. What fails for the moment is asked for again, after the time that the server names;
what is wrong for good is told at once. `weight` is what the meaning counts for in a search beside the words.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent_server.errors import InvalidInput, Unavailable
from agent_server.late import Late
from agent_server.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = Late("numpy")

REMOTE = ("litellm", "openai")
OPENAI = "https://api.openai.com/v1"
BATCH = 64
AT_ONCE = 4
ATTEMPTS = 4
ATTEMPTS_OF_A_QUESTION = 2
LONGEST_WAIT = 30.0
MAX_CHARACTERS = 20_000
"""What is read of a longer text."""
_AGAIN = (408, 409, 425, 429)


class _Failed(Exception):
    """A request failed for now. `seconds` is the wait that the server asks for."""

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


Request = Callable[[Sequence[str]], Awaitable[list[list[float]]]]


class RemoteEmbedder:
    """Unit vectors of another server. A text of blanks alone has a vector of zeros, and is not sent."""

    is_cached = True

    def __init__(
        self,
        request: Request,
        *,
        model: str,
        dimensions: int,
        weight: float,
        timeout: float,
        made_by: Mapping[str, Any] | None = None,
    ) -> None:
        self._request, self._timeout, self.made_by = request, timeout, made_by
        self.name = f"{model}/{dimensions}"
        self.dimensions, self.weight = dimensions, weight

    async def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        said = [n for n, text in enumerate(texts) if text.strip()]
        waiting = asyncio.Semaphore(AT_ONCE)
        # Somebody waits for the answer to a question; an ingest has time.
        attempts = ATTEMPTS_OF_A_QUESTION if len(texts) == 1 else ATTEMPTS

        async def take(numbers: Sequence[int]) -> None:
            async with waiting:
                found = await self._ask([texts[n][:MAX_CHARACTERS] for n in numbers], attempts)
            vectors[list(numbers)] = self._check(found, len(numbers))

        tasks = [asyncio.create_task(take(said[first : first + BATCH])) for first in range(0, len(said), BATCH)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        return unit

    async def _ask(self, texts: Sequence[str], attempts: int) -> list[list[float]]:
        message = ""
        wait: float | None
        for attempt in range(1, attempts + 1):
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._request(texts)
            except TimeoutError:
                message, wait = f"does not answer within {self._timeout:g} s", 0.5
            except _Failed as error:
                message, wait = str(error), error.seconds
            if attempt < attempts:
                await asyncio.sleep(min(wait if wait is not None else 0.5 * 2**attempt, LONGEST_WAIT))
        raise Unavailable(f"The embedder {self.name} {message}; try again later")

    def _check(self, found: list[list[float]], count: int) -> "NDArray[np.float32]":
        sizes = {len(vector) for vector in found}
        if len(found) != count:
            raise InvalidInput(f"The embedder {self.name} gives {len(found)} vectors for {count} texts")
        if sizes != {self.dimensions}:
            raise InvalidInput(
                f"The embedder {self.name} gives vectors of {', '.join(map(str, sorted(sizes)))} numbers; set "
                f"AGENT_SERVER_EMBEDDER_DIMENSIONS to that"
            )
        checked: NDArray[np.float32] = np.asarray(found, dtype=np.float32)
        if not np.isfinite(checked).all():
            raise InvalidInput(f"The embedder {self.name} gives numbers that are none")
        return checked


def create_remote(settings: Settings) -> RemoteEmbedder:
    """The embedder of the settings. Raises InvalidInput for what is missing."""
    if problem := find_problem(settings):
        raise InvalidInput(problem)
    assert settings.embedder_model is not None and settings.embedder_dimensions is not None
    key = settings.embedder_key or (settings.openai_api_key if settings.embedder == "openai" else None)
    make = _openai if settings.embedder == "openai" else _litellm
    return RemoteEmbedder(
        make(settings.embedder_model, settings.embedder_url, key.get_secret_value() if key else None),
        model=settings.embedder_model,
        dimensions=settings.embedder_dimensions,
        weight=settings.embedder_weight,
        timeout=settings.embedder_timeout,
        made_by={
            "name": settings.embedder,
            "model": settings.embedder_model,
            "url": settings.embedder_url,
            "dimensions": settings.embedder_dimensions,
            "weight": settings.embedder_weight,
        },
    )


def find_problem(settings: Settings) -> str | None:
    """What is missing for the embedder of the settings."""
    if settings.embedder_model is None:
        return "AGENT_SERVER_EMBEDDER_MODEL: is missing; name the model, as in text-embedding-3-small"
    if settings.embedder_dimensions is None:
        return (
            "AGENT_SERVER_EMBEDDER_DIMENSIONS: is missing; it is how many numbers the model's vectors have, as in 1536"
        )
    url = urlsplit(settings.embedder_url or OPENAI)
    if url.scheme not in ("http", "https") or not url.hostname:
        return "AGENT_SERVER_EMBEDDER_URL: is no address; write it as in http://localhost:8080/v1"
    return None


def _openai(model: str, url: str | None, key: str | None) -> Request:
    address = f"{(url or OPENAI).rstrip('/')}/embeddings"
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def request(texts: Sequence[str]) -> list[list[float]]:
        import aiohttp  # noqa: PLC0415  # heavy

        body = {"model": model, "input": list(texts), "encoding_format": "float"}
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), trust_env=True) as session,
                session.post(address, json=body, headers=headers) as answer,
            ):
                if answer.status in _AGAIN or answer.status >= 500:
                    raise _Failed(f"answers {answer.status}", _read_wait(answer.headers.get("Retry-After")))
                if answer.status != 200:
                    said = (await answer.text())[:300]
                    raise InvalidInput(f"The embedder {model} at {address} answers {answer.status}: {said}")
                return _read_vectors(await answer.json(content_type=None))
        except (aiohttp.ClientError, OSError) as error:
            raise _Failed(f"cannot be reached: {type(error).__name__}") from error

    return request


def _litellm(model: str, url: str | None, key: str | None) -> Request:
    async def request(texts: Sequence[str]) -> list[list[float]]:
        import litellm  # noqa: PLC0415  # heavy

        try:
            answer = await litellm.aembedding(model=model, input=list(texts), api_base=url, api_key=key, max_retries=0)
        except Exception as error:  # noqa: BLE001  # each provider has exceptions of its own; litellm gives them a status
            status = getattr(error, "status_code", None)
            if isinstance(status, int) and status < 500 and status not in _AGAIN:
                raise InvalidInput(f"The embedder {model} answers {status}: {str(error)[:300]}") from None
            headers = getattr(getattr(error, "response", None), "headers", None) or {}
            raise _Failed(f"answers {status or type(error).__name__}", _read_wait(headers.get("retry-after"))) from None
        return _read_vectors({"data": [dict(one) for one in answer.data]})

    return request


def _read_vectors(answer: Any) -> list[list[float]]:
    try:
        rows = sorted(answer["data"], key=lambda row: row["index"])
        return [[float(number) for number in row["embedding"]] for row in rows]
    except (KeyError, TypeError, ValueError):
        raise InvalidInput("The embedder's answer has no list of vectors in `data`") from None


def _read_wait(value: str | None) -> float | None:
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        return None
