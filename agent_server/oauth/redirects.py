"""Where an answer may be sent to.

An address is compared as it will be sent to the browser (`parse_redirect`), to the letter. Of a program on the user's
own machine the port may be any, since it takes a free one (RFC 8252, 7.3).
"""

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlencode

from pydantic import AnyUrl, TypeAdapter, ValidationError

MOST = 10
LONGEST = 500
_APPS = frozenset({"cursor", "vscode", "vscode-insiders", "windsurf"})
"""Schemes of known programs that are not named after a domain, as RFC 8252 wants it."""
_URL = TypeAdapter(AnyUrl)


def parse_redirect(text: str) -> AnyUrl | None:
    """The address as browsers read it. None for what is none."""
    try:
        return _URL.validate_python(text)
    except ValidationError:
        return None


def is_loopback(url: AnyUrl) -> bool:
    """Whether this leads to a program on the user's own machine."""
    host = (url.host or "").strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def mistake_of(text: str) -> str | None:
    """What is wrong with an address that a client wants answers sent to."""
    url = parse_redirect(text)
    if url is None or len(text) > LONGEST or len(str(url)) > LONGEST:
        return f"is no address of at most {LONGEST} characters"
    if "#" in str(url):
        return "must have no fragment"
    if url.username is not None or url.password is not None:
        return "must have no user name and no password"
    if url.scheme == "https":
        return None
    if url.scheme == "http":
        return None if is_loopback(url) else "must start with https:// (http:// is for this machine only)"
    # `javascript:`, `data:` and the like would run in the browser, on the page that the user has just trusted.
    if url.scheme in _APPS or ("." in url.scheme and not url.scheme.startswith(".")):
        return None
    return "must start with https://, http://127.0.0.1, or a scheme named after a domain, as in com.example.app:/"


def find_allowed(url: AnyUrl, registered: Iterable[str]) -> AnyUrl | None:
    """`url` where a client may be answered there."""
    known = [each for each in map(parse_redirect, registered) if each is not None]
    if any(str(url) == str(each) for each in known):
        return url
    # `localhost` and 127.0.0.1 are no substitutes for each other: a name may be resolved to something else.
    if url.scheme == "http" and is_loopback(url) and any(_without_port(url) == _without_port(each) for each in known):
        return url
    return None


def _without_port(url: AnyUrl) -> tuple[str, ...]:
    parts = (url.scheme, url.username, url.password, url.host, url.path, url.query, url.fragment)
    return tuple("-" if part is None else f"={part}" for part in parts)


def describe_host(url: AnyUrl) -> str:
    """Where an answer goes, for a person."""
    if url.scheme not in ("http", "https"):
        return f"{url.scheme}:"
    port = f":{url.port}" if url.port not in (None, 80, 443) else ""
    return f"{url.host}{port}"


def answer_at(redirect: str, **parameters: str | None) -> str:
    """The address with these in its query, beside what is there."""
    query = urlencode({name: value for name, value in parameters.items() if value is not None})
    return f"{redirect}{'&' if '?' in redirect else '?'}{query}"
