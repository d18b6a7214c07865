"""The server as the page sees it, with scripted answers: what a message contains decides what happens.

A script is a list of steps: a chunk to send, a `Gate` that waits until the test opens it, or a `Cut` that drops the
connection of whoever listens while the answer goes on. Frames are numbered and kept, so that a stream can be resumed.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_server import Chart, Column, Table
from agent_server.charts.drawing import Drawings
from agent_server.charts.looks import Look
from agent_server.charts.telling import list_charts, tell_figures
from agent_server.web.render import BlockRenderer, render_blocks

STATIC = Path(__file__).parents[2] / "agent_server" / "web" / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
Chunk = dict[str, Any]


@dataclass(frozen=True)
class Gate:
    """Wait here until the test calls `fake.open(name)`, or until the turn is stopped."""

    name: str


@dataclass(frozen=True)
class Cut:
    """Drop the connections that are open now; `clean` ends them as if complete."""

    clean: bool


Step = Chunk | Gate | Cut


@dataclass
class Turn:
    """An answer being given: its frames so far, for whoever follows it."""

    id: str
    conversation: str
    frames: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    cuts: dict[int, bool] = field(default_factory=dict)
    done: bool = False

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass
class Fake:
    """The state of the server and what has been asked of it."""

    address: str = ""
    offline: bool = True
    development: bool = True
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    conversations: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    turns: dict[str, Turn] = field(default_factory=dict)
    by_key: dict[str, Turn] = field(default_factory=dict)
    refusals: list[Response | None] = field(default_factory=list)  # what the next POSTs to /api/chat get instead
    feedback_refusals: list[Response] = field(default_factory=list)  # what the next ratings get instead
    word: str = "open"  # what became of the question "word-1"
    failure: str | None = None  # what its call fails with
    sent_forms: set[str] = field(default_factory=set)  # conversations whose form was sent
    has_changed: bool = False  # what would be lost has, since it was asked about
    documents: list[dict[str, Any]] = field(default_factory=list)  # of the user's own
    valid: set[str] = field(default_factory=lambda: {"as_key"})
    loop: asyncio.AbstractEventLoop | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _gates: dict[str, asyncio.Event] = field(default_factory=dict)

    drawings: Drawings = field(default_factory=Drawings)
    undrawn: str | None = None  # why there are no pictures of charts

    def gate(self, name: str) -> asyncio.Event:
        return self._gates.setdefault(name, asyncio.Event())

    def open(self, name: str) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.gate(name).set)

    def sent(self, method: str, path: str) -> list[tuple[dict[str, str], Any]]:
        """Headers and body of the requests so far to paths that begin so."""
        return [(headers, body) for m, p, headers, body in self.requests if m == method and p.startswith(path)]

    def converse(self, title: str, text: str, answer: str, *, age: timedelta = timedelta(), **extra: Any) -> str:
        """Store a conversation as if it had been held `age` ago."""
        id = str(uuid4())
        at = (datetime.now(UTC) - age).isoformat()
        self.conversations[id] = {"id": id, "title": title, "created_at": at, "updated_at": at, "agent": "safety"}
        self.messages[id] = [said(text), answered(answer, **extra)]
        self.messages[id][0]["id"] = f"{self.messages[id][1]['id']}.1"
        return id

    def touch(self, id: str) -> None:
        """The conversation is the latest one now."""
        self.conversations[id]["updated_at"] = datetime.now(UTC).isoformat()

    def add(self, id: str, text: str, answer: str) -> None:
        """A message and its answer that come from another device."""
        turn = str(uuid4())
        self.messages[id] += [said(text, id=f"{turn}.1"), answered(answer, id=turn)]
        self.touch(id)


def problem(
    status: int, detail: str, *, code: str = "error", headers: dict[str, str] | None = None, **extra: Any
) -> Response:
    body = {
        "type": "about:blank",
        "title": "Error",
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": "req-7",
    }
    return JSONResponse(body | extra, status, headers, media_type="application/problem+json")


# ---- scripts ----

FLYING = {
    "n": 1,
    "document": "safety/flying.md",
    "title": "Flying after diving",
    "heading": "Flying after diving > Waiting times",
    "passage": "0123456789ab",
    "text": "After a single no-stop dive, wait at least 12 hours before flying.",
}
MEDICINE = {
    "n": 2,
    "document": "safety/decompression-sickness.md",
    "title": "Decompression sickness",
    "heading": "Decompression sickness > Altitude and flights",
    "passage": "0123456789ac",
    "text": "Lower cabin pressure lets dissolved nitrogen form bubbles. Divers therefore wait before they fly.",
}
FLYING_ANSWER = """\
After diving you wait, because a cabin at altitude has less pressure and nitrogen that is still dissolved can form \
bubbles [2]. How long depends on the dives [1]:

