"""The credential and the refusals of every operation in /openapi.json.

What a route is refused with follows from what it is: one that asks for a caller has 401 and 403, one that names
something 404, one that reads something 422. A route declares only what cannot be seen of it, by its number
(`responses={409: {}}`); the body is filled in here.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import BaseRoute

from agent_server.errors import Forbidden, TooMany, Unauthorized, Unavailable
from agent_server.http.auth import get_caller, get_caller_or_new_guest
from agent_server.http.errors import ErrorFormat, ErrorFormats
from agent_server.http.statuses import status_of

BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key (`agent-server key create`), or a guest's token.",
}
REFUSALS = {
    401: "No credential, or one that is malformed, unknown, expired or revoked",
    403: "A valid caller that may not do this",
    404: "Not there, or not the caller's",
    409: "What is stored does not allow this now",
    413: "The body is too large",
    415: "The body's type is not one that is read here",
    422: "Something that was sent is wrong; `errors` names each field",
    429: "A limit is reached; `Retry-After` says when to come back",
    500: "A bug of the server's; the log has a line with the reference in `detail`",
    503: "The database is away, or this process is stopping; try again",
    504: "It took longer than it may",
}
ALWAYS = (413, status_of(TooMany), 500, status_of(Unavailable))
"""What every operation may be answered with: bodies, callers and the database are looked at around them all."""

_HEADERS = {
    status_of(Unauthorized): {"WWW-Authenticate": "How to authenticate (RFC 6750)."},
    status_of(TooMany): {"Retry-After": "Seconds to wait."},
    status_of(Unavailable): {"Retry-After": "Seconds to wait."},
}
_FASTAPIS = ("HTTPValidationError", "ValidationError")
_NOTHING_SAID = {"schema": {"$ref": "#/components/schemas/HTTPValidationError"}}


def describe(app: FastAPI, formats: ErrorFormats) -> None:
    """Complete the document of an app that has all of its routes by now."""
    generate = app.openapi
    app.openapi = cache(lambda: _complete_document(generate(), app.routes, formats))  # type: ignore[method-assign]  # as FastAPI documents it


def _complete_document(document: dict[str, Any], routes: Sequence[BaseRoute], formats: ErrorFormats) -> dict[str, Any]:
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"bearer": BEARER}
    schemas = components.setdefault("schemas", {})
    # FastAPI declares its own form of a 422, which is never sent here.
    for name in _FASTAPIS:
        schemas.pop(name, None)
    for each in (formats.default, *formats.by_prefix.values()):
        schemas[each.model.__name__] = each.model.model_json_schema()
    for context in iter_route_contexts(routes):
        route = context.original_route
        if isinstance(route, APIRoute) and route.include_in_schema:
            asked = {call for call in _list_calls(route.dependant) if call is not None}
            for method in route.methods or ():
                path = str(context.path_format)
                _complete_operation(document["paths"][path][method.lower()], path, asked, formats.format_of(path))
    return document


def _list_calls(dependant: Dependant) -> Iterator[Callable[..., Any] | None]:
    for each in dependant.dependencies:
        yield each.call
        yield from _list_calls(each)


def _complete_operation(
    operation: dict[str, Any], path: str, asked: set[Callable[..., Any]], format: ErrorFormat
) -> None:
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _drop_null(parameter["schema"])
    responses: dict[str, Any] = operation["responses"]
    statuses = {*ALWAYS, *(int(status) for status in responses if status >= "400")}
    if get_caller in asked:
        operation["security"] = [{"bearer": []}]
    elif get_caller_or_new_guest in asked:
        operation["security"] = [{"bearer": []}, {}]
    if "security" in operation:
        statuses |= {status_of(Unauthorized), status_of(Forbidden)}
    if "{" in path:
        statuses.add(404)
    if "requestBody" in operation:
        statuses.add(415)
    if "requestBody" in operation or "parameters" in operation:
        statuses.add(422)
    for status in sorted(statuses):
        responses[str(status)] = _describe_refusal(status, responses.get(str(status), {}), format)
    operation["responses"] = dict(sorted(responses.items()))


def _drop_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter that is there. No text in an address or a header is null: one leaves it out."""
    if "anyOf" not in schema:
        return schema
    kinds = [each for each in schema["anyOf"] if each != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**rest, **kinds[0]} if len(kinds) == 1 else {**rest, "anyOf": kinds}


def _describe_refusal(status: int, declared: dict[str, Any], format: ErrorFormat) -> dict[str, Any]:
    """A refusal's entry. What a route says of it stays, but for the shape of an error, which is its protocol's."""
    own = {kind: content for kind, content in declared.get("content", {}).items() if content != _NOTHING_SAID}
    headers = {
        name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.get(status, {}).items()
    }
    return {
        "description": REFUSALS[status],
        "content": {**own, format.media_type: {"schema": {"$ref": f"#/components/schemas/{format.model.__name__}"}}},
        **({"headers": headers} if headers else {}),
    }
