"""Every refusal below a protocol's prefix is in that protocol's format, and a problem document elsewhere."""

import json
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest
from dirty_equals import IsPartialDict, IsStr
from fastapi import APIRouter
from pydantic import BaseModel

import agent_server
import agent_server.protocols
from agent_server.db import Database
from agent_server.errors import AgentServerError
from agent_server.http.auth import CallerDep
from agent_server.http.errors import ErrorFormat
from agent_server.http.statuses import STATUSES, status_of
from agent_server.protocols import find_protocols
from agent_server.protocols.base import Protocol
from tests.api.routes import raw
from tests.server import Start


class ToyError(BaseModel):
    """An error as the toy protocol has it."""

    oh: str
    number: int


router = APIRouter()


class Sum(BaseModel):
    """What the toy protocol is asked."""

    a: int


@router.post("/v9/sum")
async def add(body: Sum, caller: CallerDep) -> int:
    return body.a


@router.get("/v9/bug")
async def fail() -> None:
    raise RuntimeError("a bug")


@router.get("/v9/rows")
async def read() -> None:
    async with Database("postgresql://nobody@127.0.0.1:9/nothing").transaction() as session:
        await session.connection()


TOY = Protocol(
    prefix="/v9",
    errors=ErrorFormat(
        render=lambda error, status: ToyError(oh=error.code, number=status),
        model=ToyError,
        media_type="application/vnd.toy+json",
    ),
    router=router,
)


BOTH = (*find_protocols(), TOY)

JSON = {"Content-Type": "application/json"}
REFUSALS: list[tuple[int, str, dict[str, Any]]] = [
    (401, "unauthorized", {"method": "POST", "json": {"a": 1}, "headers": {"Authorization": "Bearer nonsense"}}),
    (401, "unauthorized", {"method": "GET", "headers": [("Authorization", "Bearer a"), ("Authorization", "Bearer b")]}),
    (403, "forbidden", {"method": "POST", "json": {"a": 1}, "headers": {"Origin": "https://elsewhere.example"}}),
    (405, "method_not_allowed", {"method": "DELETE"}),
    (413, "too_large", {"method": "POST", "content": b"x" * 2_000}),
    (414, "address_too_long", {"method": "GET", "params": {"q": "x" * 9_000}}),
    (415, "unsupported_media_type", {"method": "POST", "content": b"x", "headers": {"Content-Encoding": "gzip"}}),
    (421, "misdirected", {"method": "POST", "json": {"a": 1}, "headers": {"Host": "rebound.example"}}),
    (422, "invalid_input", {"method": "POST", "json": {"a": "one"}}),
    (422, "invalid_input", {"method": "POST", "content": b"[" * 200, "headers": JSON}),
    (422, "invalid_input", {"method": "POST", "content": b'{"a": "\xff"}', "headers": JSON}),
]


async def test_each_refusal_is_in_the_format_of_the_path(start: Start) -> None:
    async with start(protocols=BOTH, body_limit=1_000) as client:
        http = client.http
        http.headers.update(client.auth)
        for status, code, request in REFUSALS:
            toy = await http.request(url="/v9/sum", **request)
            assert (toy.status_code, toy.json()) == (status, {"oh": code, "number": status}), request
            assert toy.headers["content-type"] == "application/vnd.toy+json"
            plain = await http.request(url="/api/auth/claim", **request)
            assert plain.headers["content-type"] == "application/problem+json"
            assert (plain.status_code, plain.json()) == (status, IsPartialDict(status=status, code=code)), request
        for path, body in (
            ("/v9/nothing", {"oh": "not_found", "number": 404}),
            ("/v9", {"oh": "not_found", "number": 404}),
            ("/v99/nothing", IsPartialDict(status=404, code="not_found", detail=IsStr(regex="There is nothing.*"))),
        ):
            missing = await http.get(path)
            assert (missing.status_code, missing.json()) == (404, body), path