| Dives before the flight | Wait at least |
|---|--:|
| one, without stops | 12 h |
| several, or on several days | 18 h |
| with decompression stops | 24 h |

These are minimums. **Longer is safer**, and the same holds for driving over a mountain pass [1, 2].
"""
CODE_ANSWER = """\
The surface interval in code:

```python
def hours_to_wait(dives: int, stops: bool = False) -> int:
    \"\"\"Whole hours before a flight.\"\"\"
    return 24 if stops else 18 if dives > 1 else 12  # minimums
```

Then call `hours_to_wait(2)`.
"""
HOSTILE_ANSWER = """\
<img src=x onerror="document.title='hacked'"> and <script>document.title='hacked'</script>

[click](javascript:document.title='hacked') and ![p](https://evil.test/p.png)
"""
FORM = {
    "tool": "capture_lead",
    "title": "Leave your address",
    "description": "The shop calls you back about the course.",
    "fields": [
        {"name": "name", "label": "Name", "type": "text", "required": True, "value": "Ada"},
        {"name": "email", "label": "E-mail", "type": "email", "required": True, "value": None},
        {
            "name": "level",
            "label": "Level",
            "type": "select",
            "required": False,
            "value": None,
            "options": ["Open water", "Advanced"],
        },
        {
            "name": "dives",
            "label": "Dives so far",
            "type": "number",
            "required": False,
            "value": None,
        },
        {"name": "note", "label": "Anything else", "type": "textarea", "required": False, "value": None},
    ],
}


PLACES = {"items": [{"name": "Komodo", "months": [4, 5]}, {"name": "Raja Ampat", "months": [10, 11]}]}
PLACES_HTML = """\
<div class="table"><table>
<thead><tr><th>Place</th><th>Best months</th></tr></thead>
<tbody><tr><td>Komodo</td><td>April and May</td></tr><tr><td>Raja Ampat</td><td>October and November</td></tr></tbody>
</table></div>"""
HEBREW = "כמה זמן לחכות?"
HEBREW_PAGE = {**FLYING, "title": "טיסה אחרי צלילה", "heading": "טיסה אחרי צלילה > זמני המתנה", "text": "יש לחכות."}
HEBREW_ANSWER = """\
יש לחכות [1]:

- יום אחד
- שני ימים

| צלילות | המתנה |
|---|---|
| אחת | יום |

```
wait(1)
```
"""


def agent(name: str, decided_by: str = "meaning") -> Chunk:
    return {
        "type": "data-agent",
        "data": {"name": name, "title": name.title(), "decided_by": decided_by, "confidence": 0.83},
    }


def tool(call: str, name: str, input: dict[str, Any], output: Any) -> list[Step]:
    ours = {"toolCallId": call, "dynamic": True, "providerExecuted": True}
    return [
        {"type": "start-step"},
        {"type": "tool-input-available", "toolName": name, "input": input, **ours},
        {"type": "tool-output-available", "output": output, **ours},
        {"type": "finish-step"},
    ]


def source(passage: dict[str, Any]) -> Chunk:
    return {
        "type": "source-document",
        "sourceId": str(passage["n"]),
        "mediaType": "text/markdown",
        "title": passage["title"],
        "filename": passage["document"],
        "providerMetadata": {"agentServer": passage},
    }


def text(id: str, text: str, known: set[int], *, pauses: dict[int, Step] | None = None) -> list[Step]:
    """The text word by word, with its blocks; `pauses` are steps before a word."""
    renderer, steps, so_far = BlockRenderer(), list[Step](), ""
    steps.append({"type": "text-start", "id": id})
    for i, word in enumerate(word for word in text.replace("\n", "\n ").split(" ")):
        if pauses and i in pauses:
            steps.append(pauses[i])
        delta = word if word.endswith("\n") else f"{word} "
        so_far += delta
        steps.append({"type": "text-delta", "id": id, "delta": delta})
        steps += [
            {"type": "data-html", "data": {"id": id, "i": k, "html": html}, "transient": True}
            for k, html in renderer.feed(so_far, known)
        ]
    return [*steps, {"type": "text-end", "id": id}]


FINISH: Chunk = {"type": "finish", "finishReason": "stop", "messageMetadata": {"agent": "safety", "usage": {}}}
SEARCH = tool(
    "call-1",
    "search_knowledge",
    {"query": "how long to wait before flying after diving", "limit": 5},
    {
        "hits": [
            {"document": "safety/flying.md", "score": 0.91},
            {"document": "safety/decompression-sickness.md", "score": 0.74},
        ]
    },
)


def _sales(title: str, shops: list[str]) -> Table:
    net = Column(name="net", label="Net sales", kind="money", currency="EUR")
    rows = [
        [f"2026-{month:02d}", shop, 9_876_543 + 1_234_500 * month * n]
        for month in range(1, 9)
        for n, shop in enumerate(shops)
    ]
    return Table(title=title, columns=[Column(name="month", kind="date"), Column(name="shop"), net], rows=rows)


def _figures(message: str, figure: Table | Chart) -> tuple[str, tuple[dict[str, Any], str]]:
    return message, (figure.model_dump(mode="json"), "".join(render_blocks(tell_figures([figure]))))


SALES, SALES_RTL = _sales("Sales by month", ["North", "South"]), _sales("מכירות לפי חודש", ["צפון", "דרום"])
FIGURES = dict(
    [
        _figures("Sales as a chart", Chart.stacked(SALES, x="month", y="net", series="shop")),
        _figures("מכירות", Chart.lines(SALES_RTL, x="month", y="net", series="shop")),
        _figures("Sales as a table", SALES),
    ]
)
"""Results with figures by the messages that ask for them: the data, and how it reads."""


def script(message: str) -> list[Step]:
    """What happens when a message with one of these words comes."""
    sources: list[Step] = [source(FLYING), source(MEDICINE)]
    if "fail slowly" in message:
        broken: Chunk = {"type": "error", "errorText": "The model did not answer in time"}
        return [agent("safety"), Gate("end"), broken, FINISH]
    if "slowly" in message:
        return [
            agent("safety"),
            *SEARCH,
            *sources,
            *text("t", FLYING_ANSWER, {1, 2}, pauses={76: Gate("slow")}),
            FINISH,
        ]
    if message in FIGURES:
        shown: Chunk = {"type": "data-tool", "data": {"id": "call-1", "html": FIGURES[message][1]}}
        *begun, last = tool("call-1", "report_sales", {}, FIGURES[message][0])
        return [agent("safety"), *begun, shown, last, *text("t", "Here it is.", set()), FINISH]
    if "thinking" in message:
        return [agent("safety"), Gate("thought"), *SEARCH, Gate("written"), *text("t", "Done.", set()), FINISH]
    if "out loud" in message:
        void = [
            {"type": "reasoning-start", "id": "thought-1"},
            {"type": "reasoning-delta", "id": "thought-1", "delta": "No."},
        ]
        thought = [
            {"type": "reasoning-delta", "id": "thought-2", "delta": part}
            for part in ("The user is in a hurry. ", "I keep it short.")
        ]
        note = {"type": "data-note", "data": {"code": "length", "text": "The answer ends here."}}
        reset = {"type": "data-reset", "data": {"id": "text-1"}}
        steps: list[Step] = [
            agent("safety"),
            *void,
            reset,
            *thought,
            *text("text-2", "Wait a day.", set()),
            note,
            FINISH,
        ]
        return steps
    if "broken" in message or "cut" in message:
        pauses: dict[int, Step] = {12: Cut(clean="cut" in message), 40: Cut(clean=True)}
        return [agent("safety"), *SEARCH, *sources, *text("t", FLYING_ANSWER, {1, 2}, pauses=pauses), FINISH]
    if "taken back citation" in message:
        taken_back: Chunk = {"type": "data-reset", "data": {"id": "t"}}
        return [
            agent("safety"),
            *sources,
            *text("t", "A false start [1].", {1, 2}),
            taken_back,
            *text("u", "So it is [2]: `a[2]`.", {1, 2}),
            FINISH,
        ]
    if "again" in message:
        return [
            agent("safety"),
            *text("t", "A false start", set()),
            {"type": "data-reset", "data": {"id": "t"}},
            *text("u", "The answer.", set()),
            FINISH,
        ]
    if "form" in message:
        return [
            agent("trip"),
            *tool("call-f", "offer_form", {"tool": "capture_lead"}, FORM),
            *text("t", "Fill this in and the shop will call you.", set()),
            FINISH,
        ]
    if "delete" in message:
        asked: Chunk = {"type": "data-confirmation", "id": "word-1", "data": {"id": "word-1", "call_id": "call-d"}}
        waiting = {"done": False, "confirmation": "word-1", "message": "Not done. Tell the user so."}
        return [
            agent("tasks"),
            *tool("call-d", "delete_task", {"task": "fins"}, waiting),
            asked,
            *text("t", "Please confirm that.", set()),
            FINISH,
        ]
    if "import" in message:
        begin, called, *returned = tool("call-i", "import_pages", {"from": "dives.csv"}, {"pages": 3})

        def far(done: float | None, total: float | None, said: str | None) -> Chunk:
            data = {"call_id": "call-i", "done": done, "total": total, "message": said}
            return {"type": "data-progress", "id": "call-i", "data": data}

        return [
            agent("tasks"),
            begin,
            called,
            far(None, None, "Reading <b>dives.csv</b>"),
            far(1, 4, "Reading page 1"),
            Gate("half"),
            far(3, 4, HEBREW),
            Gate("imported"),
            *returned,
            far(4, 4, "too late"),
            *text("t", "Three pages.", set()),
            FINISH,
        ]
    if "emergency" in message:
        page = "**Call the emergency number now.** Give oxygen. [1]\n\n"
        return [
            agent("safety"),
            source(FLYING),
            *text("text-0", page, {1}),
            agent("triage", "model"),
            agent("safety", "model"),
            *text("text-1", "Ask again when help is on its way.", set()),
            FINISH,
        ]
    if "destinations" in message:
        return [
            agent("trip"),
            *tool("call-p", "list_destinations", {"region": "Asia"}, PLACES),
            {"type": "data-tool", "data": {"id": "call-p", "html": PLACES_HTML}},
            *text("t", "Two of them.", set()),
            FINISH,
        ]
    if "hebrew" in message:
        return [
            agent("safety"),
            *tool("call-h", "note", {"text": HEBREW}, {"text": HEBREW}),
            source(HEBREW_PAGE),
            *text("t", HEBREW_ANSWER, {1}),
            FINISH,
        ]
    if "list of tasks" in message:
        return [agent("tasks"), *text("t", "- [x] buy fins\n- [ ] rent a **mask**", set()), FINISH]
    if "code" in message:
        return [agent("knowledge"), *text("t", CODE_ANSWER, set()), FINISH]
    if "hostile" in message:
        return [agent("knowledge"), *text("t", HOSTILE_ANSWER, set()), FINISH]
    if "hand over" in message:
        failed: Chunk = {
            "type": "tool-output-error",
            "toolCallId": "call-2",
            "errorText": "not_found: there is no dive 9",
        }
        return [
            agent("triage", "model"),
            agent("trip", "model"),
            *tool("call-2", "read_dive", {"dive": {"id": 9}}, None)[:2],
            failed,
            *text("t", "I found no such dive.", set()),
            FINISH,
        ]
    if "fail" in message:
        return [
            agent("safety"),
            *text("t", "The first words", set()),
            {"type": "error", "errorText": "The model did not answer in time"},
            FINISH,
        ]
    if "at length" in message:
        paragraph = "A long answer has many paragraphs, and the reader may scroll up while it is written.\n\n"
        return [
            agent("knowledge"),
            *text("t", paragraph * 12 + "<!-- -->\n\n" + paragraph * 12, set(), pauses={200: Gate("more")}),
            FINISH,
        ]
    return [agent("safety"), *SEARCH, *sources, *text("t", FLYING_ANSWER, {1, 2}), FINISH]


def said(text: str, status: str = "done", id: str = "") -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    return {"id": id or str(uuid4()), "role": "user", "text": text, "agent": None, "created_at": now, "status": status}


def answered(text: str, *, status: str = "done", **extra: Any) -> dict[str, Any]:
    sources = extra.pop("sources", [])
    message = said(text, status) | {
        "role": "assistant",
        "agent": "safety",
        "sources": sources,
        "tools": [],
        "error": None,
    }
    return message | {"html": render_blocks(text, {s["n"] for s in sources})} | extra


# ---- the server ----


def create_app(fake: Fake) -> ASGIApp:
    async def page(_: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def about(_: Request) -> Response:
        return JSONResponse(
            {
                "name": "Dive Centre",
                "development": fake.development,
                "model": {"name": "offline" if fake.offline else "gpt", "offline": fake.offline},
                "message_limit": 200,
                "suggestions": [
                    "How long must I wait before flying after diving?",
                    "Which destinations have manta rays?",
                    "Can I dive with a cold?",
                    "Remind me to buy fins",
                ],
            }
        )

    async def chat(request: Request) -> Response:
        body = await request.json()
        if fake.refusals and (refusal := fake.refusals.pop(0)):
            return refusal
        if refused := refuse(request):
            return refused
        headers = {}
        if "authorization" not in request.headers:
            token = f"guest-{uuid4()}"
            fake.valid.add(token)
            headers["X-Guest-Token"] = token
        key = request.headers["idempotency-key"]
        turn = fake.by_key.get(key) or fake.by_key.setdefault(key, accept(fake, body))
        headers |= {"X-Conversation-Id": turn.conversation, "X-Turn-Id": turn.id}
        return StreamingResponse(follow(turn, 0), media_type="text/event-stream", headers=headers)

    async def resume(request: Request) -> Response:
        turn = fake.turns.get(request.path_params["id"])
        last = request.headers.get("last-event-id")
        if refused := refuse(request):
            return refused
        if turn is None or (turn.done and not last):
            return Response(status_code=204)
        return StreamingResponse(follow(turn, int(last.split(":")[1]) if last else 0), media_type="text/event-stream")

    async def stop(request: Request) -> Response:
        fake.turns[request.path_params["id"]].stopped.set()
        return JSONResponse({}, 202)

    async def conversations(request: Request) -> Response:
        items = sorted(fake.conversations.values(), key=lambda c: str(c["updated_at"]), reverse=True)
        start = int(request.query_params.get("cursor", "0"))
        more = str(start + 50) if len(items) > start + 50 else None
        return refuse(request) or JSONResponse({"items": items[start : start + 50], "next_cursor": more})

    async def conversation(request: Request) -> Response:
        id = request.path_params["id"]
        if request.method == "DELETE":
            del fake.conversations[id]
            return Response(status_code=204)
        fake.conversations[id]["title"] = (await request.json())["title"]
        return JSONResponse(fake.conversations[id])

    async def messages(request: Request) -> Response:
        if refused := refuse(request):
            return refused
        if request.path_params["id"] not in fake.conversations:
            return problem(404, "There is no conversation with this id", code="not_found")
        items = fake.messages[request.path_params["id"]]
        for call in (call for item in items for call in item.get("tools", ()) if call["name"] == "offer_form"):
            call["sent"] = request.path_params["id"] in fake.sent_forms
        start = int(request.query_params.get("cursor", "0"))
        more = str(start + 10) if len(items) > start + 10 else None
        return JSONResponse({"items": items[start : start + 10], "next_cursor": more})

    async def passage(request: Request) -> Response:
        found = next((p for p in (FLYING,) if p["passage"] == request.path_params["id"]), None)
        if found is None:
            return problem(404, "The content has changed", code="not_found")
        long = "After a single no-stop dive, wait **at least 12 hours** before flying.\n\nAfter several dives, or several days of diving, wait at least 18 hours. After dives with required decompression stops, wait substantially longer: 24 hours or more."
        return JSONResponse(found | {"text": long, "html": "".join(render_blocks(long)), "start": 0, "end": 200})

    async def charts(request: Request) -> Response:
        turn = next(turn for turn in fake.turns.values() if turn.id == request.path_params["id"])
        chunks = [json.loads(frame.partition("data: ")[2]) for frame in turn.frames if "[DONE]" not in frame]
        output = next(chunk["output"] for chunk in chunks if chunk["type"] == "tool-output-available")
        look = Look("svg", request.query_params["theme"], request.query_params["narrow"] == "true")  # type: ignore[arg-type]  # as the page sends it
        drawn = []
        for chart in list_charts(output):
            svg = None if fake.undrawn else (await fake.drawings.draw(chart, look)).decode()
            drawn.append({"title": chart.title, "alt": chart.alt, "svg": svg, "note": fake.undrawn})
        return JSONResponse(drawn)

    async def feedback(request: Request) -> Response:
        if fake.feedback_refusals:
            return fake.feedback_refusals.pop(0)
        turn = request.path_params["id"]
        rated = next(m for said in fake.messages.values() for m in said if m["id"] == turn)
        rated["feedback"] = await request.json() if request.method == "PUT" else None
        return JSONResponse(rated["feedback"]) if request.method == "PUT" else Response(status_code=204)

    async def call(request: Request) -> Response:
        values = await request.json()
        if not values.get("email", "").endswith(".org"):
            return problem(
                422,
                "email: not an address we can write to",
                errors=[{"field": "email", "message": "Not an address we can write to."}],
            )
        fake.sent_forms.add(request.headers["x-conversation-id"])
        return JSONResponse({"id": "lead-1"})

    async def confirmation(request: Request) -> Response:
        row, title = ("mask" if request.path_params["id"] == "word-2" else "<b>fins</b>"), "Delete task"
        if request.method == "POST":
            if fake.word != "open":
                return problem(409, "This has been answered already", code="conflict")
            if fake.has_changed and request.path_params["id"] == "word-1":
                anew = {"id": "word-2", "title": title, "question": 'Delete the task "mask"?'}
                return problem(409, "Nothing was done", code="conflict", confirmation=anew)
            fake.word = "confirmed" if (await request.json())["confirm"] else "declined"
            if fake.failure and fake.word == "confirmed":
                return problem(409, fake.failure, code="conflict")
        done = (fake.failure is None) if fake.word == "confirmed" else None
        asked = {"id": request.path_params["id"], "title": title, "question": f'Delete the task "{row}"?'}
        return JSONResponse(
            asked | {"status": fake.word, "done": done, "error": fake.failure if done is False else None}
        )

    def refuse(request: Request) -> Response | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return (
            problem(401, "This token has expired", code="unauthorized") if token and token not in fake.valid else None
        )

    async def documents(request: Request) -> Response:
        if request.method == "DELETE":
            fake.documents = [each for each in fake.documents if each["id"] != request.path_params["id"]]
            return Response(status_code=204)
        if request.method == "POST":
            name, content = request.query_params["name"], await request.body()
            if not name.endswith(".md"):
                wrong = {"field": "name", "message": "this kind is not read; send .md"}
                return problem(422, "name: this kind is not read; send .md", errors=[wrong])
            added = {
                "id": name,
                "name": name,
                "title": content.decode().splitlines()[0].strip("# "),
                "size": len(content),
            }
            fake.documents.insert(0, {**added, "passages": 1, "updated_at": "2026-11-29T10:00:00Z"})
            return JSONResponse({**fake.documents[0], "remarks": []}, 201)
        size = sum(each["size"] for each in fake.documents)
        room = {"documents": len(fake.documents), "most_documents": 3, "size": size, "most_size": 2_000_000}
        room |= {"largest": 1_000_000, "kinds": [".md", ".pdf"]}
        return JSONResponse({"items": fake.documents, "next_cursor": None, "room": room})

    routes = [
        Route("/", page),
        Mount("/static", StaticFiles(directory=STATIC)),
        Route("/api/page", about),
        Route("/api/chat", chat, methods=["POST"]),
        Route("/api/chat/{id}/stream", resume),
        Route("/api/chat/{id}/stop", stop, methods=["POST"]),
        Route("/api/conversations", conversations),
        Route("/api/conversations/{id}", conversation, methods=["PATCH", "DELETE"]),
        Route("/api/conversations/{id}/messages", messages),
        Route("/api/turns/{id}/feedback", feedback, methods=["PUT", "DELETE"]),
        Route("/api/turns/{id}/charts/{call}", charts),
        Route("/api/passages/{id}", passage),
        Route("/api/documents", documents, methods=["GET", "POST"]),
        Route("/api/documents/{id}", documents, methods=["DELETE"]),
        Route("/api/confirmations/{id}", confirmation, methods=["GET", "POST"]),
        Route("/api/tools/{name}", call, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Recorded, fake=fake)])


def _read_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()  # a file


class Recorded:
    """Keeps every request for the tests, and sends the content policy with every response."""

    def __init__(self, app: ASGIApp, fake: Fake) -> None:
        self.app, self.fake = app, fake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        message = await receive()
        body = message.get("body") or b"null"
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.fake.loop = asyncio.get_running_loop()
        self.fake.requests.append((scope["method"], scope["path"], headers, _read_json(body)))
        first: list[Message] = [message]

        async def replayed() -> Message:
            return first.pop() if first else await receive()

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, replayed, with_policy)


def accept(fake: Fake, body: dict[str, Any]) -> Turn:
    """Store the message and start its answer, which goes on whether or not anyone listens."""
    id = body.get("id") or fake.converse(body["message"][:60], "", "")
    if "id" not in body:
        fake.messages[id] = []
    turn = fake.turns[id] = Turn(id=str(uuid4()), conversation=id)
    fake.messages[id].append(said(body["message"], "running", f"{turn.id}.1"))
    fake.touch(id)
    task = asyncio.get_running_loop().create_task(answer(fake, turn, script(body["message"])))
    fake.tasks.add(task)
    return turn


async def answer(fake: Fake, turn: Turn, steps: list[Step]) -> None:
    metadata = {"turnId": turn.id, "conversationId": turn.conversation}
    pending: list[Step] = [{"type": "start", "messageId": turn.id, "messageMetadata": metadata}, *steps]
    chunks: list[Chunk] = []
    status = "done"
    for step in pending:
        if isinstance(step, Gate):
            await either(fake.gate(step.name), turn.stopped)
            if turn.stopped.is_set():
                status = "cancelled"
                break
        elif isinstance(step, Cut):
            turn.cuts[len(turn.frames)] = step.clean
        else:
            chunks.append(step)
            turn.frames.append(f"id: {turn.id}:{len(turn.frames) + 1}\ndata: {json.dumps(step)}\n\n")
        turn.tell()
    if status == "cancelled":
        turn.frames.append('data: {"type":"abort"}\n\n')
    turn.done = True
    store(fake, turn, chunks, status)
    turn.tell()


def store(fake: Fake, turn: Turn, chunks: list[Chunk], status: str) -> None:
    texts: dict[str, str] = {}
    for chunk in chunks:
        if chunk["type"] == "text-delta":
            texts[chunk["id"]] = texts.get(chunk["id"], "") + chunk["delta"]
        if chunk["type"] == "data-reset":
            texts.pop(chunk["data"]["id"])
    sources = [c["providerMetadata"]["agentServer"] for c in chunks if c["type"] == "source-document"]
    calls = {
        c["toolCallId"]: {
            "call_id": c["toolCallId"],
            "name": c["toolName"],
            "input": c["input"],
            "output": None,
            "error": None,
            "html": None,
        }
        for c in chunks
        if c["type"] == "tool-input-available"
    }
    for chunk in chunks:
        if chunk["type"] == "tool-output-available":
            calls[chunk["toolCallId"]]["output"] = chunk["output"]
        if chunk["type"] == "data-tool":
            calls[chunk["data"]["id"]]["html"] = chunk["data"]["html"]
    failure = next((c["errorText"] for c in chunks if c["type"] == "error"), None)
    asked = next(m for m in fake.messages[turn.conversation] if m["id"] == f"{turn.id}.1")
    asked["status"] = status
    fake.touch(turn.conversation)
    fake.messages[turn.conversation].append(
        answered(
            "\n\n".join(texts.values()),
            id=turn.id,
            agent=next((c["data"]["name"] for c in reversed(chunks) if c["type"] == "data-agent"), None),
            sources=sources,
            tools=list(calls.values()),
            status="failed" if failure else status,
            error={"code": "model_failed", "message": failure} if failure else None,
        )
    )


async def follow(turn: Turn, position: int) -> AsyncIterator[str]:
    """Frames after `position`, until the end or a cut."""
    yield ": ping\n\n"
    start = position
    while True:
        changed = turn.changed
        while position < len(turn.frames):
            if position != start and (clean := turn.cuts.pop(position, None)) is not None:
                if clean:
                    return
                raise ConnectionAbortedError("a scripted cut")
            yield turn.frames[position]
            position += 1
        if turn.done:
            break
        await changed.wait()
    yield "data: [DONE]\n\n"


async def either(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


@contextmanager
def serving(app: Callable[[Fake], ASGIApp] = create_app) -> Iterator[Fake]:
    """The fake on a free port, in a thread of its own."""
    fake = Fake()
    config = uvicorn.Config(
        app(fake),
        host="127.0.0.1",
        port=0,
        log_level="critical",
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    fake.address = f"http://127.0.0.1:{socket.getsockname()[1]}/"
    thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.should_exit = True
        thread.join(10)
