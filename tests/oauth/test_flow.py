"""A client that can only sign in through a browser gets a token, and may do what its user lets it do."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import jwt
import pytest
from sqlalchemy import text

from agent_server.db import new_id
from agent_server.errors import InvalidInput, Unauthorized
from agent_server.identity.accounts import Accounts, Act
from agent_server.oauth.clients import expire_clients
from agent_server.oauth.grants import MOST_GRANTS
from agent_server.settings import load_settings
from agent_server.toolsets import Toolset
from agent_server.workspace import load_workspace
from tests.conftest import ROOT, execute, fetch
from tests.oauth.conftest import (
    CALLBACK,
    EMAIL,
    ISSUER,
    PASSWORD,
    SCOPES,
    Open,
    Site,
    address_of,
    error_of,
    make_user,
    query_of,
)


async def test_a_client_that_is_let_in_calls_tools_as_its_user(site: Site) -> None:
    tokens = await site.connect()
    assert (tokens["token_type"], tokens["scope"], tokens["expires_in"]) == ("Bearer", SCOPES, 900)
    added = await site.call(tokens["access_token"], "create_task", title="Buy fins")
    assert added.status_code == 200, added.text
    assert "Buy fins" in (await site.call(tokens["access_token"])).text
    owners = {owner for (owner,) in await fetch(site.server.database.url, "select owner_id from task")}
    me = (await site.http.get("/api/auth/me", headers=await site.sign_in())).json()
    assert {str(owner) for owner in owners} == {me["id"]}
    assert await site.acts() == [("client.connected", "ok")]


async def test_from_the_first_refusal_a_client_finds_all_that_it_needs(site: Site) -> None:
    refused = await site.http.post("/mcp", json={})
    challenge = refused.headers["www-authenticate"]
    assert refused.status_code == 401
    document = (await site.http.get(challenge.partition('resource_metadata="')[2].partition('"')[0])).json()
    assert (document["resource"], document["authorization_servers"]) == (f"{ISSUER}/mcp", [ISSUER])
    found = await site.http.get("/.well-known/oauth-authorization-server")
    assert found.headers["access-control-allow-origin"] == "*"
    said = found.json()
    assert set(document["scopes_supported"]) == set(said.pop("scopes_supported"))
    assert said == {
        "issuer": ISSUER,
        "authorization_endpoint": f"{ISSUER}/oauth/authorize",
        "token_endpoint": f"{ISSUER}/oauth/token",
        "registration_endpoint": f"{ISSUER}/oauth/register",
        "revocation_endpoint": f"{ISSUER}/oauth/revoke",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_post", "client_secret_basic"],
        "revocation_endpoint_auth_methods_supported": ["none", "client_secret_post", "client_secret_basic"],
        "code_challenge_methods_supported": ["S256"],
        "client_id_metadata_document_supported": True,
        "authorization_response_iss_parameter_supported": True,
    }


async def test_it_is_off_unless_it_is_set(open_site: Open) -> None:
    async with open_site(oauth=False) as site:
        for path in ("/.well-known/oauth-authorization-server", "/oauth/authorize", "/oauth/consent", "/oauth/clients"):
            assert (await site.http.get(path)).status_code == 404
        for path in ("/oauth/token", "/oauth/register", "/oauth/revoke"):
            assert (await site.http.post(path)).status_code == 404
        document = await site.http.get("/.well-known/oauth-protected-resource/mcp")
        assert "authorization_servers" not in document.json()


@pytest.mark.parametrize("address", [None, "http://agents.example"])
def test_it_needs_an_address_that_nobody_can_listen_to(address: str | None) -> None:
    with pytest.raises(InvalidInput, match="AGENT_SERVER_OAUTH: set AGENT_SERVER_PUBLIC_URL"):
        load_settings(oauth=True, public_url=address, _env_file=None)
    for good in ("https://agents.example", "http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"):
        assert load_settings(oauth=True, public_url=good, _env_file=None).oauth


async def test_beside_an_outside_issuer_it_is_the_one_that_clients_try_first(open_site: Open) -> None:
    secret = "a secret of the issuer's, of enough bytes"
    outside = {"issuer": "https://auth.example", "audience": [f"{ISSUER}/mcp"], "secret": secret}
    async with open_site(issuers=[outside]) as site:
        await make_user(site)
        document = (await site.http.get("/.well-known/oauth-protected-resource/mcp")).json()
        assert document["authorization_servers"] == [ISSUER, "https://auth.example"]
        theirs = jwt.encode(
            {"iss": "https://auth.example", "aud": f"{ISSUER}/mcp", "sub": "x", "exp": 4_000_000_000}, secret
        )
        assert (await site.call(theirs)).status_code == 200
        assert (await site.call((await site.connect())["access_token"])).status_code == 200


async def test_a_token_has_no_scope_that_its_user_lacks(open_site: Open) -> None:
    async with open_site(roles={"reader": ["tasks:read"]}) as site:
        await make_user(site, EMAIL, "reader")
        tokens = await site.connect(scope="tasks:read tasks:write leads:read")
        assert tokens["scope"] == "tasks:read"
        assert (await site.call(tokens["access_token"])).status_code == 200
        refused = await site.call(tokens["access_token"], "create_task", title="Buy fins")
        assert refused.status_code == 403
        assert 'error="insufficient_scope", scope="tasks:read tasks:write"' in refused.headers["www-authenticate"]


async def test_who_may_nothing_of_it_lets_nobody_in(open_site: Open) -> None:
    async with open_site(roles={"nobody": ["account:read"]}) as site:
        await make_user(site, EMAIL, "nobody")
        answer = await site.decide(await site.ask((await site.register())["client_id"]))
        assert answer.status_code == 403
        assert "Your account may do nothing of what is ticked" in answer.text
        assert await fetch(site.server.database.url, "select 1 from oauth_grant") == []


async def test_a_role_that_is_taken_away_is_gone_from_the_next_request_on(site: Site) -> None:
    tokens = await site.connect()
    accounts = Accounts(site.server.database, site.server.resolver)
    site.server.resolver.roles = replace(
        site.server.resolver.roles, scopes={**site.server.resolver.roles.scopes, "less": frozenset({"account:read"})}
    )
    me = (await site.http.get("/api/auth/me", headers=await site.sign_in())).json()
    await accounts.change_user(Act(surface="cli"), None, me["id"], roles=["less"])
    assert (await site.call(tokens["access_token"])).status_code == 403


async def test_a_client_asks_for_more_when_it_needs_more(site: Site) -> None:
    """Step-up: a challenge names the scope, and the next token has it beside those of before."""
    client = (await site.register())["client_id"]
    tokens = await site.connect(client, scope="tasks:read")
    refused = await site.call(tokens["access_token"], "create_task", title="Buy fins")
    challenge = refused.headers["www-authenticate"]
    assert (refused.status_code, 'error="insufficient_scope"' in challenge) == (403, True)
    wanted = challenge.partition('scope="')[2].partition('"')[0]
    more = await site.connect(client, scope=wanted)
    assert more["scope"] == SCOPES
    assert (await site.call(more["access_token"], "create_task", title="Buy fins")).status_code == 200


async def test_a_client_that_names_no_scope_is_asked_about_those_of_the_resource(site: Site) -> None:
    document = (await site.http.get("/.well-known/oauth-protected-resource/mcp")).json()
    client = (await site.register())["client_id"]
    tokens = await site.connect(client, scope=None)
    assert set(tokens["scope"].split()) <= set(document["scopes_supported"])
    assert "tasks:write" in tokens["scope"]
    # what is asked for by habit is passed over, and a wildcard is no scope of a tool
    assert (await site.connect(client, scope="openid offline_access tasks:read tasks:*"))["scope"] == "tasks:read"
    nothing = await site.ask(client, scope="openid *")
    assert error_of(nothing)["error"] == "invalid_scope"


async def test_a_user_grants_a_part_of_what_is_asked_for(site: Site) -> None:
    client = (await site.register())["client_id"]
    page = await site.ask(client)
    answer = await site.decide(page, scope=["tasks:read", "leads:read"])
    tokens = (await site.exchange(client, query_of(address_of(answer.text))["code"])).json()
    assert tokens["scope"] == "tasks:read"


async def test_a_user_who_says_no_is_told_of_to_the_client(site: Site) -> None:
    client = (await site.register())["client_id"]
    answer = await site.decide(await site.ask(client), decision="deny", email="", password="")
    where = address_of(answer.text)
    assert where.startswith(f"{CALLBACK}?")
    assert query_of(where) == {"error": "access_denied", "state": site.state, "iss": ISSUER}
    assert await site.acts() == []


async def test_a_wrong_password_is_counted_and_grants_nothing(site: Site) -> None:
    page = await site.ask((await site.register())["client_id"])
    for n in range(11):
        answer = await site.decide(page, password=f"wrong {n}")
        assert answer.status_code == (403 if n < 10 else 429)
        assert PASSWORD not in answer.text and "wrong" not in answer.text
    assert (await site.decide(page)).status_code == 429
    assert await fetch(site.server.database.url, "select 1 from oauth_grant") == []


@pytest.mark.parametrize("given", [{"email": "a\0@b"}, {"password": "x" * 5_000}, {"email": "x" * 400}, {"email": ""}])
async def test_what_no_account_can_have_is_a_wrong_password(site: Site, given: dict[str, str]) -> None:
    answer = await site.decide(await site.ask((await site.register())["client_id"]), **given)
    assert answer.status_code == 403
    assert "do not belong together" in answer.text


async def test_refresh_tokens_rotate(site: Site) -> None:
    first = await site.connect()
    second = (await site.refresh(first["client_id"], first["refresh_token"])).json()
    third = (await site.refresh(first["client_id"], second["refresh_token"], scope="tasks:read")).json()
    assert len({each["refresh_token"] for each in (first, second, third)}) == 3
    assert (second["scope"], third["scope"]) == (SCOPES, "tasks:read")
    assert (await site.call(third["access_token"], "create_task", title="x")).status_code == 403
    # narrowed for one token, the grant is as it was
    assert (await site.refresh(first["client_id"], third["refresh_token"])).json()["scope"] == SCOPES


async def test_a_refresh_token_that_is_used_again_ends_the_grant(site: Site) -> None:
    first = await site.connect()
    second = (await site.refresh(first["client_id"], first["refresh_token"])).json()
    again = await site.refresh(first["client_id"], first["refresh_token"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    for token in (first, second):
        assert (await site.call(token["access_token"])).status_code == 401
        assert (await site.refresh(first["client_id"], token["refresh_token"])).status_code == 400
    assert await site.acts() == [("client.connected", "ok"), ("client.token_reused", "unauthorized")]


async def test_a_refresh_token_with_more_scopes_is_refused(site: Site) -> None:
    first = await site.connect(scope="tasks:read")
    more = await site.refresh(first["client_id"], first["refresh_token"], scope=SCOPES)
    assert (more.status_code, more.json()["error"]) == (400, "invalid_scope")
    assert (await site.refresh(first["client_id"], first["refresh_token"])).status_code == 200


async def test_of_two_exchanges_at_once_on_two_replicas_one_wins_and_the_grant_ends(open_site: Open) -> None:
    async with open_site() as one, open_site() as two:
        await make_user(one)
        client = (await one.register())["client_id"]
        for _ in range(3):
            code = await one.allow(client)
            answers = await asyncio.gather(*(site.exchange(client, code) for site in (one, two, one, two)))
            good = [answer.json() for answer in answers if answer.status_code == 200]
            assert len(good) == 1
            assert {answer.json()["error"] for answer in answers if answer.status_code != 200} == {"invalid_grant"}
            assert (await two.call(good[0]["access_token"])).status_code == 401
            assert (await one.refresh(client, good[0]["refresh_token"])).status_code == 400


async def test_of_two_refreshes_at_once_on_two_replicas_one_wins_and_the_grant_ends(open_site: Open) -> None:
    async with open_site() as one, open_site() as two:
        await make_user(one)
        tokens = await one.connect()
        client, token = tokens["client_id"], tokens["refresh_token"]
        answers = await asyncio.gather(*(site.refresh(client, token) for site in (one, two, one, two)))
        good = [answer.json() for answer in answers if answer.status_code == 200]
        assert len(good) == 1
        assert (await two.call(good[0]["access_token"])).status_code == 401


async def test_what_one_replica_begins_another_ends(open_site: Open) -> None:
    async with open_site() as one, open_site() as two:
        await make_user(one)
        client = (await one.register())["client_id"]
        code = await one.allow(client)
        tokens = (await two.exchange(client, code)).json()
        assert (await one.call(tokens["access_token"])).status_code == 200
        assert (await one.refresh(client, tokens["refresh_token"])).status_code == 200


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
async def test_a_client_that_revokes_a_token_is_disconnected(site: Site, which: str) -> None:
    tokens = await site.connect()
    stranger = (await site.register())["client_id"]
    form = {"token": tokens[which], "token_type_hint": which}
    assert (await site.post("/oauth/revoke", {**form, "client_id": stranger})).status_code == 200
    assert (await site.call(tokens["access_token"])).status_code == 200
    assert (await site.post("/oauth/revoke", {**form, "client_id": tokens["client_id"]})).status_code == 200
    assert (await site.call(tokens["access_token"])).status_code == 401
    assert (await site.refresh(tokens["client_id"], tokens["refresh_token"])).status_code == 400
    assert (await site.acts())[-1] == ("client.disconnected", "ok")
    nonsense = await site.post("/oauth/revoke", {"token": "nonsense", "client_id": tokens["client_id"]})
    assert nonsense.status_code == 200


async def test_a_user_sees_and_disconnects_their_own_clients_alone(site: Site) -> None:
    await make_user(site, "eve@example.com")
    tokens = await site.connect()
    login = {"email": "eve@example.com", "password": PASSWORD}
    eve = {"Authorization": f"Bearer {(await site.http.post('/api/auth/login', json=login)).json()['access_token']}"}
    ann = await site.sign_in()
    (shown,) = (await site.http.get("/api/clients", headers=ann)).json()
    assert (shown["name"], shown["answers_at"], shown["resource"]) == ("Claude", "claude.ai", f"{ISSUER}/mcp")
    assert shown["scopes"] == SCOPES.split()
    assert (await site.http.get("/api/clients", headers=eve)).json() == []
    assert (await site.http.delete(f"/api/clients/{shown['id']}", headers=eve)).status_code == 404
    assert (await site.call(tokens["access_token"])).status_code == 200
    assert (await site.http.delete(f"/api/clients/{shown['id']}", headers=ann)).status_code == 204
    assert (await site.call(tokens["access_token"])).status_code == 401
    assert (await site.http.get("/api/clients", headers=ann)).json() == []
    assert (await site.http.delete(f"/api/clients/{shown['id']}", headers=ann)).status_code == 404
    assert await site.acts() == [("client.connected", "ok"), ("client.disconnected", "ok")]


async def test_the_database_shows_a_grant_to_its_owner_alone(site: Site) -> None:
    await site.connect()
    for owner in ([], [new_id()]):
        async with site.server.database.transaction(*owner, scopes=["*"]) as session:
            assert (await session.execute(text("select count(*) from oauth_grant"))).scalar_one() == 0


async def test_a_user_who_is_disabled_or_erased_takes_the_clients_along(site: Site) -> None:
    accounts = Accounts(site.server.database, site.server.resolver)
    tokens = await site.connect()
    me = (await site.http.get("/api/auth/me", headers=await site.sign_in())).json()["id"]
    client = tokens["client_id"]
    code = await site.allow(client)
    await accounts.change_user(Act(surface="cli"), None, me, disabled=True)
    assert (await site.call(tokens["access_token"])).status_code == 401
    assert (await site.refresh(client, tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await site.exchange(client, code)).json()["error"] == "invalid_grant"
    assert (await site.decide(await site.ask(client))).status_code == 403
    await accounts.change_user(Act(surface="cli"), None, me, disabled=False)
    tokens = await site.connect(client)
    erased = await site.http.request("DELETE", "/api/me", json={"password": PASSWORD}, headers=await site.sign_in())
    assert erased.status_code == 204, erased.text
    assert (await site.call(tokens["access_token"])).status_code == 401
    assert (await site.refresh(client, tokens["refresh_token"])).status_code == 400
    assert await fetch(site.server.database.url, "select 1 from oauth_grant") == []


async def test_a_code_and_a_grant_end_with_their_time(site: Site) -> None:
    client, url = (await site.register())["client_id"], site.server.database.url
    code = await site.allow(client)
    await execute(url, "update oauth_grant set code_expires_at = now() - interval '1 second'")
    late = await site.exchange(client, code)
    assert (late.status_code, late.json()["error"]) == (400, "invalid_grant")
    tokens = await site.connect(client)
    await execute(url, "update oauth_grant set expires_at = now() - interval '1 second'")
    assert (await site.call(tokens["access_token"])).status_code == 401
    assert (await site.refresh(client, tokens["refresh_token"])).status_code == 400
    assert (await site.http.get("/api/clients", headers=await site.sign_in())).json() == []


async def test_what_is_stored_opens_nothing(site: Site) -> None:
    registered = await site.register(token_endpoint_auth_method="client_secret_post")
    client, secret = registered["client_id"], registered["client_secret"]
    code = await site.allow(client)
    tokens = (await site.exchange(client, code, client_secret=secret)).json()
    rows = await fetch(site.server.database.url, "select c::text, g::text from oauth_client c, oauth_grant g")
    stored = str(rows)
    for known in (secret, code, tokens["access_token"], tokens["refresh_token"], code.rpartition(".")[2]):
        assert known not in stored
        assert known.encode().hex() not in stored


async def test_one_user_connects_so_many_clients_and_no_more(site: Site) -> None:
    tokens = await site.connect()
    await execute(
        site.server.database.url,
        f"""insert into oauth_grant select (jsonb_populate_record(g, jsonb_build_object('id', gen_random_uuid()))).*
            from oauth_grant g, generate_series(2, {MOST_GRANTS})""",
    )
    refused = await site.decide(await site.ask(tokens["client_id"]))
    assert (refused.status_code, "disconnect one first" in refused.text) == (403, True)
    await execute(site.server.database.url, "update oauth_grant set revoked_at = now() - interval '1 second'")
    await site.connect(tokens["client_id"])
    assert len(await fetch(site.server.database.url, "select 1 from oauth_grant")) == 1


async def test_a_password_that_was_changed_leaves_clients_connected_as_it_leaves_keys(site: Site) -> None:
    tokens = await site.connect()
    body = {"current": PASSWORD, "new": "another password of Ann's"}
    changed = await site.http.post("/api/auth/password", json=body, headers=await site.sign_in())
    assert changed.status_code == 204
    assert (await site.call(tokens["access_token"])).status_code == 200


@pytest.fixture
async def parts(open_site: Open) -> AsyncIterator[Site]:
    workspace = replace(
        load_workspace(ROOT), toolsets={"look": Toolset(effect="read"), "desk": Toolset(scopes=("tasks:write",))}
    )
    async with open_site(workspace=workspace) as site:
        await make_user(site)
        yield site


async def test_a_token_opens_the_resource_that_it_is_for_and_no_other(parts: Site) -> None:
    site = parts
    client = (await site.register())["client_id"]
    whole = (await site.connect(client, scope="tasks:read"))["access_token"]
    look = (await site.connect(client, scope="tasks:read", resource=f"{ISSUER}/mcp/look"))["access_token"]
    assert [(await site.call(whole, path=path)).status_code for path in ("/mcp", "/mcp/look")] == [200, 200]
    assert [(await site.call(look, path=path)).status_code for path in ("/mcp", "/mcp/look", "/mcp/desk")] == [
        401,
        200,
        401,
    ]
    for token in (whole, look):
        answer = await site.http.get("/api/auth/me", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401
        assert (await site.http.get("/api/clients", headers={"Authorization": f"Bearer {token}"})).status_code == 401


async def test_a_part_asks_for_its_own_scopes_and_another_resource_is_refused(parts: Site) -> None:
    site = parts
    client = (await site.register())["client_id"]
    for resource in ("https://evil.example/mcp", f"{ISSUER}/mcp/none", ISSUER, f"{ISSUER}/mcp//", ""):
        refused = await site.ask(client, resource=resource)
        assert error_of(refused)["error"] == "invalid_target"
    only = await site.ask(client, resource=f"{ISSUER}/mcp/look", scope="tasks:write")
    assert error_of(only)["error"] == "invalid_scope"
    code = await site.allow(client, resource=f"{ISSUER}/mcp/look", scope="tasks:read")
    other = await site.exchange(client, code, resource=f"{ISSUER}/mcp")
    assert (other.status_code, other.json()["error"]) == (400, "invalid_target")
    tokens = (await site.exchange(client, code, resource=f"{ISSUER}/mcp/look")).json()
    other = await site.refresh(client, tokens["refresh_token"], resource=f"{ISSUER}/mcp")
    assert (other.status_code, other.json()["error"]) == (400, "invalid_target")


async def test_a_client_may_keep_a_secret(site: Site) -> None:
    for method in ("client_secret_post", "client_secret_basic"):
        registered = await site.register(token_endpoint_auth_method=method)
        client, secret = registered["client_id"], registered["client_secret"]
        assert registered["token_endpoint_auth_method"] == method
        code = await site.allow(client)
        for wrong in ({}, {"client_secret": "x" * 64}):
            assert (await site.exchange(client, code, **wrong)).json()["error"] == "invalid_client"
        form: dict[str, Any] = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
        form["code_verifier"] = "v" * 43
        if method == "client_secret_post":
            answer = await site.post("/oauth/token", {**form, "client_id": client, "client_secret": secret})
        else:
            basic = httpx.BasicAuth(client, secret)
            answer = await site.http.post("/oauth/token", data=form, auth=basic)
        assert answer.status_code == 200, answer.text


async def test_unused_clients_are_forgotten_and_used_ones_are_not(site: Site) -> None:
    used, unused, fresh = (await site.connect())["client_id"], await site.register(), await site.register()
    url, database = site.server.database.url, site.server.database
    await execute(
        url, f"update oauth_client set created_at = now() - interval '8 days' where id <> '{fresh['client_id']}'"
    )
    await expire_clients(database, 90)
    left = {id for (id,) in await fetch(url, "select id from oauth_client")}
    assert left == {used, fresh["client_id"]} and unused["client_id"] not in left
    await execute(url, "update oauth_client set used_at = now() - interval '98 days' where used_at is not null")
    await expire_clients(database, 90)
    assert {id for (id,) in await fetch(url, "select id from oauth_client")} == {fresh["client_id"]}


async def test_work_that_was_put_off_ends_with_the_client(site: Site) -> None:
    """As a stream of changes, which asks from time to time whether its caller still may have them."""
    token = (await site.connect())["access_token"]
    resolver, ann = site.server.resolver, await site.sign_in()
    caller = await resolver.resolve(token, audience=[f"{ISSUER}/mcp"])
    assert (await resolver.renew(caller)).scopes == frozenset(SCOPES.split())
    (shown,) = (await site.http.get("/api/clients", headers=ann)).json()
    await site.http.delete(f"/api/clients/{shown['id']}", headers=ann)
    with pytest.raises(Unauthorized, match="no longer connected"):
        await resolver.renew(caller)


async def test_an_export_has_the_clients_and_no_secret(site: Site) -> None:
    await site.connect()
    answer = await site.http.get("/api/me/export", headers=await site.sign_in())
    assert answer.status_code == 200
    assert "Claude" in answer.text and "code_sha" not in answer.text
