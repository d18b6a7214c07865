"""The bare SDK behind HTTP, which everything is measured against: one agent, one tool, a stream, and nothing is kept.

OPENAI_BASE_URL=... OPENAI_API_KEY=... uvicorn bench.bare:app
"""

import json
from collections.abc import AsyncIterator

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel

PAGE = ("To reset your password open Settings, Security, Reset. " * 20)[:1000]

set_tracing_disabled(True)
app = FastAPI()


class Question(BaseModel):
    message: str


@function_tool
async def search_docs(query: str) -> str:
    """Search the product documentation."""
    return PAGE


agent = Agent(
    name="docs",
    instructions="You answer questions about the product. Search the docs first.",
    model=OpenAIChatCompletionsModel("scripted", AsyncOpenAI()),
    tools=[search_docs],
)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/api/chat")
async def chat(question: Question) -> StreamingResponse:
    async def frames() -> AsyncIterator[str]:
        result = Runner.run_streamed(agent, question.message)
        async for event in result.stream_events():
            if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
                yield f"data: {json.dumps({'type': 'text-delta', 'delta': event.data.delta})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(frames(), media_type="text/event-stream")
