"""Results that are images, sounds, links and files, alone and mixed, as clients of both generations get them."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import mcp_types as types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from agent_server import Audio, Embedded, Image, Link, Surface, ToolContext, tool
from agent_server.caller import Caller
from agent_server.calls.call import Runtime, call_tool
from agent_server.db import Database
from agent_server.errors import ResultTooLarge
from agent_server.media import count_bytes, leave_out_bytes, returns_parts
from agent_server.results import tell_result
from agent_server.settings import Settings
from agent_server.tool import Tool
from tests.mcp.conftest import Mode, Notebook
from tests.mcp.notes import Notes

PIXEL = bytes([0x89, 0x50, 0x4E, 0x47, 0xFB, 0xFF, 0xFE])
"""Bytes whose Base64 differs between the alphabet of MCP and that of URLs."""


class Chart(BaseModel):
    """Numbers and what they are of."""

    title: str
    values: list[int]


@tool(scope="notes:read", effect="read")
async def draw(context: ToolContext) -> Image:
    """Draw a dot."""
    return Image(PIXEL, "image/png")


@tool(scope="notes:read", effect="read")
async def sing(context: ToolContext) -> Audio:
    """Sing a note."""
    return Audio(PIXEL, "audio/wav")


@tool(scope="notes:read", effect="read")
async def point(context: ToolContext) -> Link:
    """Say where the terms are."""
    return Link("https://shop.example/terms.pdf", "terms.pdf", title="Terms", mime_type="application/pdf", size=1234)


@tool(scope="notes:read", effect="read")
async def enclose(context: ToolContext, as_bytes: bool) -> Embedded:
    """Enclose a file."""
    if as_bytes:
        return Embedded("file:///dot.png", data=PIXEL, mime_type="image/png")
    return Embedded("file:///terms.txt", text="Pay first.", mime_type="text/plain")


@tool(scope="notes:read", effect="read")
async def mix(context: ToolContext) -> list[str | Image | Embedded]:
    """Say and draw."""
    return ["A dot:", Image(PIXEL, "image/png"), Embedded("file:///terms.txt", text="Pay first.")]


@tool(scope="notes:read", effect="read")
async def chart(context: ToolContext) -> Chart:
    """Give numbers."""
    return Chart(title="Dots", values=[1, 2])


@tool(scope="notes:write", effect="stored")
async def draw_large(context: ToolContext, size: int) -> Image:
    """Write a note and draw something of some size."""
    await context.repository(Notes).write("drawn")
    return Image(b"x" * size, "image/png")


@tool(scope="notes:send", effect="once")
async def send_large(context: ToolContext, size: int) -> str:
    """Send something and say as much."""
    return "x" * size


DECLARED = (draw, sing, point, enclose, mix, chart, draw_large, send_large)


@pytest.fixture
def tools() -> Mapping[str, Tool[..., Any]]:
    return {declared.name: declared for declared in DECLARED}


@pytest.fixture
def settings() -> Settings:
    return Settings(tool_result_limit=10_000, mcp_output_schemas=True)


async def call(notebook: Notebook, mode: Mode, name: str, **arguments: Any) -> types.CallToolResult:
    async with notebook.client(mode) as client:
        result = await client.call_tool(name, arguments)
    assert isinstance(result, types.CallToolResult)
    return result


async def test_each_part_comes_as_its_own_kind_of_content(notebook: Notebook, mode: Mode) -> None:
    data = base64.b64encode(PIXEL).decode()
    expected: dict[str, tuple[dict[str, Any], list[Any]]] = {
        "draw": ({}, [types.ImageContent(data=data, mime_type="image/png")]),
        "sing": ({}, [types.AudioContent(data=data, mime_type="audio/wav")]),
        "point": (
            {},
            [
                types.ResourceLink(
                    uri="https://shop.example/terms.pdf",
                    name="terms.pdf",
                    title="Terms",
                    mime_type="application/pdf",
                    size=1234,
                )
            ],
        ),
        "mix": (
            {},
            [
                types.TextContent(text="A dot:"),
                types.ImageContent(data=data, mime_type="image/png"),
                types.EmbeddedResource(resource=types.TextResourceContents(uri="file:///terms.txt", text="Pay first.")),
            ],
        ),
    }
    for name, (arguments, content) in expected.items():
        result = await call(notebook, mode, name, **arguments)
        assert result.content == content
        assert result.structured_content is None
        assert not result.is_error


async def test_a_file_is_enclosed_as_text_or_as_bytes(notebook: Notebook, mode: Mode) -> None:
    text = await call(notebook, mode, "enclose", as_bytes=False)
    data = await call(notebook, mode, "enclose", as_bytes=True)
    assert [each.resource for each in (*text.content, *data.content) if isinstance(each, types.EmbeddedResource)] == [
        types.TextResourceContents(uri="file:///terms.txt", text="Pay first.", mime_type="text/plain"),
        types.BlobResourceContents(uri="file:///dot.png", blob=base64.b64encode(PIXEL).decode(), mime_type="image/png"),
    ]


async def test_a_structured_result_is_listed_with_its_schema_and_parts_are_not(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        listed = {each.name: each.output_schema for each in (await client.list_tools()).tools}
    assert listed["chart"] is not None
    assert {name for name, schema in listed.items() if schema is None} == {
        "draw",
        "sing",
        "point",
        "enclose",
        "mix",
        "draw_large",
        "send_large",
    }
    assert (await call(notebook, mode, "chart")).structured_content == {"title": "Dots", "values": [1, 2]}


async def test_a_result_over_the_limit_is_an_error_and_nothing_is_kept(notebook: Notebook, mode: Mode) -> None:
    result = await call(notebook, mode, "draw_large", size=9_000)
    assert result.is_error
    assert result.content == [
        types.TextContent(
            text="result_too_large: The result of draw_large has 12055 bytes, and may have 10000; ask for less at once"
        )
    ]
    assert await notebook.notes() == []
    assert not (await call(notebook, mode, "draw_large", size=1_000)).is_error
    assert await notebook.notes() == ["drawn"]


async def test_of_a_large_result_of_what_happened_outside_it_is_said_that_it_happened(
    notebook: Notebook, mode: Mode
) -> None:
    result = await call(notebook, mode, "send_large", size=20_000)
    assert result.is_error
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].text.endswith("; the call has taken effect all the same")


@pytest.fixture
def runtime(database: Database) -> Runtime:
    return Runtime(settings=Settings(tool_result_limit=10_000), database=database)


async def test_rest_and_the_command_line_get_a_part_as_json(runtime: Runtime, me: Caller) -> None:
    surfaces: tuple[Surface, ...] = ("rest", "cli")
    for surface in surfaces:
        output = await call_tool(runtime, draw, {}, caller=me, surface=surface)
        assert output == {"type": "image", "data": base64.b64encode(PIXEL).decode(), "mime_type": "image/png"}
    with pytest.raises(ResultTooLarge):
        await call_tool(runtime, draw_large, {"size": 9_000}, caller=me, surface="rest")


async def test_a_turn_gets_what_a_part_is_without_its_bytes(runtime: Runtime, me: Caller) -> None:
    output = await call_tool(runtime, mix, {}, caller=me, surface="agent")
    assert output[1] == {"type": "image", "bytes": len(PIXEL), "mime_type": "image/png"}
    assert output[0] == "A dot:"
    assert tell_result("mix", mix, output) == tell_result("mix", mix, json.dumps(output))


async def test_a_person_reads_what_a_part_is(runtime: Runtime, me: Caller) -> None:
    told = {}
    for declared in (draw, sing, point, mix):
        output = await call_tool(runtime, declared, {}, caller=me, surface="cli")
        told[declared.name] = tell_result(declared.name, declared, output)
    assert told == {
        "draw": "An image (image/png, 7 bytes)",
        "sing": "A sound (audio/wav, 7 bytes)",
        "point": "Terms: https\\://shop.example/terms.pdf (application/pdf, 1 kB)",
        "mix": "A dot\\:\n\nAn image (image/png, 7 bytes)\n\nfile\\:///terms.txt: Pay first.",
    }


PARTS = st.one_of(
    st.text(),
    st.builds(Image, st.binary(min_size=1), st.just("image/png")),
    st.builds(Audio, st.binary(min_size=1), st.just("audio/wav")),
    st.builds(Embedded, st.just("file:///a"), data=st.binary()),
    st.builds(Embedded, st.just("file:///a"), text=st.text()),
    st.builds(Link, st.just("file:///a"), st.text(min_size=1)),
)


@given(st.lists(PARTS))
def test_what_a_turn_keeps_of_parts_has_their_sizes_and_none_of_their_bytes(parts: list[Any]) -> None:
    written = TypeAdapter(list[str | Image | Audio | Embedded | Link]).dump_python(parts, mode="json")
    kept = leave_out_bytes(written)
    for part, whole, small in zip(parts, written, kept, strict=True):
        data = None if isinstance(part, str | Link) else part.data
        if data is None:
            assert small == whole
        else:
            assert base64.b64decode(whole["data"]) == data
            assert "data" not in small
            assert count_bytes(small) == count_bytes(whole) == len(data)


def test_a_result_has_parts_where_its_type_says_nothing_else() -> None:
    parts: list[Any] = [Image, Image | None, list[Image], list[str | Link], str | Audio, tuple[Embedded, ...]]
    others: list[Any] = [str, list[str], dict[str, Image], list[int | Image], Chart, int | None, Image | int]
    assert [returns_parts(declared) for declared in (*parts, *others)] == [True] * len(parts) + [False] * len(others)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Image(b"x", "png"), "mime_type: 'png' is none"),
        (lambda: Image(b"x", "text/plain"), "is no image"),
        (lambda: Image(b"", "image/png"), "data: give the bytes"),
        (lambda: Image("eA==", "image/png"), "data: give the bytes"),  # type: ignore[arg-type]  # what is tested
        (lambda: Audio(b"x", "image/png"), "is no audio"),
        (lambda: Link("terms.pdf", "Terms"), "uri: 'terms.pdf' is none"),
        (lambda: Link("file:///a", ""), "name: say what is there"),
        (lambda: Embedded("file:///a"), "either text or data"),
        (lambda: Embedded("file:///a", text="a", data=b"a"), "either text or data"),
    ],
)
def test_a_part_that_cannot_be_sent_is_refused_where_it_is_made(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
