"""What strangers try: to be answered elsewhere, to use what is another's, to be let in by a user who does not know."""

import base64
import hashlib
import hmac
import re
from typing import Any

import jwt
import pytest

from agent_server.db import new_id
from agent_server.oauth import clients
from tests.conftest import execute, fetch
from tests.oauth.conftest import (
    CALLBACK,
    CHALLENGE,
    EMAIL,
    ISSUER,
    VERIFIER,
    Open,
    Site,
    address_of,
    error_of,
    fields_of,
    make_user,
    query_of,
)

ELSEWHERE = [
    "https://evil.example/cb",
    CALLBACK + "/",
    CALLBACK + "?next=https://evil.example",
    CALLBACK + "#x",
    CALLBACK + "/../../../evil",
    CALLBACK.upper(),
    CALLBACK.replace("claude.ai", "claude.ai.evil.example"),
    CALLBACK.replace("claude.ai", "claude.ai@evil.example"),
    CALLBACK.replace("claude.ai", "claude.ai:444"),
    CALLBACK.replace("https", "http"),
    "https://claude.ai\\@evil.example/api/mcp/auth_callback",
    "javascript:alert(1)",
    "//evil.example",
    "",
    "http://127.0.0.1:9/callback",
]


@pytest.mark.parametrize("redirect", ELSEWHERE)
async def test_nobody_is_sent_to_an_address_that_is_not_registered(site: Site, redirect: str) -> None:
    client = (await site.register())["client_id"]
    for more in ({}, {"response_type": "token"}, {"scope": "*"}, {"code_challenge": None}, {"resource": "x"}):
        answer = await site.ask(client, redirect_uri=redirect, **more)
        assert answer.status_code == 400, redirect
        assert "location" not in answer.headers
        assert "This cannot be connected" in answer.text


async def test_a_program_on_the_users_machine_may_listen_on_any_port(site: Site) -> None:
    client = (await site.register("http://127.0.0.1/callback", "http://localhost:1/callback"))["client_id"]
    for good in ("http://127.0.0.1:33418/callback", "http://127.0.0.1/callback", "http://localhost:5/callback"):
        page = await site.ask(client, redirect_uri=good)
        assert page.status_code == 200
        assert "a program on this computer" in page.text
        code = query_of(address_of((await site.decide(page)).text))["code"]
        assert (await site.exchange(client, code, redirect_uri=good)).status_code == 200
    for bad in (
        "http://127.0.0.2:33418/callback",
        "http://[::1]:33418/callback",
        "http://127.0.0.1:33418/other",
        "http://127.0.0.1:33418/callback?x=1",
        "https://127.0.0.1:33418/callback",
        "http://127.0.0.1.evil.example:33418/callback",
        "http://localhost.evil.example/callback",
        "http://u:p@127.0.0.1:33418/callback",
    ):
        assert (await site.ask(client, redirect_uri=bad)).status_code == 400, bad


@pytest.mark.parametrize(
    "redirect",
    [
        "javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "blob:https://agents.example/x",
        "http://evil.example/cb",
        "http://169.254.169.254/cb",
        "https://user:password@client.example/cb",
        "https://client.example/cb#fragment",
        "https://client.example/cb#",
        "ftp://client.example/cb",
        "about:blank",
        "mailto:x@example.com",
        "https://client.example/" + "x" * 500,
        "nonsense",
        "",
    ],
)
async def test_no_client_registers_an_address_that_is_dangerous(site: Site, redirect: str) -> None:
    for redirects in ([redirect], [CALLBACK, redirect]):
        answer = await site.http.post("/oauth/register", json={"client_name": "x", "redirect_uris": redirects})
        assert answer.status_code == 400, redirect
        assert answer.json()["error"] in ("invalid_redirect_uri", "invalid_client_metadata")
    assert await fetch(site.server.database.url, "select 1 from oauth_client") == []


