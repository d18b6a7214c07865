"""The log: a line says what it belongs to, and no line has a secret or a person's data, in either format."""

import io
import json
import logging
import os
import string
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Literal
from urllib.parse import quote, unquote

import jwt
import pytest
import structlog
from dirty_equals import IsFloat, IsPartialDict, IsStr
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_server.identity.resolver import resolve_caller
from agent_server.log import configure_logging, mask
from tests.server import Start

CANARIES = {
    "key of ours": "ask_01a1fc2db63673dc88212073b2c175f8.cheBurJx5axOXiiFEc8O18FK1rwsTmW7tahwpSp2b6o",
    "guest token": "asg_01a1fc2db63673dc88212073b2c175f8.cheBurJx5axOXiiFEc8O18FK1rwsTmW7tahwpSp2b6o",  # pragma: allowlist secret
    "OpenAI key": "sk-proj-Zk3vBq8mN2xLr7TtYw5c",  # pragma: allowlist secret
    "Anthropic key": "sk-ant-api03-Zk3vBq8mN2xLr7TtYw5cAAAA",  # pragma: allowlist secret
    "Groq key": "gsk_Zk3vBq8mN2xLr7TtYw5cZk3vBq8mN2xL",
    "Gemini key": "AIzaSyD-Zk3vBq8mN2xLr7TtYw5cZk3vBq8mN2x",  # pragma: allowlist secret
    "GitHub token": "ghp_Zk3vBq8mN2xLr7TtYw5cZk3vBq8mN2xLr7Tt",  # pragma: allowlist secret
    "bearer": "Bearer Zk3vBq8mN2xLr7TtYw5c",
    "basic": "Basic YWRhOm9wZW5zLWV2ZXJ5dGhpbmc=",
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.dBjftJeZ4CVPmB92K27uhbUJU1p1r_wW1gFWFOEjXk",  # pragma: allowlist secret
    "e-mail": "ada.lovelace+dive@mail.example.co.uk",
    "phone": "+44 20 7946 0958",
    "phone in one": "+442079460958",
    "card": "4111 1111 1111 1111",
    "card in one": "4111111111111111",
    "IBAN": "DE89 3704 0044 0532 0130 00",
    "IBAN in one": "GB29NWBK60161331926819",
    "address of a database": "postgresql://ada:opens-everything@db.example/app",
    "the driver's": "postgresql+asyncpg://ada:opens-everything@db.example:5432/app",
}
KEPT = [
    "tools/todo/tasks.py:41",
    "01a1fc30-2385-73b3-824b-64bd685c1840",
    "2026-11-21T03:39:35.735736Z",
    "7.123456789012",
    "GET /api/conversations/01a1fc30-2385-73b3-824b-64bd685c1840 200",
    "postgresql://db.example/app",
    "a depth of 30 m for 25 minutes",
    "the basic course",
    "the basic certification, then the bearer of it",
    "12345678-1234-4123-8123-123456789012",
    "POST /api/chat took 1763697575.735736 s, 0.30000000000000004 too long",
    "agent-server@1.2.3 on Python 3.11.7",
    "commit 08dcb02, document 0af7651916cd43dd8448eb211c80319c",
    "total_tokens: 12345, input_tokens=10, cached_tokens: 0",
    "{'usage': {'total_tokens': 12345}}",
    "skills-and-certifications/rk-diver-in-the-deep.md",
    "ask_an_instructor_about_it",
    "token = None, password: null",
    "1763697575735736001 ns since 1970",
    "between 10% and 20% of 100%25",
    "2026-11-21 03:39:35,735 127.0.0.1:8000",
]
SPELLINGS = {
    "percent-encoded": ("GET /x/ada%40mail.example/y", "ada%40mail"),
    "encoded twice": ("/x?to=ada%2540mail.example", "ada%2540mail"),
    "an encoded header": ("/x?authorization=Bearer%20Zk3vBq8mN2x", "Zk3vBq8mN2x"),
    "a query": ("/x?page=2&access_token=tame-words&y=1", "tame-words"),
    "a field of JSON text": ('{"a": 1, "password": "tame \\" words", "b": 2}', "words"),  # pragma: allowlist secret
    "a key and its value": ("connect(user='u', password='tame words')", "tame words"),  # pragma: allowlist secret
    "a header": ("x-api-key: tame-words", "tame-words"),
    "a header of bytes": ("[(b'host', b'x'), (b'x-api-key', b'tame')]", "tame"),
    "a cookie": ("Set-Cookie: sid=tame; Path=/; theme=words", "words"),
    "a digest": ('authorization: Digest username="ada", response="tame"', "tame"),
    "a card and its date": ("4111-1111-1111-1111 12/29", "1111-1111"),
    "a card after a number": ("no. 12 4111 1111 1111 1111", "1111 1111"),
    "a phone in brackets": ("+44 (0)20 7946 0958", "7946"),
    "a phone of one country": ("(202) 555-0143", "0143"),
    "a private key": ("-----BEGIN " + "PRIVATE KEY-----\nMIIabc\nx", "MIIabc"),
    "a password with an @": ("postgresql://u:p@ss/w@h/d", "ss/w"),
    "an address with a password": ("redis://:tame@h:6379", "tame"),
    "an AWS key": ("id AKIA" + "Q4VXZ7TPLM2RWK5N", "Q4VX"),
    "a secret of no known kind": ("got Zk3vBq8mN2xLr7TtYw5cZk3vBq8mN2xLr7TtYw5cAB back", "Zk3v"),
}
"""A text, and what of it must not be seen."""


