"""What of the citations of a model is stored, shown, counted and opened."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from dirty_equals import IsPartialDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_server import Passage, Passages, ToolContext, tool
from agent_server.testing import Call, Say, ScriptedOpenAI, scripted_openai
from agent_server.testing.wire import Reply, serve_openai
from agent_server.workspace import Workspace, load_workspace
from tests.conftest import ROOT
from tests.server import Client, Start

FLYING = "How long should I wait before flying after diving?"


class InPieces:
    """A model that sends its answers in pieces, however they cut its citations."""

    name = "pieces"
    complaint: str | None = None

    def __init__(self, *pieces: str) -> None:
        self.pieces: Sequence[str] = pieces
        self.url = ""

    async def reply(self, request: dict[str, Any]) -> Reply:
        return Reply(200, self._frames())

    async def _frames(self) -> AsyncGenerator[bytes]:
        for piece in self.pieces:
            yield self._frame({"content": piece}, None)
        yield self._frame({}, "stop")
        yield b"data: [DONE]\n\n"

    def _frame(self, delta: dict[str, Any], finish: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        body = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
        return f"data: {json.dumps(body)}\n\n".encode()


@pytest.fixture
async def model() -> AsyncIterator[ScriptedOpenAI]:
    async with scripted_openai([]) as model:
        yield model


def shelf(name: str) -> Passages:
    page = Passage("", f"{name}.md", "shelf", name, name, "", start=0, end=9, score=0.5)
    return Passages(hits=[replace(page, id=f"{name}-{n}", text=f"Page {n} of {name}.") for n in (1, 2)])


@tool(scope="shelf:read", effect="read")
async def look_up(context: ToolContext, title: str) -> Passages:
    """Look a page up that is not in the content."""
    return shelf(title)


@pytest.fixture
def reader() -> Workspace:
    """One agent that finds passages by its tool alone."""
    reference = load_workspace(ROOT)
    agent = replace(reference.agents["knowledge"], tools=("look_up",), handoffs=(), knowledge=())
    return replace(reference, tools={"look_up": look_up}, agents={agent.name: agent}, entry=agent.name)


async def shown(client: Client, conversation: str) -> str:
    """The text of the last answer as a page that is opened later has it."""
    page = await client.get(f"/api/conversations/{conversation}/messages")
    text: str = page["items"][-1]["text"]
    return text


def streamed(frames: Sequence[Any]) -> str:
    return "".join(f.data["delta"] for f in frames if isinstance(f.data, dict) and f.data.get("type") == "text-delta")


@pytest.mark.parametrize(
    ("said", "kept", "dropped"),
    [
        ("Wait 18 hours [1].", "Wait 18 hours [1].", 0),
        ("Wait 18 hours [97].", "Wait 18 hours.", 1),
        ("Wait [1][98], or [1, 99].", "Wait [1], or [1].", 2),
        ("Wait 【1†source】 or 【97†source】.", "Wait [1] or.", 1),
        ("Wait [^1] (Source 98).", "Wait [1].", 1),
    ],
)
async def test_an_invented_citation_is_left_out_of_what_is_shown_and_stored_and_is_counted(
    start: Start, model: ScriptedOpenAI, said: str, kept: str, dropped: int
) -> None:
    model.script = [Say(said)]
    async with start(openai_base_url=model.url, model="m") as client:
        answer = await client.ask(FLYING)
        assert answer["text"] == kept == await shown(client, answer["conversation_id"])
        assert [source["n"] for source in answer["sources"]] == ([1] if "[1]" in kept else [])
        turn = await client.get(f"/api/turns/{answer['turn_id']}")
        assert turn["usage"].get("invented_citations", 0) == dropped


async def test_a_citation_that_chunks_cut_is_one_citation(start: Start) -> None:
    model = InPieces("Wait ", "[", "1", ",", " 9", "9", "] and ", "[9", "7", "]", " breathe 【", "1†so", "urce】", ".")
    async with serve_openai(model) as url, start(openai_base_url=url, model="m") as client:
        frames = await client.chat(FLYING)
        assert streamed(frames) == "Wait [1] and breathe [1]."
        sources = [f.data for f in frames if isinstance(f.data, dict) and f.data.get("type") == "source-document"]
        assert len(sources) == 1


PIECES = st.lists(
    st.sampled_from(
        ["Wait", " ", "[1", "]", "[", "1", "9", "97", ", ", "†source】", "【", "`", "```\n", "\n", ".", "(Source ", ")"]
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(pieces=PIECES)
async def test_the_stored_text_is_the_streamed_text(start: Start, pieces: list[str]) -> None:
    model = InPieces("Well: ", *pieces)
    async with serve_openai(model) as url, start(openai_base_url=url, model="m") as client:
        frames = await client.chat(FLYING)
        conversation = frames[0].data["messageMetadata"]["conversationId"]
        assert streamed(frames).strip() == await shown(client, conversation)  # a page shows no blanks at the end


async def test_numbers_go_on_in_a_conversation_and_stand_for_what_they_stood_for(
    start: Start, reader: Workspace, model: ScriptedOpenAI
) -> None:
    model.script = [
        Call("look_up", {"title": "Tides"}),
        Say("The moon does it [2]."),
        Call("look_up", {"title": "Waves"}),
        Say("The wind does it [3], the moon the tides [2], and [1] was never said, nor [7]."),
    ]
    async with start(workspace=reader, openai_base_url=model.url, model="m") as client:
        first = await client.ask("Why are there tides?")
        second = await client.ask("And why are there waves?", id=first["conversation_id"])
        assert {s["n"]: s["text"] for s in second["sources"]} == {3: "Page 1 of Waves.", 2: "Page 2 of Tides."}
        assert second["text"] == "The wind does it [3], the moon the tides [2], and was never said, nor."
        assert second["usage"] == IsPartialDict(invented_citations=2)


async def test_a_passage_that_is_found_again_keeps_its_number(
    start: Start, reader: Workspace, model: ScriptedOpenAI
) -> None:
    model.script = [
        Call("look_up", {"title": "Tides"}),
        Say("The moon does it [2]."),
        Call("look_up", {"title": "Tides"}),
        Say("As said [2], and see [3]."),
    ]
    async with start(workspace=reader, openai_base_url=model.url, model="m") as client:
        first = await client.ask("Why are there tides?")
        second = await client.ask("Once more?", id=first["conversation_id"])
        assert {s["n"]: s["text"] for s in second["sources"]} == {2: "Page 2 of Tides.", 3: "Page 1 of Tides."}


async def test_brackets_stay_where_no_passage_could_be_cited(
    start: Start, reader: Workspace, model: ScriptedOpenAI
) -> None:
    model.script = [Say("Sorted: [1, 2, 3]")]
    async with start(workspace=reader, openai_base_url=model.url, model="m") as client:
        answer = await client.ask("Sort 3, 1, 2")
        assert answer["text"] == "Sorted: [1, 2, 3]"
        assert "invented_citations" not in answer["usage"]
