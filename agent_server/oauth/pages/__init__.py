"""The pages that a user sees on the way: what is asked for, that it is done, and why it cannot be.

They need no script. They are never in a frame, and no script, image or form of theirs leads elsewhere.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from starlette.responses import HTMLResponse

from agent_server.oauth.redirects import describe_host, is_loopback, parse_redirect
from agent_server.oauth.tokens import REQUEST_MINUTES, Request
from agent_server.settings import Settings

OPEN: Mapping[str, str] = {
    # A client may have opened a window for this, and waits for it to come back: this must not cut the two apart.
    "Cross-Origin-Opener-Policy": "unsafe-none",
}
_HEADERS: Mapping[str, str] = {
    **OPEN,
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: the form would come with the origin `null`, which the edge takes for another site's.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
FOLDER = files("agent_server.oauth.pages")


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a user is asked. `scopes` are those that are asked for, with what each is for."""

    asked: Request
    request: str
    form: str
    host: str | None
    resource_name: str
    scopes: Sequence[tuple[str, str]]


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("agent_server.oauth", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )


def _page(name: str) -> Template:
    return _templates().get_template(name)


def show_question(
    settings: Settings,
    question: Question,
    *,
    error: str = "",
    email: str = "",
    ticked: Collection[str] | None = None,
    status: int = 200,
) -> HTMLResponse:
    """The page of consent with what was filled in before, and what was wrong with it."""
    url = parse_redirect(question.asked.redirect_uri)
    text = _page("consent.html").render(
        title=settings.title,
        question=question,
        goes_to=question.asked.redirect_uri if url is None else describe_host(url),
        is_local=url is None or url.scheme != "https",
        is_here=url is not None and is_loopback(url),
        days=settings.oauth_days,
        error=error,
        email=email,
        ticked=set(question.asked.scopes) if ticked is None else set(ticked),
    )
    return HTMLResponse(text, status, _HEADERS)


def show_answer(settings: Settings, address: str, client: str, *, allowed: bool) -> HTMLResponse:
    """The page that leads back to the client."""
    # No redirect: browsers hold what a form leads to, over all redirects of the client's own as well, to `form-action`.
    text = _page("done.html").render(title=settings.title, address=address, client=client, allowed=allowed)
    # The client's site is not told which address it was that led there.
    return HTMLResponse(text, 200, {**_HEADERS, "Referrer-Policy": "no-referrer"})


def show_refusal(settings: Settings, message: str, status: int = 400, *, back: str | None = None) -> HTMLResponse:
    """The page that says what is wrong. `back` is where the client is told of it, if that is known."""
    url = None if back is None else parse_redirect(back)
    host = "" if url is None else describe_host(url)
    page = _page("refused.html")
    text = page.render(title=settings.title, message=message, minutes=REQUEST_MINUTES, back=back, host=host)
    return HTMLResponse(text, status, {**_HEADERS, "Referrer-Policy": "no-referrer"})
