"""Over all addresses and scopes: nobody is answered where it was not registered, and nobody is given more than it holds."""

from urllib.parse import urlsplit

from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import AnyUrl

from agent_server.caller import covers
from agent_server.identity.roles import narrow
from agent_server.oauth.clients import clean_name
from agent_server.oauth.redirects import answer_at, find_allowed, is_loopback, mistake_of, parse_redirect

HOSTS = [
    "claude.ai",
    "client.example",
    "127.0.0.1",
    "localhost",
    "[::1]",
    "evil.example",
    "client.example.evil.example",
]
SCHEMES = ["https", "http", "javascript", "data", "com.example.app", "cursor", "file", "HTTPS"]
PARTS = st.sampled_from(
    [
        "",
        "/",
        "/cb",
        "/cb/",
        "/../cb",
        "/%2e%2e/cb",
        "//evil.example",
        "\\evil.example",
        "/cb?a=1",
        "/cb#f",
        "?a=1",
        "@evil.example/cb",
        ":8123/cb",
        ":443/cb",
        "/CB",
    ]
)
ADDRESSES = st.one_of(
    st.text(max_size=40),
    st.builds(
        lambda scheme, host, part: f"{scheme}://{host}{part}", st.sampled_from(SCHEMES), st.sampled_from(HOSTS), PARTS
    ),
    st.builds(lambda scheme, rest: f"{scheme}:{rest}", st.sampled_from(SCHEMES), st.text(max_size=20)),
)
GOOD = ADDRESSES.filter(lambda text: mistake_of(text) is None)
SCOPES = st.sampled_from(["tasks:read", "tasks:write", "tasks:*", "leads:read", "*", "knowledge:read"])


@given(ADDRESSES)
def test_what_may_be_registered_is_a_site_with_tls_a_program_here_or_a_scheme_of_a_program(text: str) -> None:
    if mistake_of(text) is not None:
        return
    url = parse_redirect(text)
    assert url is not None and url.username is None and url.password is None and "#" not in str(url)
    if url.scheme == "http":
        assert is_loopback(url) and url.host in ("localhost", "127.0.0.1", "[::1]")
    elif url.scheme != "https":
        assert url.scheme == "cursor" or "." in url.scheme


@given(ADDRESSES, st.lists(GOOD, max_size=3))
@example("A.:?", ["A.:?"])  # a question mark with nothing after it
def test_an_answer_goes_to_a_registered_address_or_another_port_of_this_machine(
    text: str, registered: list[str]
) -> None:
    url = parse_redirect(text)
    if url is None or (found := find_allowed(url, registered)) is None:
        return
    sent, known = urlsplit(str(found)), [urlsplit(str(parse_redirect(each))) for each in registered]
    assert found in map(parse_redirect, registered) or any(
        sent.scheme == "http"
        and is_loopback(found)
        and (each.scheme, each.hostname, each.path, each.query) == (sent.scheme, sent.hostname, sent.path, sent.query)
        for each in known
    )
    assert "#" not in str(found) and "@" not in sent.netloc


@given(GOOD)
def test_a_registered_address_is_allowed_and_keeps_its_place_with_an_answer(text: str) -> None:
    url = parse_redirect(text)
    assert url is not None and find_allowed(url, [text]) == url
    where = answer_at(str(url), code="c&d=#", state=None, iss="https://agents.example")
    assert where.startswith(str(url))
    again = parse_redirect(where)
    assert again is not None
    assert (again.scheme, again.host, again.port, again.path) == (url.scheme, url.host, url.port, url.path)
    assert again.fragment is None and "state" not in dict(again.query_params())
    assert dict(again.query_params())["code"] == "c&d=#"


@given(st.frozensets(SCOPES), st.frozensets(SCOPES))
def test_what_is_granted_is_asked_for_and_held(held: frozenset[str], asked: frozenset[str]) -> None:
    granted = narrow(held, asked) & asked
    assert granted <= asked
    assert all(covers(held, scope) for scope in granted)
    assert {scope for scope in asked if covers(held, scope)} == granted


@given(st.text())
def test_a_name_is_one_short_line_that_can_be_seen(name: str) -> None:
    cleaned = clean_name(name)
    assert len(cleaned) <= 80 and cleaned == cleaned.strip() and cleaned.isprintable()
    assert clean_name(cleaned) == cleaned
    assert not set(cleaned) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u200b\u200e\u200f\ufeff")


@given(ADDRESSES)
def test_an_address_is_read_as_it_is_sent(text: str) -> None:
    url = parse_redirect(text)
    assert url is None or AnyUrl(str(url)) == url
