"""What one request costs the event loop, measured in the time of the processor that the loop takes in one go.

A server has a thread and a loop of its own here, whose selector sees when the loop takes up work and when it is done.
"""

import asyncio
import json
import queue
import selectors
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from agent_server.db import Database
from agent_server.testing import Say, scripted_openai
from agent_server.turns.events import TextDelta, body_of, unfold
from agent_server.turns.references import SAID
from tests.conftest import everything
from tests.fuzz import UNLIMITED
from tests.server import starter

AIM = 0.05
"""Seconds of processor time that one request may take in one go."""
LIMIT = 5 * AIM
"""What fails here: a machine may be five times as slow as one that this was measured on."""

SIZE = 900_000
PIECES = (
    "1 ",
    "4 11-",
    "?",
    "[",
    "`",
    "*a ",
    "> ",
    "a@",
    "http://a",
    "eyJ",
    "A1a",
    "\\",
    "<a ",
    "| ",
    "\u202e",
    "basic ",
)
LONG = [piece * (SIZE // len(piece.encode())) for piece in PIECES]
READ = ("/api/chat", "/api/tools/search_knowledge", "/api/tools/create_task", "/api/tools/search_sites", "/api/lead")
FENCES = ("java", "c", "cpp", "console", "ini", "markdown", "python", "html", "sql", "yaml")
ANSWERS = [
    *(f"```{name}\n{'a a a ' * 2_300}\n```" for name in FENCES),
    "[" * 20_000,
    "> " * 2_000 + "x",
    "| a " * 40 + "|\n" + "|---" * 40 + "|\n" + ("| b " * 40 + "|\n") * 60,
    "*a_ " * 3_000,
    "`" * 4_000 + "a" + "``" * 4_000,
    "http://a?" * 2_000,
    "- a\n" * 2_000,
]


class _Watch(selectors.DefaultSelector):
    """A loop's selector that knows how much the loop has done between two looks for events."""

    longest = 0.0
    _since: float | None = None

    def select(self, timeout: float | None = None) -> Any:
        if self._since is not None:
            self.longest = max(self.longest, time.thread_time() - self._since)
        events = super().select(timeout)
        self._since = time.thread_time()
        return events


@dataclass
class _Served:
    """A server in a thread of its own. `costs` are those of the requests so far, by what was asked."""

    http: httpx.Client
    key: str
    new_key: Callable[[], str]
    watch: _Watch
    url: str
    costs: dict[str, float] = field(default_factory=dict)

    def ask(self, method: str, path: str, *, known: bool = True, label: str = "", **more: Any) -> httpx.Response:
        headers = {**({"Authorization": f"Bearer {self.key}"} if known else {}), **more.pop("headers", {})}
        self.watch.longest = 0.0
        response = self.http.request(method, path, headers=headers, **more)
        if known and response.status_code == 401:  # a request before this one has ended the credential
            self.key = self.new_key()
            self.watch.longest = 0.0
            response = self.http.request(
                method, path, headers={**headers, "Authorization": f"Bearer {self.key}"}, **more
            )
        assert response.status_code < 500, (method, path[:60], label, response.text[:200])
        name = f"{method} {path[:60]} {label}{'' if known else ' by nobody'}"
        self.costs[name] = max(self.costs.get(name, 0.0), self.watch.longest)
        return response

    def check(self) -> None:
        """Nothing that was asked has held up the loop."""
        worst = sorted(self.costs.items(), key=lambda cost: -cost[1])[:5]
        assert worst[0][1] < LIMIT, worst


@contextmanager
def _served(url: str, answers: list[str], **settings: Any) -> Iterator[_Served]:
    begun: queue.Queue[Any] = queue.Queue()
    watch = _Watch()

    async def serve() -> None:
        database, ended = Database(url), asyncio.Event()
        async with (
            scripted_openai([Say(answer, whole=True) for answer in answers]) as model,
            starter(database, stocked=True)(
                **UNLIMITED, **settings, **({"openai_base_url": model.url, "model": "scripted"} if answers else {})
            ) as client,
        ):
            loop = asyncio.get_running_loop()

            def new_key() -> str:
                return asyncio.run_coroutine_threadsafe(client.new_key("*"), loop).result(60)

            begun.put((str(client.http.base_url), client.key, new_key, loop, ended))
            await ended.wait()
        await database.close()

    def run() -> None:
        try:
            asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(watch)).run(serve())
        except BaseException as error:  # noqa: BLE001  # the test must not wait for what does not come
            begun.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    got = begun.get(timeout=60)
    if isinstance(got, BaseException):
        raise got
    base, key, new_key, loop, ended = got
    try:
        with httpx.Client(base_url=base, timeout=60) as http:
            yield _Served(http, key, new_key, watch, url)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(60)


def _bodies(names: list[str], texts: list[str]) -> Iterator[tuple[str, str]]:
    """Bodies of about a megabyte for an operation that takes fields of these names, with what is the matter."""
    yield from _of_any_names()
    yield "deep", json.dumps({name: json.loads("[" * 90 + "1" + "]" * 90) for name in names or ["a"]})
    yield "deep and broken", '{"a":' * 180_000
    yield "a huge number", "1" * SIZE
    yield "many numbers", _each(names, json.dumps([1e300] * (15_000 // len(names)) if names else [1] * 15_000))
    for piece in texts:
        share = len(piece) // max(len(names), 1)
        yield f"texts of {piece[:4]!r}", _each(names, json.dumps(piece[:share], ensure_ascii=False))


@cache
def _of_any_names() -> list[tuple[str, str]]:
    names = [(f"a name of {piece[:4]!r}", json.dumps({piece: 1}, ensure_ascii=False)) for piece in LONG[:4]]
    many = json.dumps({f"{n} {n} 4111 1111": n for n in range(15_000)})
    return [*names, ("many names", many), ("too many names", json.dumps({f"{n}": n for n in range(70_000)}))]


def _each(names: list[str], value: str) -> str:
    """An object with the same value, which is JSON, under each of the names; the value alone where there are none."""
    # written once, since to write a megabyte costs the test more than it costs the server to read it
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name in names) + "}" if names else value


def _names_of(operation: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    content: dict[str, Any] = operation.get("requestBody", {}).get("content", {})
    schema: dict[str, Any] = next(iter(content.values()))["schema"] if content else {}
    for one in (schema, *schema.get("anyOf", ())):
        if reference := one.get("$ref"):
            one = document["components"]["schemas"][reference.rpartition("/")[2]]
        if "properties" in one:
            return list(one["properties"])
    return []


def test_no_route_and_no_tool_is_held_up_by_a_body_of_a_megabyte(stocked_url: str) -> None:
    with _served(stocked_url, []) as server:
        document = server.ask("GET", "/openapi.json").json()
        odd = "1%20" * 1_500
        for n, (path, operations) in enumerate(document["paths"].items()):
            filled = path.replace("{", "\0").split("\0")
            address = odd.join(part.partition("}")[2] if "}" in part else part for part in filled)
            # What is only checked and stored goes one way with each text; these look into it.
            texts = LONG if path in READ else LONG[n % 4 :: 4]
            for method, operation in operations.items():
                names = _names_of(operation, document)
                for known, step in ((True, 1), (False, 5 if "/api/tools/" in path else 1)):
                    query = {p["name"]: LONG[0][:1_500] for p in operation.get("parameters", ()) if p["in"] == "query"}
                    server.ask(method.upper(), address, known=known, params=query, label="address")
                    if "requestBody" not in operation:
                        continue
                    for label, body in list(_bodies(names, texts if known else texts[:1]))[::step]:
                        json_type = {"Content-Type": "application/json"}
                        server.ask(
                            method.upper(), address, known=known, label=label, content=body.encode(), headers=json_type
                        )
        server.check()


def test_no_method_of_mcp_is_held_up_by_a_body_of_a_megabyte(stocked_url: str) -> None:
    headers = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": "2025-11-25",
    }
    with _served(stocked_url, []) as server:

        def call(method: str, params: Any, label: str, arguments: str = "") -> httpx.Response:
            """Send a request. `arguments` is JSON, which goes as it is where the parameters say ARGUMENTS."""
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, ensure_ascii=False)
            body = body.replace('"ARGUMENTS"', arguments) if arguments else body
            return server.ask("POST", "/mcp", label=f"{method[:40]} {label}", content=body.encode(), headers=headers)

        answered = call("tools/list", {}, "").text
        listed = json.loads(answered[answered.index("{") :])["result"]["tools"]
        for tool in listed:
            names = list(tool["inputSchema"]["properties"])
            for label, body in list(_bodies(names, LONG))[
                :: 1 if tool["name"] in ("search_knowledge", "create_task") else 6
            ]:
                try:
                    json.loads(body)
                except (ValueError, RecursionError):
                    continue
                params = {"name": tool["name"], "arguments": "ARGUMENTS"}
                call("tools/call", params, f"{tool['name']} {label}", body)
        for piece in LONG:
            for method, params in (
                ("resources/read", {"uri": f"content://{piece}"}),
                ("tools/call", {"name": piece, "arguments": {}}),
                ("prompts/get", {"name": piece}),
                ("completion/complete", {"ref": {"type": "ref/prompt", "name": piece}, "argument": {"name": "a", "value": "b"}}),
                ("tools/list", {"cursor": piece}),
                ("resources/list", {"cursor": piece, "_meta": {piece: 1}}),
                ("initialize", {"protocolVersion": piece, "capabilities": {}, "clientInfo": {"name": piece, "version": "1"}}),
                ("ping", {"a": piece}),
                (piece, {}),
            ):  # fmt: skip
                call(method, params, repr(piece[:4]))
        server.check()


async def _split_texts(database: Database, turn: UUID) -> None:
    """Have the log of a turn hold its text in many small events, as a model writes it that takes its time."""
    async with everything(database) as session:
        rows = (
            await session.execute(
                text(f"select owner_id, seq, kind, body, at, {SAID} from event e where turn_id = :turn order by seq"),
                {"turn": turn},
            )
        ).all()
        events = [(row, numbered.event) for row in rows for numbered in unfold(row.seq, row.kind, row.body, row.said)]
        said = "".join(event.text for _, event in events if isinstance(event, TextDelta))
        step = max(len(said) // 370, 20)
        split: list[Any] = []
        for row, event in events:
            if not isinstance(event, TextDelta):
                split.append((row, event.kind, body_of(event)))
            elif said:
                parts = [said[start : start + step] for start in range(0, len(said), step)]
                split += [(row, event.kind, {**body_of(event), "text": part}) for part in parts]
                said = ""
        await session.execute(text("delete from event where turn_id = :turn"), {"turn": turn})
        await session.execute(
            text("""
                insert into event (owner_id, turn_id, seq, kind, body, at)
                values (:owner, :turn, :seq, :kind, cast(:body as json), :at)"""),
            [
                {
                    "owner": row.owner_id,
                    "turn": turn,
                    "seq": n,
                    "kind": kind,
                    "body": json.dumps(body),
                    "at": row.at,
                }
                for n, (row, kind, body) in enumerate(split, 1)
            ],
        )
        await session.execute(
            text("update turn set last_event = :last where id = :turn"), {"last": len(split), "turn": turn}
        )


def test_no_stored_answer_holds_up_the_loop_when_it_is_read_as_html(stocked_url: str) -> None:
    with _served(stocked_url, ANSWERS, turn_timeout=120) as server:
        conversation = ""
        for n, answer in enumerate(ANSWERS):
            said = {"message": f"Say {n}", "stream": False, **({"id": conversation} if conversation else {})}
            done = server.ask("POST", "/api/chat", json={**said, "agent": "tasks"}).json()
            assert done["text"], done
            conversation = done["conversation_id"]
            database = Database(server.url)

            async def split(database: Database = database, turn: str = done["turn_id"]) -> None:
                await _split_texts(database, UUID(turn))
                await database.close()

            asyncio.run(split())
            server.costs.clear()  # it is not the sending that is measured here
            got = server.ask(
                "GET",
                f"/api/chat/{conversation}/stream",
                headers={"X-Render": "html", "Last-Event-ID": f"{done['turn_id']}:1"},
                label=answer[:12],
            )
            assert "data-html" in got.text
            # Code in colours is a dozen times as long. It is sent a dozen times over, not with each of 370 pieces.
            assert len(got.content) < 200 * len(answer) + 300_000, (answer[:12], len(got.content))
            server.check()
        server.ask("GET", f"/api/conversations/{conversation}/messages", params={"render": "html"})
        server.check()


def test_what_holds_up_the_loop_is_noticed() -> None:
    watch = _Watch()

    async def work() -> None:
        await asyncio.sleep(0.01)
        ends = time.thread_time() + LIMIT
        while time.thread_time() < ends:
            pass
        await asyncio.sleep(0.01)

    asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(watch)).run(work())
    assert watch.longest >= LIMIT


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
