"""A model that gives again what a provider once answered.

The answers of one test are in one file: for each request its hash, and the answer as it came. Of a request only its
hash is kept, with the message that it ends with, so that a person can tell the answers apart. Headers are not kept:
they hold keys. What differs between two runs of the same test (ids, the time) counts as the same in the hash.
"""

import hashlib
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from agent_server.errors import InvalidInput
from agent_server.log import without_secrets
from agent_server.models.choice import choose_model
from agent_server.settings import Settings, load_settings
from agent_server.testing.wire import EVENTS, Reply, chunks, refuse, serve_openai

RECORD = "AGENT_SERVER_RECORD"
"""The environment variable that has a provider asked, and its answers kept."""

_OPENAI = "https://api.openai.com/v1"
_SECONDS = 120.0
_SHOWN = 200
_ID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b")
_TIME = r"(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"


@dataclass(frozen=True)
class Provider:
    """Who is asked while recording."""

    url: str
    key: SecretStr | None
    model: str


def find_provider(settings: Settings) -> Provider:
    """The provider of these settings. Raises InvalidInput where they name none that speaks Chat Completions."""
    model = choose_model(settings).name
    if not model.startswith("openai/"):
        raise InvalidInput(f"{RECORD}: set OPENAI_API_KEY, or OPENAI_BASE_URL and AGENT_SERVER_MODEL; there is {model}")
    name = model.removeprefix("openai/")
    if not name:
        raise InvalidInput(f"{RECORD}: name the model of OPENAI_BASE_URL in AGENT_SERVER_MODEL")
    return Provider((settings.openai_base_url or _OPENAI).rstrip("/"), settings.openai_api_key, name)


@dataclass
class RecordedOpenAI:
    """Answers from `file`, or asks `provider` and keeps its answers there in place of those of earlier runs."""

    file: Path
    provider: Provider | None = None
    name: str = "recorded"
    complaint: str | None = None
    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.provider is None and self.file.exists():
            self.answers = json.loads(self.file.read_text())

    async def reply(self, request: dict[str, Any]) -> Reply:
        key = hash_request(request)
        if self.provider is not None:
            return await self._record(self.provider, key, request)
        if (found := self.answers.get(key)) is None:
            self.complaint = (
                f"{self.file} has no answer to {_last_message(request)!r} as it is asked now. To ask the provider once "
                f"more and keep what it answers, run this test with {RECORD}=1 and OPENAI_API_KEY"
            )
            return refuse(400, self.complaint)
        return Reply(200, chunks("\n".join(found["answer"]).encode()), found["type"])

    async def _record(self, provider: Provider, key: str, request: dict[str, Any]) -> Reply:
        headers = {"Authorization": f"Bearer {provider.key.get_secret_value()}"} if provider.key else {}
        # The server under test knows the model as "recorded", so that the hash is the same with any provider.
        asked = {**request, "model": provider.model if request["model"] == self.name else request["model"]}
        async with httpx.AsyncClient(timeout=_SECONDS) as client:
            try:
                response = await client.post(f"{provider.url}/chat/completions", json=asked, headers=headers)
            except httpx.HTTPError as error:
                return self._fail(502, f"{provider.url} cannot be reached: {type(error).__name__}")
        if response.status_code != 200:  # what is wrong now must not be what is played later
            return self._fail(response.status_code, f"{provider.url} answered with status {response.status_code}")
        media_type = response.headers.get("Content-Type", EVENTS)
        self.answers[key] = {
            # The file is meant to be committed.
            "asked": without_secrets(_last_message(request)),
            "model": asked["model"],
            "type": media_type,
            # By lines, so that a change can be read in a diff.
            "answer": response.text.split("\n"),
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self.answers, indent=1, ensure_ascii=False) + "\n")
        return Reply(200, chunks(response.content), media_type)

    def _fail(self, status: int, complaint: str) -> Reply:
        self.complaint = complaint
        return refuse(status, complaint)


def hash_request(request: dict[str, Any]) -> str:
    """What two requests share that ask for the same at different times: ids and the present time are left out."""
    # Sorted: the order of keys in a request is no part of what it asks.
    text = json.dumps(request, sort_keys=True, ensure_ascii=False)
    today = datetime.now(UTC).date().isoformat()
    return hashlib.sha256(re.sub(today + _TIME, "<now>", _ID.sub("<id>", text)).encode()).hexdigest()[:32]


def _last_message(request: dict[str, Any]) -> str:
    content = request["messages"][-1].get("content") if request.get("messages") else None
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return text[:_SHOWN]


def open_recording(file: Path) -> RecordedOpenAI:
    """The recording in `file`, which the environment may ask to be made anew. Raises InvalidInput."""
    recording = os.environ.get(RECORD) == "1"
    return RecordedOpenAI(file, find_provider(load_settings()) if recording else None)


@asynccontextmanager
async def recorded_openai(file: Path) -> AsyncIterator[RecordedOpenAI]:
    """Serve a recording on a free port of this machine; its `url` is what OPENAI_BASE_URL takes."""
    model = open_recording(file)
    async with serve_openai(model) as model.url:
        yield model
