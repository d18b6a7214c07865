"""The OAuth endpoints of the MCP SDK over what is stored here.

This module imports the SDK's server, which takes seconds: it is imported with the first request.
"""

import base64
import binascii
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from mcp.server.auth.handlers.authorize import AuthorizationHandler
from mcp.server.auth.handlers.register import RegistrationHandler
from mcp.server.auth.handlers.revoke import RevocationHandler
from mcp.server.auth.handlers.token import TokenHandler
from mcp.server.auth.middleware.client_auth import ClientAuthenticator
from mcp.server.auth.settings import ClientRegistrationOptions
from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Message

from agent_server.errors import InvalidInput
from agent_server.identity.accounts import Act
from agent_server.oauth.authority import CONSENT, Authority
from agent_server.oauth.pages import OPEN, show_refusal
from agent_server.oauth.provider import Provider
from agent_server.oauth.redirects import answer_at


async def authorise(authority: Authority, act: Act, request: Request) -> Response:
    """Send the user to the page of consent, or tell what is wrong."""
    if twice := _find_twice(request.url.query):
        return show_refusal(authority.settings, f"{twice} is named twice; the client must name it once")
    provider = Provider(authority, act, reads=True)
    # First, since the SDK would take a refusal of ours for a failure of its own.
    await provider.get_client(request.query_params.get("client_id", ""))
    answer = await AuthorizationHandler(provider).handle(request)
    if not isinstance(answer, RedirectResponse):
        said = from_json(bytes(answer.body))
        return show_refusal(authority.settings, provider.mistake or str(said.get("error_description") or said["error"]))
    where = answer.headers["location"]
    if where.startswith(f"{authority.issuer}{CONSENT}?"):
        return RedirectResponse(where, status_code=302, headers={"Cache-Control": "no-store", **OPEN})
    # The user goes there, and is not sent: anybody may register an address and ask for nonsense, and this server would
    # lead whoever trusts its name to any site (RFC 9700, 4.11.2). RFC 9207: `iss` is in an error as well.
    said = dict(parse_qsl(urlsplit(where).query))
    message = str(said.get("error_description") or said.get("error"))
    return show_refusal(authority.settings, message, back=answer_at(where, iss=authority.issuer))


async def exchange(authority: Authority, act: Act, request: Request) -> Response:
    """Tokens for a code or a refresh token."""
    request, form = await _read_form(request)
    provider = Provider(authority, act, resource=form.get("resource"))
    answer: Response = await TokenHandler(provider, ClientAuthenticator(provider)).handle(request)
    return answer


async def revoke(authority: Authority, act: Act, request: Request) -> Response:
    """End what a token is of (RFC 7009)."""
    request, _ = await _read_form(request)
    provider = Provider(authority, act)
    return await RevocationHandler(provider, ClientAuthenticator(provider)).handle(request)


async def register(authority: Authority, act: Act, request: Request) -> Response:
    """Register a client (RFC 7591)."""
    handler = RegistrationHandler(Provider(authority, act), ClientRegistrationOptions(enabled=True))
    said = await request.body()
    answer: Response = await handler.handle(_with_body(request, _fill_in(said), "application/json"))
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _fill_in(body: bytes) -> bytes:
    """A registration that says how the client authenticates: as one that keeps no secret, where it says nothing."""
    # RFC 7591 has `client_secret_basic` then. A secret would be one more thing to lose, and PKCE does what it would.
    try:
        said = from_json(body)
    except ValueError:
        return body
    if not isinstance(said, dict):
        return body
    # A scope that is registered limits nothing here, and a list of them may be of any length.
    kept = {name: value for name, value in said.items() if name != "scope"}
    return to_json({"token_endpoint_auth_method": "none", **kept})


async def _read_form(request: Request) -> tuple[Request, Mapping[str, str]]:
    """A request whose form has all that the SDK's endpoints ask for. Raises InvalidInput for a name that comes twice."""
    body = (await request.body()).decode("utf-8", "replace")
    if twice := _find_twice(body):
        raise InvalidInput(f"{twice}: is named twice; send it once")
    form = dict(_parse(body))
    # The client's name may stand in the header alone (RFC 6749, 2.3.1).
    if "client_id" not in form and (name := _client_of(request.headers.get("authorization", ""))):
        form["client_id"] = name
    form.setdefault("client_secret", "")
    return _with_body(request, urlencode(form).encode(), "application/x-www-form-urlencoded"), form


def _parse(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise InvalidInput("body: has more than 50 fields; send those of OAuth alone") from None


def _find_twice(text: str) -> str | None:
    """A parameter that is named more than once, which RFC 6749 forbids: two programs may each take another one."""
    names = [name for name, _ in _parse(text)]
    known = ("client_id", "redirect_uri", "response_type", "scope", "state", "code", "grant_type", "resource")
    return next((name for name in (*known, "code_challenge", "refresh_token", "token") if names.count(name) > 1), None)


def _client_of(header: str) -> str | None:
    scheme, _, packed = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return unquote(base64.b64decode(packed, validate=True).decode().partition(":")[0]) or None
    except (binascii.Error, ValueError):
        return None


def _with_body(request: Request, body: bytes, kind: str) -> Request:
    headers = [(name, value) for name, value in request.scope["headers"] if name not in _OF_BODY]
    scope = {**request.scope, "headers": [*headers, (b"content-type", kind.encode())]}

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(scope, receive)


_OF_BODY = (b"content-type", b"content-length", b"transfer-encoding")
