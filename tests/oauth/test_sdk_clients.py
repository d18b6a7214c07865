"""The clients of the SDKs in Python and TypeScript, and the requests that Claude and ChatGPT send, from the first refusal on."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp_types import TextContent
from pydantic import AnyUrl

from tests.mcp.conftest import MODES, Mode
from tests.needs import CONFORMANCE, SUITE
from tests.oauth.conftest import ISSUER, SCOPES, Open, Site, address_of, make_user, query_of
from tests.oauth.test_documents import CLIENT, DOCUMENT, Host, host  # noqa: F401  # a fixture

LOOPBACK = "http://localhost:33418/callback"


class Kept(TokenStorage):
    """What a client keeps."""

    tokens: OAuthToken | None = None
    info: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.info

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.info = client_info


class ToServer(httpx2.AsyncBaseTransport):
    """As the one of the fixtures, for the library that the SDK sends with."""

    def __init__(self, base: str) -> None:
        self.base, self.inner = httpx2.URL(base), httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        assert request.url.host == "agents.example"
        url = request.url.copy_with(scheme="http", host=self.base.host, port=self.base.port)
        sent = httpx2.Request(
            request.method, url, headers=request.headers, stream=request.stream, extensions=request.extensions
        )
        return await self.inner.handle_async_request(sent)

    async def aclose(self) -> None:
        await self.inner.aclose()


def browser(
    site: Site, shown: list[str]
) -> tuple[Callable[[str], Awaitable[None]], Callable[[], Awaitable[AuthorizationCodeResult]]]:
    """Ann's browser, in which she says yes; `shown` are the pages that she was shown."""
    answers: list[dict[str, str]] = []

    async def send_there(address: str) -> None:
        page = await site.http.get(address, follow_redirects=True)
        shown.append(page.text)
        answers.append(query_of(address_of((await site.decide(page)).text)))

    async def wait() -> AuthorizationCodeResult:
        said = answers.pop()
        return AuthorizationCodeResult(code=said["code"], state=said["state"], iss=said["iss"])

    return send_there, wait


def sign_in(site: Site, kept: Kept, shown: list[str], document: str | None = None) -> OAuthClientProvider:
    send_there, wait = browser(site, shown)
    return OAuthClientProvider(
        server_url=f"{ISSUER}/mcp",
        client_metadata=OAuthClientMetadata(client_name="SDK", redirect_uris=[AnyUrl(LOOPBACK)]),
        storage=kept,
        redirect_handler=send_there,
        callback_handler=wait,
        client_metadata_url=document,
    )


async def call(site: Site, auth: OAuthClientProvider, mode: Mode, tool: str, **arguments: Any) -> str:
    async with (
        httpx2.AsyncClient(auth=auth, transport=ToServer(site.base), timeout=30) as http,
        Client(
            streamable_http_client(f"{ISSUER}/mcp", http_client=http), mode="auto" if mode == "modern" else mode
        ) as client,
    ):
        result = await client.call_tool(tool, arguments)
        block = result.content[0]
        assert isinstance(block, TextContent) and not result.is_error
        return block.text


@pytest.mark.parametrize("mode", MODES)
async def test_the_python_sdk_registers_signs_in_and_asks_for_more(site: Site, mode: Mode) -> None:
    kept, shown = Kept(), list[str]()
    auth = sign_in(site, kept, shown)
    await call(site, auth, mode, "list_tasks")
    assert kept.tokens is not None and "tasks:write" not in (kept.tokens.scope or "")
    # step-up: the 403 names the scope, and the user is asked once more
    await call(site, auth, mode, "create_task", title="Buy fins")
    assert "Buy fins" in await call(site, auth, mode, "list_tasks")
    assert "tasks:write" in (kept.tokens.scope or "")
    assert len(shown) == 2 and all("a program on this computer" in page for page in shown)


