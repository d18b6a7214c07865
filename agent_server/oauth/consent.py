"""A user reads what a client asks for, signs in and decides: all in one form.

There is no session that a page elsewhere could use: each decision brings a password. The form must have been given to the
browser that sends it, so that nobody is signed in with a stranger's password.
"""

import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from agent_server.errors import Conflict, TooMany, Unauthorized
from agent_server.identity.accounts import WRONG, Act
from agent_server.identity.passwords import LONGEST
from agent_server.identity.roles import narrow
from agent_server.identity.users import roles_of_account
from agent_server.oauth import tokens
from agent_server.oauth.authority import Authority, Target
from agent_server.oauth.clients import Described, use_client
from agent_server.oauth.grants import begin_grant
from agent_server.oauth.pages import Question, show_answer, show_question, show_refusal
from agent_server.oauth.redirects import answer_at

_LONGEST_FORM, _LONGEST_EMAIL = 32_768, 320
_MOST_NAMED = 6
"""Of what a scope is for."""
_OLD = "This page is from another browser or too old"
_NOTHING = "Your account may do nothing of what is ticked; tick what it may, or sign in with another account"
_GONE = "The client is not known any more; it must register again"


@dataclass(frozen=True)
class _Given:
    """What was filled in."""

    email: str
    password: str
    scopes: frozenset[str]


async def ask(authority: Authority, request: Request) -> Response:
    """The page of consent for the request in the address."""
    browser = _browser_of(authority, request) or secrets.token_hex(16)
    question = await _find_question(authority, request.query_params.get("request", ""), browser)
    if question is None:
        return show_refusal(authority.settings, "The request is too old, or not one of this server's")
    answer = show_question(authority.settings, question)
    # `lax`: sent with the form, and with a link that leads here, and with no form of another site.
    is_safe = authority.issuer.startswith("https://")
    answer.set_cookie(_cookie(authority), browser, 3600, path="/", secure=is_safe, httponly=True, samesite="lax")
    return answer


async def decide(authority: Authority, act: Act, request: Request) -> Response:
    """What becomes of a decision."""
    body = await request.body()
    form = parse_qs(body[:_LONGEST_FORM].decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=500)
    browser = _browser_of(authority, request)
    question = None if browser is None else await _find_question(authority, _first(form, "request"), browser)
    if question is None or not hmac.compare_digest(question.form.encode(), _first(form, "form").encode()):
        return show_refusal(authority.settings, _OLD, 403)
    asked = question.asked
    match _first(form, "decision"):
        case "allow":
            given = _Given(_first(form, "email"), _first(form, "password"), frozenset(form.get("scope", ())))
            return await _allow(authority, act, question, given)
        case "deny":
            address = answer_at(asked.redirect_uri, error="access_denied", state=asked.state, iss=authority.issuer)
            return show_answer(authority.settings, address, asked.client_name, allowed=False)
    return show_question(authority.settings, question, error="Choose one of the two", status=400)


async def _allow(authority: Authority, act: Act, question: Question, given: _Given) -> Response:
    asked, scopes = question.asked, given.scopes & frozenset(question.asked.scopes)

    def ask_again(error: str, status: int) -> Response:
        return show_question(authority.settings, question, error=error, email=given.email, ticked=scopes, status=status)

    # What no account can have: the database takes no NUL, and a hash of a long text is slow.
    if not given.email.isprintable() or len(given.email) > _LONGEST_EMAIL or len(given.password) > LONGEST:
        return show_question(authority.settings, question, error=WRONG, ticked=scopes, status=403)
    try:
        owner_id = await authority.accounts.identify(act, given.email, given.password)
        code = await _begin(authority, act, owner_id, asked, scopes)
    except (Unauthorized, Conflict, TooMany) as error:
        answer = ask_again(error.message, 429 if isinstance(error, TooMany) else 403)
        if error.retry_after is not None:
            answer.headers["Retry-After"] = str(error.retry_after)
        return answer
    except _Refused as error:
        return ask_again(str(error), 403)
    address = answer_at(asked.redirect_uri, code=code, state=asked.state, iss=authority.issuer)
    return show_answer(authority.settings, address, asked.client_name, allowed=True)


class _Refused(Exception):
    """Why nothing is granted."""


async def _begin(authority: Authority, act: Act, owner_id: UUID, asked: tokens.Request, ticked: frozenset[str]) -> str:
    """The code of a new grant. Raises _Refused, and as `begin_grant`."""
    days = authority.settings.oauth_days
    async with authority.database.transaction(owner_id) as session:
        held = authority.accounts.resolver.roles.of(await roles_of_account(session, owner_id))
        if not (scopes := narrow(held, ticked) & ticked):
            raise _Refused(_NOTHING)
        if not await use_client(session, asked.client_id):
            raise _Refused(_GONE)
        return await begin_grant(session, act, owner_id, asked, scopes, days)


async def _find_question(authority: Authority, request: str, browser: str) -> Question | None:
    secret = await authority.accounts.resolver.secret.get()
    asked = tokens.read_request(secret, request)
    target = None if asked is None else authority.find_target(asked.resource)
    if asked is None or target is None:
        return None
    client = Described(id=asked.client_id, name=asked.client_name, redirect_uris=(), method="none")
    return Question(
        asked=asked,
        request=request,
        form=tokens.sign_form(secret, browser, request),
        host=client.host,
        resource_name=target.name,
        scopes=_describe(target, asked.scopes),
    )


def _describe(target: Target, scopes: Sequence[str]) -> Sequence[tuple[str, str]]:
    return [(scope, _name_some(target.scopes.get(scope, ()))) for scope in scopes]


def _name_some(what: Sequence[str]) -> str:
    left = len(what) - _MOST_NAMED
    return ", ".join(what[:_MOST_NAMED]) + (f" and {left} more" if left > 0 else "")


def _cookie(authority: Authority) -> str:
    # With this prefix a browser takes it from this host alone, over TLS, and from no neighbour's subdomain.
    return "__Host-consent" if authority.issuer.startswith("https://") else "consent"


def _browser_of(authority: Authority, request: Request) -> str | None:
    found = request.cookies.get(_cookie(authority), "")
    return found if len(found) == 32 and found.isalnum() else None


def _first(form: Mapping[str, Sequence[str]], name: str) -> str:
    return form.get(name, [""])[0]