@pytest.mark.parametrize("redirect", ["com.example.app:/cb", "cursor://anysphere.cursor-mcp/oauth/callback"])
async def test_a_program_with_a_scheme_of_its_own_is_answered_there(site: Site, redirect: str) -> None:
    client = (await site.register(redirect))["client_id"]
    page = await site.ask(client, redirect_uri=redirect)
    assert "Go on only if you have just started this yourself" in page.text
    where = address_of((await site.decide(page)).text)
    assert where.startswith(f"{redirect}?")
    assert (await site.exchange(client, query_of(where)["code"], redirect_uri=redirect)).status_code == 200


@pytest.mark.parametrize(
    "more",
    [
        {"code_challenge": None},
        {"code_challenge": ""},
        {"code_challenge": VERIFIER, "code_challenge_method": "plain"},
        {"code_challenge": "x" * 20},
        {"code_challenge": CHALLENGE + "="},
        {"code_challenge_method": "s256"},
    ],
)
async def test_there_is_no_code_without_a_challenge_of_s256(site: Site, more: dict[str, Any]) -> None:
    refused = await site.ask((await site.register())["client_id"], **more)
    assert error_of(refused) | {"error_description": ""} == {
        "error": "invalid_request",
        "error_description": "",
        "state": site.state,
        "iss": ISSUER,
    }


@pytest.mark.parametrize("response_type", ["token", "id_token", "code token", None])
async def test_there_is_no_other_flow(site: Site, response_type: str | None) -> None:
    refused = await site.ask((await site.register())["client_id"], response_type=response_type)
    said = error_of(refused)
    assert said["error"] in ("unsupported_response_type", "invalid_request")
    assert "code" not in said and said["iss"] == ISSUER


@pytest.mark.parametrize(
    "grant_type", ["password", "client_credentials", "implicit", "urn:ietf:params:oauth:grant-type:jwt-bearer"]
)
async def test_there_is_no_other_grant(site: Site, grant_type: str) -> None:
    client = (await site.register())["client_id"]
    form = {"grant_type": grant_type, "client_id": client, "assertion": "x", "username": EMAIL, "password": "x"}
    assert (await site.post("/oauth/token", form)).status_code == 400


@pytest.mark.parametrize("verifier", [None, "", "w" * 43, CHALLENGE, VERIFIER + "v"])
async def test_a_stolen_code_is_worth_nothing_without_the_verifier(site: Site, verifier: str | None) -> None:
    client = (await site.register())["client_id"]
    code = await site.allow(client)
    refused = await site.exchange(client, code, code_verifier=verifier)
    assert refused.json()["error"] in ("invalid_grant", "invalid_request")
    assert (await site.exchange(client, code)).status_code == 200