async def test_the_python_sdk_refreshes_and_signs_in_anew_once_it_is_disconnected(site: Site) -> None:
    kept, shown = Kept(), list[str]()
    auth = sign_in(site, kept, shown)
    await call(site, auth, "modern", "list_tasks")
    first = kept.tokens
    auth.context.token_expiry_time = 1
    await call(site, auth, "modern", "list_tasks")
    assert (kept.tokens != first, len(shown)) == (True, 1)
    ann = await site.sign_in()
    for client in (await site.http.get("/api/clients", headers=ann)).json():
        await site.http.delete(f"/api/clients/{client['id']}", headers=ann)
    await call(site, auth, "modern", "list_tasks")
    assert len(shown) == 2


async def test_the_python_sdk_is_known_by_its_document(open_site: Open, host: Host) -> None:  # noqa: F811
    host.say({**DOCUMENT, "redirect_uris": ["http://localhost/callback"]})
    async with open_site(documents=host.documents) as site:
        await make_user(site)
        kept, shown = Kept(), list[str]()
        await call(site, sign_in(site, kept, shown, CLIENT), "modern", "list_tasks")
        assert kept.info is not None and kept.info.client_id == CLIENT
        assert "described by <strong><bdi>client.example</bdi>" in shown[0]


SCRIPT = """
const [sdk, base, issuer, redirect] = process.argv.slice(2);
const { auth, extractWWWAuthenticateParams } = await import(sdk);
const at = (url) => String(url).replace(issuer, base);
const fetchFn = (url, init) => fetch(at(url), init);
const kept = {};
const provider = {
  redirectUrl: redirect,
  clientMetadata: { client_name: "TypeScript", redirect_uris: [redirect] },
  state: () => "a-state",
  clientInformation: () => kept.client,
  saveClientInformation: (client) => { kept.client = client; },
  tokens: () => kept.tokens,
  saveTokens: (tokens) => { kept.tokens = tokens; },
  redirectToAuthorization: (url) => { console.log(JSON.stringify({ url: String(url) })); },
  saveCodeVerifier: (verifier) => { kept.verifier = verifier; },
  codeVerifier: () => kept.verifier,
};
const lines = (async function* () {
  let text = "";
  for await (const part of process.stdin) {
    text += part;
    while (text.includes("\\n")) { yield text.slice(0, text.indexOf("\\n")); text = text.slice(text.indexOf("\\n") + 1); }
  }
})();
const call = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "create_task", arguments: { title: "Buy fins" } } };
const post = () => fetch(at(`${issuer}/mcp`), {
  method: "POST",
  body: JSON.stringify(call),
  headers: {
    "content-type": "application/json", accept: "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25",
    ...(kept.tokens ? { authorization: `Bearer ${kept.tokens.access_token}` } : {}),
  },
});
const seen = [];
for (let round = 0; round < 3; round++) {
  const answer = await post();
  seen.push(answer.status);
  if (answer.ok) break;
  const { resourceMetadataUrl, scope } = extractWWWAuthenticateParams(answer);
  if (kept.tokens) kept.tokens = undefined;
  const options = { serverUrl: `${issuer}/mcp`, resourceMetadataUrl: resourceMetadataUrl && new URL(at(resourceMetadataUrl)), scope, fetchFn };
  await auth(provider, options);
  const { value } = await lines.next();
  const { code, iss } = JSON.parse(value);
  await auth(provider, { ...options, authorizationCode: code, iss });
}
const before = kept.tokens;
await auth(provider, { serverUrl: `${issuer}/mcp`, fetchFn });
console.log(JSON.stringify({ seen, rotated: before.refresh_token !== kept.tokens.refresh_token, scope: kept.tokens.scope }));
process.exit(0);
"""


