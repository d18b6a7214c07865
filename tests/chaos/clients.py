"""Clients as bad networks make them: each sends everything twice, drops its streams at random and resumes elsewhere."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.chaos.jobs import Job
from tests.chaos.replicas import Cluster
from tests.sse import Frame, read_frames

LAST = frozenset({"done", "failed", "cancelled"})
JOB_SECONDS = 150
"""How long a client waits for a turn and its end before it complains."""
SILENCE_SECONDS = 5.0
"""How long a client waits for the next byte before it tries another replica."""


class _Again(Exception):
    """An attempt came to nothing, as attempts may: try another replica."""


class _Refused(Exception):
    """An answer that no client should get; it is among the job's complaints."""


@dataclass
class Clients:
    """`counts` has the streams that were dropped on purpose, the connections that broke, and the 503s."""

    cluster: Cluster
    http: httpx.AsyncClient
    counts: Counter[str] = field(default_factory=Counter)

    async def talk(self, jobs: Sequence[Job]) -> None:
        """Send the messages of one conversation, one soon after the other, and follow each to its end."""
        conversation: str | None = None
        async with asyncio.TaskGroup() as following:
            for job in jobs:
                body = {"message": job.message} | ({"id": conversation} if conversation else {})
                try:
                    async with asyncio.timeout(JOB_SECONDS):
                        turn, conversation = await self._promise(job, body)
                except TimeoutError:
                    job.complaints.append("no turn was promised in time")
                except _Refused:
                    pass
                if conversation is None:
                    return
                for work in self._following(job, body, turn, conversation):
                    following.create_task(self._in_time(job, work))
                await asyncio.sleep(random.uniform(0, 0.3))

    async def read_whole(self, job: Job, conversation: str) -> None:
        """Read the AI SDK stream of a job once more, from its start and in one piece, to compare it with the pieces."""
        for _, whole in job.answers:
            await self._in_time(job, self._read_whole(job, conversation, whole))

    async def _promise(self, job: Job, body: dict[str, Any]) -> tuple[str, str]:
        """Send the message twice, together or one after the other."""
        if random.random() < 0.5:
            first, _ = await asyncio.gather(self._send(job, body), self._send(job, body))
        else:
            first = await self._send(job, body)
            await self._send(job, body)
        return first

    async def _send(self, job: Job, body: dict[str, Any]) -> tuple[str, str]:
        """Send until a turn is promised, and hang up."""
        while True:
            try:
                async with self._post(job, body) as response:
                    return response.headers["X-Turn-Id"], response.headers["X-Conversation-Id"]
            except _Again:
                continue

    def _following(self, job: Job, body: dict[str, Any], turn: str, conversation: str) -> Sequence[Awaitable[None]]:
        readers: list[Awaitable[None]] = [self._read_events(job, turn)]
        if random.random() < 0.3:
            readers.append(self._read_events(job, turn))
        if random.random() < 0.4:
            readers.append(self._read_answer(job, body, turn, conversation))
        if job.cancel:
            readers.append(self._cancel(job, turn))
        return readers

    async def _in_time(self, job: Job, work: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(JOB_SECONDS):
                await work
        except TimeoutError:
            job.complaints.append("a stream did not come to its end in time")
        except _Refused:
            pass

    async def _read_events(self, job: Job, turn: str) -> None:
        seen: list[Frame] = []
        job.streams.append(seen)
        while True:
            after = {"Last-Event-ID": str(seen[-1].id)} if seen else {}
            try:
                async with self._request(job, "GET", f"/api/turns/{turn}/events", after) as response:
                    if await self._read(response, seen):
                        return
            except _Again:
                continue

    async def _read_answer(self, job: Job, body: dict[str, Any], turn: str, conversation: str) -> None:
        """Read the AI SDK stream, at first of the request that asks for it."""
        seen: list[Frame] = []
        job.answers.append((seen, []))
        first = True
        while True:
            after = {"Last-Event-ID": str(seen[-1].id) if seen else f"{turn}:0"}
            path = f"/api/chat/{conversation}/stream"
            try:
                async with self._post(job, body) if first else self._request(job, "GET", path, after) as response:
                    first = False
                    if await self._read(response, seen):
                        return
            except _Again:
                continue

    async def _read_whole(self, job: Job, conversation: str, whole: list[Frame]) -> None:
        while True:
            whole.clear()
            after = {"Last-Event-ID": f"{job.promised[0]}:0"}
            try:
                async with self._request(job, "GET", f"/api/chat/{conversation}/stream", after) as response:
                    whole += [frame async for frame in read_frames(response) if frame.data != "[DONE]"]
                    return
            except _Again:
                continue

    async def _read(self, response: httpx.Response, seen: list[Frame]) -> bool:
        """Read on, and hang up at a random place; whether the stream came to its end."""
        left = random.choice((1, 2, 3, 5, 8, 13, 1000))
        async for frame in read_frames(response):
            if frame.data == "[DONE]":
                return True
            seen.append(frame)
            if frame.event in LAST:
                return True
            left -= 1
            if left == 0:
                self.counts["dropped"] += 1
                return False
        self.counts["broken"] += 1
        await asyncio.sleep(0.05)
        return False

    async def _cancel(self, job: Job, turn: str) -> None:
        await asyncio.sleep(random.uniform(0, 1.5))
        while True:
            try:
                async with self._request(job, "POST", f"/api/turns/{turn}/cancel"):
                    return
            except _Again:
                continue

    @asynccontextmanager
    async def _post(self, job: Job, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        async with self._request(job, "POST", "/api/chat", {"Idempotency-Key": job.key}, body) as response:
            job.promised.append(response.headers["X-Turn-Id"])
            yield response

    @asynccontextmanager
    async def _request(
        self, job: Job, method: str, path: str, headers: Mapping[str, str] | None = None, body: object = None
    ) -> AsyncIterator[httpx.Response]:
        """One attempt at one replica. Raises _Again and _Refused."""
        replica = random.choice(self.cluster.replicas)
        try:
            async with self.http.stream(method, f"{replica.url}{path}", headers=headers, json=body) as response:
                if response.status_code in (200, 202):
                    yield response
                    return
                await response.aread()
        except httpx.TransportError as error:
            self.counts["broken"] += 1
            await asyncio.sleep(0.1)
            raise _Again from error
        if response.status_code == 503 and "Retry-After" in response.headers:
            self.counts["unavailable"] += 1
            await asyncio.sleep(0.3)
            raise _Again
        job.complaints.append(f"{method} {path.rpartition('/')[2]}: {response.status_code} {response.text[:300]}")
        raise _Refused


@asynccontextmanager
async def clients(cluster: Cluster, key: str) -> AsyncIterator[Clients]:
    """The clients of one user."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    timeout = httpx.Timeout(SILENCE_SECONDS, connect=2, pool=None)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(headers=headers, limits=limits, timeout=timeout) as http:
        yield Clients(cluster, http)