Nest = Callable[[str], Any]


def _card(digits: str) -> str:
    """`digits` and the check digit that makes them a card's number."""
    return next(digits + d for d in "0123456789" if _luhn(digits + d) == 0)


def _luhn(digits: str) -> int:
    return sum(sum(divmod(int(d) * (1 + i % 2), 10)) for i, d in enumerate(reversed(digits))) % 10


_WORD = string.ascii_letters + string.digits
SECRETS = st.one_of(
    st.builds("{}@{}.{}".format, st.text(_WORD + "._+-", min_size=1).filter(str.strip), st.text(_WORD, min_size=1, max_size=20),
              st.sampled_from(["example", "co.uk", "xn--p1ai"])),
    st.builds("ask_{}.{}".format, st.uuids().map(lambda id: id.hex), st.text(_WORD + "_-", min_size=43, max_size=43)),
    st.builds("{}7{}".format, st.sampled_from(["sk-", "sk-ant-api03-", "ghp_", "gsk_", "xoxb-", "hf_"]), st.text(_WORD, min_size=20)),
    st.dictionaries(st.text(), st.text()).map(lambda claims: jwt.encode({"sub": "ada", **claims}, "x" * 32)),
    st.builds(_card, st.from_regex(r"[2-6][0-9]{14}", fullmatch=True)),
)  # fmt: skip
NESTS = st.recursive(
    st.sampled_from(
        [
            str,
            str.encode,
            quote,
            ValueError,
            lambda s: f"Said {s}, then left",
            lambda s: f'{{"to": "{s}"}}',
            lambda s: f"/x?a=1&to={quote(s, safe='')}#y",
            lambda s: ("x-header", s),
            lambda s: SimpleNamespace(to=s),
            lambda s: KeyError({"to": [s]}),
        ]
    ),
    lambda inner: st.builds(
        lambda make, nest: lambda s: make(nest(s)),
        st.sampled_from(
            [
                lambda v: [v],
                lambda v: (1, v, None),
                lambda v: {"to": v},
                lambda v: {str(v): 1},
                lambda v: [("to", v)],
                lambda v: ExceptionGroup("many", [ValueError(v)]),
                lambda v: SimpleNamespace(to=v),
            ]
        ),
        inner,
    ),
    max_leaves=12,
)
"""Functions that put a text somewhere into a value."""


