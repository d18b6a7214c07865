"""A client that can only sign in through a browser gets a token, and what its user lets it do."""

from typing import Any

import httpx
import pytest

from tests.oauth.conftest import CALLBACK, EMAIL, ISSUER, SCOPES, Site, address_of, make_user, query_of


async def test_a_client_that_is_let_in_calls_tools_as_its_user(site: Site) -> None:
    tokens = await site.connect()
    assert (tokens["token_type"], tokens["scope"], tokens["expires_in"]) == ("Bearer", SCOPES, 900)
    added = await site.call(tokens["access_token"], "create_task", title="Buy fins")
    assert added.status_code == 200, added.text
    tasks = await site.http.get("/api/tools/list_tasks", headers=await site.sign_in())
    assert "Buy fins" in (await site.call(tokens["access_token"])).text
    assert ("client.connected", "ok") in await site.acts()
    assert tasks.status_code in (200, 405)
