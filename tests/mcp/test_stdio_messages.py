"""Every request over standard input that has an id is answered, however broken it is, and the next one is served."""

import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mcp_types import CLIENT_CAPABILITIES_META_KEY, PROTOCOL_VERSION_META_KEY

from agent_server.db import new_id
from agent_server.testing import copy_database
from tests import zygote
from tests.commands import PATIENCE
from tests.conftest import ROOT
from tests.mcp.conftest import MODES, VERSIONS, Mode

MODERN = {PROTOCOL_VERSION_META_KEY: VERSIONS["modern"], CLIENT_CAPABILITIES_META_KEY: {}}


class Server:
    """A server process, to which lines are written as they are."""

    def __init__(self, url: str, mode: Mode) -> None:
        self.process = subprocess.Popen(
            zygote.command("tests.mcp.stdio_server", url, str(new_id()), "*"),
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.mode, self._ids = mode, count()
        self._answers: queue.Queue[Any] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._answers.put(json.loads(line))

    def end(self) -> int:
        """Close its input; its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._reader.join(PATIENCE)
        return self.process.wait(PATIENCE)

    def write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def send(self, **message: Any) -> None:
        self.write(json.dumps({"jsonrpc": "2.0", **message}).encode())

    def answers_to(self, *ids: Any) -> list[Any]:
        """The answers with these ids, of those that come before the one to a good request."""
        marker, left, found = f"marker-{next(self._ids)}", [*ids], []
        meta = {"_meta": MODERN} if self.mode == "modern" else {}
        self.send(id=marker, method="tools/call", params={"name": "add_note", "arguments": {"text": "x"}, **meta})
        left.append(marker)
        while left:
            answer = self._answers.get(timeout=PATIENCE)
            key = next((i for i in left if "id" in answer and json.dumps(i) == json.dumps(answer["id"])), None)
            if key is None and answer.get("id") is not None:
                raise AssertionError(f"nobody asked for {answer}")
            if json.dumps(answer.get("id")) in [json.dumps(i) for i in left]:
                left.remove(key)
                found.append(answer)
        assert "result" in next(each for each in found if each["id"] == marker)
        return [each for each in found if each["id"] != marker]

    def initialize(self) -> None:
        if self.mode == "legacy":
            client = {
                "protocolVersion": VERSIONS["legacy"],
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            }
            self.send(id=0, method="initialize", params=client)
            assert "result" in self._answers.get(timeout=PATIENCE)
            self.send(method="notifications/initialized")


@pytest.fixture(scope="module", params=MODES)
def server(request: pytest.FixtureRequest, postgres: str, template: str) -> Iterator[Server]:
    with copy_database(postgres, template) as url:
        server = Server(url, request.param)
        server.initialize()
        yield server
        assert server.end() == 0


TEXTS = st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
METHODS = st.sampled_from(
    [
        "ping",
        "tools/list",
        "tools/call",
        "resources/read",
        "nope",
        "",
        "initialize",
        "notifications/cancelled",
        "logging/setLevel",
    ]
)
CALLS = st.fixed_dictionaries(
    {}, optional={"name": TEXTS | VALUES, "arguments": VALUES, "_meta": VALUES, "uri": VALUES}
)


@given(id=VALUES, method=METHODS | VALUES, params=CALLS | VALUES, version=st.just("2.0") | VALUES, more=st.booleans())
@example(id=1.5, method="ping", params=None, version="2.0", more=False)
@example(id=None, method="ping", params=None, version="2.0", more=False)
@example(id="a", method="tools/call", params={"name": "\0"}, version="2.0", more=False)
@example(id="half \ud83d", method="ping", params=None, version="2.0", more=False)
@example(id=7, method="ping", params={"text": "half \ud83d"}, version="2.0", more=False)
@settings(max_examples=60)
def test_any_message_with_an_id_is_answered(
    server: Server, id: Any, method: Any, params: Any, version: Any, more: bool
) -> None:
    message = {"jsonrpc": version, "id": id, "method": method, "params": params}
    # A request of the older generation that this connection is not, or the other way round, is a request as well.
    if more and isinstance(params, dict):
        message["params"] = {**params, "_meta": MODERN}
    server.write(json.dumps(message).encode())
    # Half a character in an id is none that can be written back.
    told = None if isinstance(id, str) and not id.isprintable() and "\ud83d" in id else id
    (answer,) = server.answers_to(told)
    assert ("result" in answer) != ("error" in answer)


DEEP = b'{"a":' * 5_000 + b"1" + b"}" * 5_000


@pytest.mark.parametrize(
    ("line", "ids"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"' + b"x" * 3_000_000 + b'"}}', [1]),
        (b'{"jsonrpc":"2.0","id":2,"method":"ping","params":' + DEEP + b"}", [2]),
        (b'{"jsonrpc":"2.0","params":' + DEEP + b',"id":"three","method":"ping"}', ["three"]),
        (b'{"jsonrpc":"2.0","id":4,"method":"ping","params":{"id":5', [4]),
        (b'{"params":{"id":5,"x":"{\\"id\\":6}"},"id":7,"method":"ping",}', [7]),
        (b'{"jsonrpc":"2.0","id":8,"method":"ping","params":{"x":NaN}}', [8]),
        (b'{"jsonrpc":"2.0","id":9}', [9]),
        (b'[{"jsonrpc":"2.0","id":10,"method":"ping"},{"jsonrpc":"2.0","id":11,"method":"ping"},{"method":"x"}]', [10, 11]),
        (b'{"jsonrpc":"2.0","id":12,"method":"ping","params":{"x":"\xff\xfe"}}', [12]),
        (b'\xef\xbb\xbf{"jsonrpc":"2.0","id":13,"method":"ping"}', [13]),
        (b'{"jsonrpc":"2.0","id":14,"method":"ping","result":{}}', [14]),
        (b"nonsense", [None]),
        (b"[]", [None]),
        (b'"text"', [None]),
        (b"", []),
        (b'{"jsonrpc":"2.0","id":99,"result":{}}', []),
        (b'{"jsonrpc":"2.0","method":"notifications/nope"}', []),
        (b'{"method":5}', []),
    ],
    ids=str,
)  # fmt: skip
def test_a_line_that_is_no_message_is_answered_by_the_ids_in_it(server: Server, line: bytes, ids: list[Any]) -> None:
    server.write(line)
    assert len(server.answers_to(*ids)) == len(ids)


def test_what_comes_before_the_handshake_is_answered_too(url: str) -> None:
    server = Server(url, "legacy")
    server.send(id=1.5, method="ping")
    server.write(b'{"jsonrpc":"2.0","id":2,"method":')
    assert {server._answers.get(timeout=PATIENCE)["id"] for _ in range(2)} == {1.5, 2}
    server.send(id=3, method="tools/list")
    assert "error" in server._answers.get(timeout=PATIENCE)
    server.initialize()
    assert server.answers_to() == []
    assert server.end() == 0