@pytest.fixture(params=["json", "console"])
def lines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, in each of the formats."""
    yield from _recorded(request.param, monkeypatch)


@pytest.fixture
def json_lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    yield from _recorded("json", monkeypatch)


def _recorded(format: Literal["json", "console"], monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    written = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", written)
        # At INFO the console leaves most lines out.
        configure_logging("INFO" if format == "json" else "DEBUG", format)
    yield written
    structlog.contextvars.clear_contextvars()
    configure_logging("WARNING", "console")


@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize("end", ["its stream is closed", "its reader has gone"])
def test_a_line_that_nobody_takes_is_lost_and_whoever_logs_goes_on(
    format: Literal["json", "console"], end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        configure_logging("DEBUG", format)
    os.close(reader)
    if end == "its stream is closed":
        with suppress(OSError):
            stream.close()
    log = structlog.get_logger()
    log.warning("nobody.reads", turn="x")
    log.info("nobody.reads", turn="x" * 100_000)
    with suppress(OSError):
        stream.close()
    configure_logging("WARNING", "console")


def secret_of(canary: str) -> str:
    """The part that must not be seen: of an address its password, of a header its credential."""
    if "://" in canary:
        return "opens-everything"
    return canary.split(" ")[1] if canary.startswith(("Bearer", "Basic")) else canary


@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES)
def test_a_secret_is_masked_wherever_it_stands(canary: str, lines: io.StringIO) -> None:
    log = structlog.get_logger()
    log.info(f"Said {canary}, then left")
    log.info("x", value=canary, nested={"a": [{"b": (canary, 1)}]}, object=ValueError(canary), items={canary})
    log.info("x", **{"nested": {canary: 1}})
    structlog.contextvars.bind_contextvars(bound=canary)
    log.info("x")
    logging.getLogger("a.library").warning("%s said %s", "it", canary)
    try:
        try:
            raise KeyError(canary)
        except KeyError as error:
            raise RuntimeError(f"after {canary}") from error
    except RuntimeError:
        log.exception("failed")
        logging.getLogger("a.library").exception("failed")
    text = lines.getvalue()
    assert text.count("Traceback") >= 2, text
    assert secret_of(canary) not in text, text


@pytest.mark.parametrize("key", ["password", "api_key", "X-Api-Key", "Authorization", "cookie", "refresh_token", "dsn"])
def test_a_value_whose_name_says_that_it_is_secret_is_masked_whatever_it_is(key: str, lines: io.StringIO) -> None:
    structlog.get_logger().info("x", **{key: "tame"}, nested={key: "tame"}, headers=[(key, "kept"), {key: ["tame"]}])
    assert "tame" not in lines.getvalue(), lines.getvalue()


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_secret_is_kept(text: str) -> None:
    assert mask(text) == text


@pytest.mark.parametrize(("text", "secret"), SPELLINGS.values(), ids=SPELLINGS)
def test_a_secret_is_masked_however_it_is_written(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in mask(text), mask(text)


def test_a_number_is_masked_where_it_is_a_card_or_a_password_and_kept_where_it_counts(json_lines: io.StringIO) -> None:
    structlog.get_logger().info(
        "x", card=4111111111111111, password=12345678, max_tokens=4096, token_count=7, at=1763697575735, rate=0.25
    )
    assert json.loads(json_lines.getvalue()) == IsPartialDict(
        card="[card]", password="[secret]", max_tokens=4096, token_count=7, at=1763697575735, rate=0.25
    )


def test_what_holds_itself_is_logged_all_the_same(json_lines: io.StringIO) -> None:
    loop: dict[str, Any] = {"password": "tame"}
    loop["again"] = [loop]
    structlog.get_logger().info("x", loop=loop)
    assert "tame" not in json_lines.getvalue()


@settings(deadline=None)
@given(secret=SECRETS, nest=NESTS, format=st.sampled_from(["json", "console"]))
def test_no_nesting_brings_a_secret_out(secret: str, nest: Nest, format: Literal["json", "console"]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for lines in _recorded(format, monkeypatch):
            structlog.get_logger().info("x", value=nest(secret), **{"again": {"deep": [nest(secret)]}})
            logging.getLogger("a.library").warning("%s", nest(secret))
            text = lines.getvalue()
    assert text.count("\n") >= 2
    for shown in (text, unquote(text), text.replace("\\\\", "\\")):
        assert secret not in shown


@given(st.one_of(st.uuids().map(str), st.uuids().map(lambda id: id.hex), st.datetimes().map(datetime.isoformat)))
def test_ids_and_times_are_kept(text: str) -> None:
    assert mask(text) == text


@pytest.mark.parametrize(
    "text",
    ["eyJ", "eyJ.", "ask_", "sk-", "SG.", "token=", "token='", 'token="\\', 'cookie="', "cookie ", "bearer ", "basic=", "aB1-",
     "postgres://a:@", "a://b:", "a@", "a", "a.", "'", "%41", "% ", "1 ", "1", "0 1-", "+1(", "(12)", "A1B2", "-----BEGIN "],
)  # fmt: skip
def test_a_long_text_made_to_be_slow_is_searched_in_one_pass(text: str) -> None:
    """What goes back over what it has read would need minutes for it."""
    for end in ("", "@", "%41", "!"):
        assert mask(text * (131_072 // len(text)) + end)


def test_the_usage_of_a_model_is_not_taken_for_a_secret(json_lines: io.StringIO) -> None:
    structlog.get_logger().info("turn.done", usage={"input_tokens": 10, "output_tokens": 5})
    assert json.loads(json_lines.getvalue())["usage"] == {"input_tokens": 10, "output_tokens": 5}


def test_a_json_line_has_the_traceback_in_one_line(json_lines: io.StringIO) -> None:
    try:
        raise RuntimeError("no")
    except RuntimeError:
        structlog.get_logger().exception("tool.failed", tool="divide")
    (line,) = json_lines.getvalue().splitlines()
    assert json.loads(line) == IsPartialDict(
        event="tool.failed",
        level="error",
        tool="divide",
        timestamp=IsStr,
        exception=IsStr(regex="(?s).*RuntimeError.*"),
    )


def test_a_line_is_one_write_so_that_those_of_several_workers_do_not_mingle(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Unbuffered(io.StringIO):
        """As stderr is with `PYTHONUNBUFFERED=1`, which images for containers set."""

        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Unbuffered())
        configure_logging("INFO", "console")
    structlog.get_logger().warning("ours")
    logging.getLogger("a.library").warning("theirs")
    configure_logging("WARNING", "console")
    assert written == [IsStr(regex="(?s).*ours.*\n"), IsStr(regex="(?s).*theirs.*\n")]


async def test_a_tool_call_over_http_leaves_lines_that_say_whose_it_was(start: Start, json_lines: io.StringIO) -> None:
    async with start() as client:
        me = str((await resolve_caller(client.server.database, client.key)).id)
        answer = await client.ask("Add call ada@example.com on +44 20 7946 0958 to my list")
        given = {**client.auth, "X-Request-Id": "a1" * 8}
        await client.http.post("/api/tools/create_task", json={"title": "x"}, headers=given)
        await client.http.post(
            "/api/tools/create_task", json={"title": ""}, headers={"Authorization": "Bearer no-such-key"}
        )
    written = [json.loads(line) for line in json_lines.getvalue().splitlines()]
    in_chat, over_rest = [line for line in written if line["event"] == "tool.called"]
    assert in_chat == IsPartialDict(
        tool="create_task", surface="agent", outcome="ok", caller=me, latency_ms=IsFloat(gt=0), request_id=IsStr,
        conversation_id=answer["conversation_id"], turn_id=answer["turn_id"],
    )  # fmt: skip
    assert over_rest == IsPartialDict(
        tool="create_task", surface="rest", outcome="ok", caller=me, latency_ms=IsFloat(gt=0), request_id="a1" * 8
    )
    request = next(line for line in written if line["event"] == "http.request" and line["request_id"] == "a1" * 8)
    assert request == IsPartialDict(method="POST", path="/api/tools/create_task", status=200, caller=me)
    assert written[-1] == IsPartialDict(event="http.request", status=401)
    text = json_lines.getvalue()
    for private in ("ada@example.com", "7946 0958", "no-such-key", client.key):
        assert private not in text