@pytest.mark.needs("conformance")
async def test_the_typescript_sdk_registers_signs_in_asks_for_more_and_refreshes(site: Site, tmp_path: Path) -> None:
    script = tmp_path / "client.mjs"
    script.write_text(SCRIPT)
    sdk = (CONFORMANCE / "node_modules/@modelcontextprotocol/sdk/dist/esm/client/auth.js").as_uri()
    process = await asyncio.create_subprocess_exec(
        SUITE[0],
        str(script),
        sdk,
        site.base,
        ISSUER,
        LOOPBACK,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    said: dict[str, Any] = {}
    async for line in process.stdout:
        said = json.loads(line)
        if "url" not in said:
            break
        page = await site.http.get(said["url"], follow_redirects=True)
        answer = query_of(address_of((await site.decide(page)).text))
        assert answer["state"] == "a-state"
        process.stdin.write(json.dumps(answer).encode() + b"\n")
        await process.stdin.drain()
    assert await process.wait() == 0
    assert said["seen"] == [401, 403, 200]
    assert said["rotated"] and {"tasks:read", "tasks:write"} <= set(said["scope"].split())


CONNECTORS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Claude": (
        "https://claude.ai/api/mcp/auth_callback",
        {
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            "scope": SCOPES,
            "client_uri": "https://claude.ai",
        },
    ),
    "Claude, of its other address": (
        "https://claude.com/api/mcp/auth_callback",
        {"token_endpoint_auth_method": "client_secret_post"},
    ),
    "ChatGPT": (
        "https://chatgpt.com/connector/oauth/Ab3_x-9",
        {
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        },
    ),
    "ChatGPT, of before": (
        "https://chatgpt.com/connector_platform_oauth_redirect",
        {"token_endpoint_auth_method": "client_secret_basic"},
    ),
}


@pytest.mark.parametrize("name", CONNECTORS)
async def test_the_requests_of_a_connector_lead_to_a_token(site: Site, name: str) -> None:
    """As its maker documents it: no header of a browser, documents first, then registration, the page, the exchange."""
    redirect, more = CONNECTORS[name]
    http = httpx.AsyncClient(base_url=ISSUER, transport=site.http._transport, headers={"User-Agent": "connector"})
    refused = await http.post("/mcp", json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}})
    assert refused.status_code == 401
    document = (await http.get("/.well-known/oauth-protected-resource/mcp")).json()
    (issuer,) = document["authorization_servers"]
    # The documents of OpenID are looked for as well, and none is there.
    assert (await http.get("/.well-known/openid-configuration")).status_code == 404
    said = (await http.get(f"{issuer}/.well-known/oauth-authorization-server")).json()
    assert said["issuer"] == issuer and "S256" in said["code_challenge_methods_supported"]
    registered = (
        await http.post(said["registration_endpoint"], json={"client_name": name, "redirect_uris": [redirect], **more})
    ).json()
    assert registered["redirect_uris"] == [redirect]
    client, secret = registered["client_id"], registered.get("client_secret")
    page = await site.ask(
        client, redirect_uri=redirect, scope=" ".join(document["scopes_supported"]), resource=document["resource"]
    )
    assert str(urlsplit(redirect).hostname) in page.text
    code = query_of(address_of((await site.decide(page)).text))["code"]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect,
        "client_id": client,
        "code_verifier": "v" * 43,
        "resource": document["resource"],
    }
    basic: Any = (
        httpx.BasicAuth(client, secret or "")
        if registered["token_endpoint_auth_method"] == "client_secret_basic"
        else None
    )
    if secret and basic is None:
        form["client_secret"] = secret
    tokens = await http.post(said["token_endpoint"], data=form, auth=basic)
    assert tokens.status_code == 200, tokens.text
    assert tokens.headers["cache-control"] == "no-store"
    assert (await site.call(tokens.json()["access_token"], "create_task", title="Buy fins")).status_code == 200
    again = {
        "grant_type": "refresh_token",
        "refresh_token": tokens.json()["refresh_token"],
        "client_id": client,
        **({"client_secret": secret} if secret and basic is None else {}),
    }
    assert (await http.post(said["token_endpoint"], data=again, auth=basic)).status_code == 200