async def test_headers_that_say_how_to_go_on_are_the_same_in_every_format(start: Start) -> None:
    async with start(protocols=BOTH) as client:
        http = client.http
        refused = await http.post("/v9/sum", json={"a": 1}, headers={"Authorization": "Bearer nonsense"})
        assert refused.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        assert (await http.delete("/v9/sum")).headers["Allow"] == "POST"
        assert refused.headers["X-Request-Id"]
        assert refused.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_bug_and_a_database_that_is_away_are_in_the_format_of_the_path(start: Start) -> None:
    async with start(protocols=BOTH) as client:
        http = client.http
        bug = await http.get("/v9/bug")
        assert (bug.status_code, bug.json()) == (500, {"oh": "internal", "number": 500})
        away = await http.get("/v9/rows")
        assert (away.status_code, away.json()) == (503, {"oh": "unavailable", "number": 503})
        assert away.headers["Retry-After"] == "2"


async def test_a_page_of_another_origin_is_refused_before_it_asks_in_the_format_of_the_path(start: Start) -> None:
    preflight = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    async with start(protocols=BOTH, cors_origins=("https://shop.example",)) as client:
        http = client.http
        toy = await http.options("/v9/sum", headers=preflight)
        assert (toy.status_code, toy.json()) == (403, {"oh": "forbidden", "number": 403})
        plain = await http.options("/api/chat", headers=preflight)
        assert (plain.status_code, plain.json()) == (403, IsPartialDict(code="forbidden"))
        large = await http.post("/v9/sum", content=b"x" * 9_000_000, headers={"Origin": "https://shop.example"})
        assert large.status_code == 413
        assert large.headers["Access-Control-Allow-Origin"] == "https://shop.example"


async def test_what_is_no_http_names_no_path_and_is_a_problem(start: Start) -> None:
    async with start(protocols=BOTH) as client:
        head, _, body = (await raw(client, "GET /v9/sum WHAT\r\n\r\n")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body) == IsPartialDict(status=400, code="bad_request")


async def test_openapi_describes_the_errors_of_each_path(start: Start) -> None:
    async with start(protocols=BOTH) as client:
        http = client.http
        document = (await http.get("/openapi.json")).json()
    toy = document["paths"]["/v9/sum"]["post"]["responses"]["422"]["content"]
    assert toy == {"application/vnd.toy+json": {"schema": {"$ref": "#/components/schemas/ToyError"}}}
    plain = document["paths"]["/api/auth/claim"]["post"]["responses"]["422"]["content"]
    assert plain == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert {"Problem", "ToyError"} <= document["components"]["schemas"].keys()


INTENDED = {
    "Busy": 409,
    "Changed": 409,
    "Internal": 500,
    "RecordedFailure": 500,
    "DatabaseAway": 503,
    "ResultTooLarge": 422,
    "Unasked": 409,
    "WorkspaceInvalid": 500,
    **{error.__name__: status for error, status in STATUSES.items()},
}
"""Those that the table does not name have the status of the class that they come from, and this is wanted."""


def _subclasses(error: type[AgentServerError]) -> set[type[AgentServerError]]:
    return {error}.union(*(_subclasses(each) for each in error.__subclasses__()))


def test_every_error_of_the_code_base_has_the_status_that_is_meant() -> None:
    for module in walk_packages(agent_server.__path__, "agent_server."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    found = {error for error in _subclasses(AgentServerError) if error.__module__.startswith("agent_server.")}
    assert {error.__name__: status_of(error) for error in found} == INTENDED
    assert all("status" not in vars(error) for error in found)


@pytest.mark.parametrize("protocol", find_protocols(), ids=lambda protocol: protocol.prefix)
def test_no_prefix_ends_in_a_slash(protocol: Protocol) -> None:
    assert protocol.prefix.startswith("/") and not protocol.prefix.endswith("/")


STRANGER = """
from fastapi import APIRouter

from agent_server.protocols.base import Protocol

router = APIRouter()


@router.get("/v7/ping")
async def ping() -> str:
    return "pong"


PROTOCOL = Protocol(prefix="/v7", router=router)
"""


async def test_a_protocol_is_one_folder(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "strange"
    folder.mkdir()
    (folder / "__init__.py").write_text(STRANGER)
    monkeypatch.setattr(agent_server.protocols, "__path__", [*agent_server.protocols.__path__, str(tmp_path)])
    async with start(protocols=find_protocols()) as client:
        assert (await client.http.get("/v7/ping")).json() == "pong"