async def test_a_code_that_comes_again_ends_what_it_began(site: Site) -> None:
    client = (await site.register())["client_id"]
    code = await site.allow(client)
    tokens = (await site.exchange(client, code)).json()
    again = await site.exchange(client, code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert (await site.call(tokens["access_token"])).status_code == 401
    assert (await site.refresh(client, tokens["refresh_token"])).status_code == 400
    assert await site.acts() == [("client.connected", "ok"), ("client.token_reused", "unauthorized")]


async def test_what_one_client_was_given_is_none_of_anothers(site: Site) -> None:
    client, other = (await site.register())["client_id"], (await site.register())["client_id"]
    code = await site.allow(client)
    swapped = await site.exchange(other, code)
    assert (swapped.status_code, swapped.json()["error"]) == (400, "invalid_grant")
    tokens = (await site.exchange(client, code)).json()
    swapped = await site.refresh(other, tokens["refresh_token"])
    assert (swapped.status_code, swapped.json()["error"]) == (400, "invalid_grant")
    # neither has ended anything
    assert (await site.call(tokens["access_token"])).status_code == 200
    assert (await site.refresh(client, tokens["refresh_token"])).status_code == 200


async def test_the_address_of_the_exchange_is_that_of_the_request(site: Site) -> None:
    two = [CALLBACK, "https://claude.com/api/mcp/auth_callback"]
    client = (await site.register(*two))["client_id"]
    code = await site.allow(client)
    for wrong in (two[1], "https://evil.example/", None):
        assert (await site.exchange(client, code, redirect_uri=wrong)).status_code == 400
    assert (await site.exchange(client, code)).status_code == 200


@pytest.mark.parametrize(
    "code",
    [
        "",
        "x",
        "asc_",
        "asc_x.y.z",
        "asc_" + "1" * 32 + "." + "2" * 32 + ".x",
        "asc_" + "0" * 32 + "." + "0" * 32 + ".\0",
        "é.é.é",
    ],
)
async def test_a_code_or_a_token_that_was_made_up_is_refused(site: Site, code: str) -> None:
    client = (await site.register())["client_id"]
    for answer in (await site.exchange(client, code), await site.refresh(client, code.replace("asc", "aso") + ".1")):
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        assert answer.headers["cache-control"] == "no-store"


async def test_no_text_of_ours_passes_for_another(site: Site) -> None:
    tokens = await site.connect()
    client = tokens["client_id"]
    request = fields_of((await site.ask(client)).text)["request"]
    login = (await site.sign_in())["Authorization"].removeprefix("Bearer ")
    code = await site.allow(client)
    for token in (tokens["refresh_token"], request, code):
        assert (await site.call(token)).status_code == 401
    for token in (tokens["access_token"], request, login):
        assert (await site.refresh(client, token)).status_code == 400
        assert (await site.exchange(client, token)).status_code == 400
    for token in (tokens["access_token"], login, code):
        assert (await site.http.get("/oauth/consent", params={"request": token})).status_code == 400


async def test_a_token_is_taken_as_we_signed_it_alone(site: Site) -> None:
    token = (await site.connect())["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    secret = await site.server.resolver.secret.get()
    key = hmac.digest(secret, b"oauth access", "sha256")
    good = {"typ": "at+jwt"}
    assert (await site.call(jwt.encode(claims, key, headers=good))).status_code == 200
    forged = [
        jwt.encode(claims, "", algorithm="none", headers=good),
        jwt.encode(claims, secret, headers=good),
        jwt.encode(claims, "x" * 32, headers=good),
        jwt.encode(claims, key),
        jwt.encode({**claims, "aud": "agent-server"}, key, headers=good),
        jwt.encode({**claims, "iss": "agent-server"}, key, headers=good),
        jwt.encode({**claims, "iss": "https://evil.example"}, key, headers=good),
        jwt.encode({**claims, "sid": str(new_id())}, key, headers=good),
        jwt.encode({**claims, "sub": str(new_id())}, key, headers=good),
        jwt.encode({**claims, "exp": 1}, key, headers=good),
        *(
            jwt.encode({k: v for k, v in claims.items() if k != name}, key, headers=good)
            for name in ("aud", "exp", "sid", "scope")
        ),
        token[:-4] + "AAAA",
    ]
    for each in forged:
        assert (await site.call(each)).status_code == 401, jwt.decode(each, options={"verify_signature": False})


async def test_a_parameter_that_is_named_twice_is_refused(site: Site) -> None:
    client = (await site.register())["client_id"]
    for more in (
        "redirect_uri=https://evil.example",
        f"client_id={client}",
        "state=2",
        "resource=x",
        "code_challenge=x",
    ):
        assert (await site.http.get(f"{site.address(client)}&{more}")).status_code == 400
    body = f"grant_type=refresh_token&client_id={client}&refresh_token=a&refresh_token=b"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await site.http.post("/oauth/token", content=body, headers=form)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert (await site.http.post("/oauth/token", content="a=1&" * 200, headers=form)).status_code == 400


async def test_a_form_of_another_page_or_browser_is_refused(site: Site) -> None:
    page = await site.ask((await site.register())["client_id"])
    fields = {**fields_of(page.text), "email": EMAIL, "password": "a password of Ann's", "decision": "allow"}
    for wrong in ({"form": ""}, {"form": "0" * 64}, {"request": ""}, {"request": "x.y.z"}, {"form": "é"}):
        assert (await site.http.post("/oauth/consent", data={**fields, **wrong})).status_code == 403
    # the form of another request
    other = fields_of((await site.ask((await site.register())["client_id"])).text)
    assert (await site.http.post("/oauth/consent", data={**fields, "form": other["form"]})).status_code == 403
    # a page of another site
    for origin in ("https://evil.example", "null"):
        answer = await site.http.post("/oauth/consent", data=fields, headers={"Origin": origin})
        assert answer.status_code == 403
    # another browser, and one that has sent no cookie
    kept = dict(site.http.cookies)
    for cookies in ({}, {"__Host-consent": "0" * 32}, {"__Host-consent": ""}):
        site.http.cookies.clear()
        site.http.cookies.update(cookies)
        assert (await site.http.post("/oauth/consent", data=fields)).status_code == 403
    assert await fetch(site.server.database.url, "select 1 from oauth_grant") == []
    site.http.cookies.clear()
    site.http.cookies.update(kept)
    assert (await site.http.post("/oauth/consent", data=fields)).status_code == 200


async def test_two_tabs_of_one_browser_do_not_disturb_each_other(site: Site) -> None:
    client = (await site.register())["client_id"]
    first, second = await site.ask(client), await site.ask(client, scope="tasks:read")
    assert (await site.decide(first)).status_code == 200
    assert (await site.decide(second)).status_code == 200


async def test_the_cookie_is_for_this_host_and_for_no_script(site: Site) -> None:
    cookie = (await site.ask((await site.register())["client_id"])).headers["set-cookie"]
    assert cookie.startswith("__Host-consent=")
    assert {part.strip().lower() for part in cookie.split(";")[1:]} >= {"httponly", "secure", "samesite=lax", "path=/"}
    assert "domain" not in cookie.lower()


async def test_no_page_of_it_is_in_a_frame_or_loads_from_elsewhere(site: Site) -> None:
    page = await site.ask((await site.register())["client_id"])
    done = await site.decide(page)
    refused = await site.http.get("/oauth/authorize")
    for answer in (page, done, refused):
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy and "form-action 'self'" in policy
        assert "script-src" not in policy and "<script" not in answer.text
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
    assert (page.headers["referrer-policy"], done.headers["referrer-policy"]) == ("same-origin", "no-referrer")


NAMES = {
    "<script>alert(1)</script>": "&lt;script&gt;alert(1)&lt;/script&gt;",
    '"><img src=x onerror=alert(1)>': "&#34;&gt;&lt;img src=x onerror=alert(1)&gt;",
    "{{ settings }}{% raw %}": "{{ settings }}{% raw %}",
    "Claude\u202e\u2066edulC\u200b": "ClaudeedulC",
    "a\n\n\nb\0\x1b[31m": "a b[31m",
    "x" * 5_000: "x" * 80,
    "": "A program without a name",
    "\u200b\u200e": "A program without a name",
}


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
async def test_the_name_of_a_client_is_text_and_nothing_else(site: Site, name: str) -> None:
    registered = await site.register(client_name=name)
    page = await site.ask(registered["client_id"])
    assert f"calls itself <bdi>{NAMES[name]}</bdi>" in page.text
    assert "Nobody has checked the name" in page.text
    assert not re.search(r"<(script|img src=x)", page.text)
    done = await site.decide(page)
    assert f"<h1><bdi>{NAMES[name]}</bdi> is connected</h1>" in done.text


async def test_state_comes_back_as_it_was_and_leads_nowhere(site: Site) -> None:
    client = (await site.register())["client_id"]
    for state in (
        '"><script>alert(1)</script>',
        "a&iss=https://evil.example&code=x",
        "ü \r\n Location: x",
        "x" * 1_500,
    ):
        done = await site.decide(await site.ask(client, state=state))
        assert "<script" not in done.text
        where = address_of(done.text)
        assert "\n" not in where
        said = query_of(where)
        assert (said["state"].replace("\r\n", "\n"), said["iss"]) == (state.replace("\r\n", "\n"), ISSUER)
    assert error_of(await site.ask(client, state="x" * 3_000))["error"] == "invalid_request"


async def test_a_flood_of_registrations_is_bounded(site: Site) -> None:
    url = site.server.database.url
    await execute(
        url,
        f"""insert into oauth_client select 'flood' || n, 'x', '{{https://x.example/}}', 'none', now(), now(), null
            from generate_series(1, {clients.MOST_UNUSED}) n""",
    )
    refused = await site.http.post("/oauth/register", json={"redirect_uris": [CALLBACK]})
    assert refused.status_code == 429
    await execute(url, "update oauth_client set created_at = now() - interval '2 hours'")
    await site.connect()
    assert await fetch(url, "select count(*) from oauth_client") == [(1,)]


async def test_one_address_registers_so_many_clients_an_hour(open_site: Open) -> None:
    async with open_site(rate_per_address=10_000) as site:
        body = {"client_name": "x", "redirect_uris": [CALLBACK]}
        answers = [(await site.http.post("/oauth/register", json=body)).status_code for _ in range(62)]
        assert answers == [201] * 60 + [429] * 2


async def test_requests_of_one_address_are_limited(open_site: Open) -> None:
    async with open_site(rate_per_address=5) as site:
        await make_user(site)
        for path in ("/oauth/authorize", "/oauth/consent"):
            last = [(await site.http.get(path)).status_code for _ in range(8)][-1]
            assert last == 429
        assert (await site.post("/oauth/token", {})).status_code == 429
        assert (await site.http.post("/oauth/register", json={})).status_code == 429


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"redirect_uris": []},
        {"redirect_uris": [CALLBACK] * 11},
        {"redirect_uris": CALLBACK},
        {"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "private_key_jwt"},
        {"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "tls"},
        {"redirect_uris": [CALLBACK], "grant_types": ["client_credentials"]},
        {"redirect_uris": [CALLBACK], "response_types": ["token"]},
        {"redirect_uris": [CALLBACK], "client_name": {"a": 1}},
        "x",
    ],
)
async def test_a_registration_that_makes_no_sense_is_refused(site: Site, body: Any) -> None:
    answer = await site.http.post("/oauth/register", json=body)
    assert answer.status_code == 400
    assert await fetch(site.server.database.url, "select 1 from oauth_client") == []


async def test_a_client_that_is_not_known_is_shown_to_the_user_and_gets_nothing(site: Site) -> None:
    for client in ("nobody", "\0", "<script>alert(1)</script>", "x" * 2_000, str(new_id())):
        answer = await site.ask(client)
        assert (answer.status_code, "location" in answer.headers) == (400, False)
        assert "<script" not in answer.text
        assert (await site.exchange(client, "x")).status_code == 401


async def test_a_pkce_challenge_is_bound_to_its_code(site: Site) -> None:
    """Two requests of one client: the verifier of one does not open the other."""
    client = (await site.register())["client_id"]
    other = "w" * 43
    challenge = base64.urlsafe_b64encode(hashlib.sha256(other.encode()).digest()).decode().rstrip("=")
    mine, theirs = await site.allow(client), await site.allow(client, code_challenge=challenge)
    assert (await site.exchange(client, theirs)).json()["error"] == "invalid_grant"
    assert (await site.exchange(client, mine, code_verifier=other)).json()["error"] == "invalid_grant"
    assert (await site.exchange(client, theirs, code_verifier=other)).status_code == 200
