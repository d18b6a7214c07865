"""The OpenAPI document: what it says is so, for requests made from it, and it says how each operation refuses."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dirty_equals import IsPartialDict

from agent_server.api.tools import inline_definitions
from agent_server.arguments import allow_nulls
from tests.fuzz import UNLIMITED, fuzzed
from tests.server import Client, Start

CASES = 1200
FEW = 30
PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}

Document = dict[str, Any]


async def test_what_the_document_says_is_so(start: Start) -> None:
    async with start(**UNLIMITED) as client:
        run = await fuzzed(client, await client.get("/openapi.json"), CASES)
    assert "\n\n".join(run.findings.values()) == ""
    assert run.done == CASES
    assert {label for label, row in run.rows.items() if row.statuses.total() < 3} == set()
    assert sum(row.statuses[200] for row in run.rows.values()) > CASES / 20


def _no_refusal(document: Document) -> None:
    del document["paths"]["/api/turns/{turn}"]["get"]["responses"]["404"]


def _another_type(document: Document) -> None:
    ok = document["paths"]["/health"]["get"]["responses"]["200"]
    ok["content"] = {"text/plain": {"schema": {"type": "string"}}}


def _another_body(document: Document) -> None:
    document["components"]["schemas"]["Health"]["properties"]["version"] = {"type": "integer"}


def _another_header(document: Document) -> None:
    document["paths"]["/health"]["get"]["responses"]["200"]["headers"] = {
        "X-Request-Id": {"schema": {"type": "integer"}, "required": True}
    }


def _asks_more(document: Document) -> None:
    document["components"]["schemas"]["NewSession"]["properties"]["profile"]["required"] = ["level"]


def _takes_more(document: Document) -> None:
    parameters = document["paths"]["/api/conversations"]["get"]["parameters"]
    limit = next(each for each in parameters if each["name"] == "limit")
    limit["schema"] |= {"minimum": 300, "maximum": 400}


def _guarded(document: Document) -> None:
    document["paths"]["/health"]["get"]["security"] = [{"bearer": []}]


@pytest.mark.parametrize(
    ("lie", "path", "found"),
    [
        (_no_refusal, "/api/turns/{turn}", "Undocumented status code"),
        (_another_type, "/health", "Undocumented Content-Type"),
        (_another_body, "/health", "Response violates schema"),
        (_another_header, "/health", "Response header does not conform to the schema"),
        (_asks_more, "/api/session", "Schema-violating request accepted"),
        (_takes_more, "/api/conversations", "Valid data refused"),
        (_guarded, "/health", "Answered without a credential"),
    ],
)
async def test_what_is_not_so_is_found(client: Client, lie: Callable[[Document], None], path: str, found: str) -> None:
    document = await client.get("/openapi.json")
    lie(document)
    document["paths"] = {path: document["paths"][path]}
    findings = (await fuzzed(client, document, FEW)).findings
    assert [title for title in findings if found in title], list(findings)


def _operations(document: Document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield method, path, operation


async def test_every_operation_says_how_it_refuses_and_that_it_does_so_with_a_problem(client: Client) -> None:
    document = await client.get("/openapi.json")
    for method, path, operation in _operations(document):
        expected = {"413", "429", "500", "503"}
        if "security" in operation:
            expected |= {"401", "403"}
        if "{" in path:
            expected.add("404")
        if "parameters" in operation or "requestBody" in operation:
            expected.add("422")
        refusals = {status: said for status, said in operation["responses"].items() if status >= "400"}
        assert refusals.keys() >= expected, (method, path)
        for status, said in refusals.items():
            assert said["content"]["application/problem+json"] == PROBLEM, (method, path, status)
            assert said["description"]
    assert document["components"]["schemas"]["Problem"]["required"] == ["title", "status", "detail", "code"]
    assert not {name for name in document["components"]["schemas"] if "ValidationError" in name}


async def test_an_operation_says_that_it_wants_a_credential_if_it_does(client: Client) -> None:
    document = await client.get("/openapi.json")
    assert document["components"]["securitySchemes"] == {"bearer": IsPartialDict(type="http", scheme="bearer")}
    for method, path, operation in _operations(document):
        filled = path.replace("{passage}", "0" * 20).replace("{", "").replace("}", "")
        body = {"title": "x", "profile": {}} if method == "patch" else {}
        refused = await client.http.request(method, filled, json=body, headers={"Authorization": "Bearer ask_x.y"})
        anonymous = await client.http.request(method, filled, json=body)
        reads_it, needs_it = refused.status_code in (401, 422), anonymous.status_code in (401, 422)
        said = operation.get("security", [])
        assert bool(said) <= reads_it, (method, path)
        assert (said == [{"bearer": []}]) <= needs_it, (method, path)


async def test_a_tool_is_described_by_its_own_schemas(client: Client) -> None:
    paths = (await client.get("/openapi.json"))["paths"]
    for name, tool in client.server.workspace.tools.items():
        operation = paths[f"/api/tools/{name}"]["post"]
        taken, given = operation["requestBody"], operation["responses"]["200"]
        input_schema = allow_nulls(inline_definitions(tool.input_schema))
        assert _without_nulls(input_schema) == taken["content"]["application/json"]["schema"]
        assert _without_nulls(inline_definitions(tool.output_schema)) == given["content"]["application/json"]["schema"]


def _without_nulls(value: Any) -> Any:
    """`value` as FastAPI writes it, which leaves out `"default": null`."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
