"""Clients that are known by the address of a document: it is read, and leads nowhere into the network of the server."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from agent_server.oauth.documents import MOST_BYTES, BadDocument, Documents, check_address
from tests.conftest import execute, fetch
from tests.oauth.conftest import CALLBACK, Open, Site, address_of, make_user, query_of

CLIENT = "https://client.example/oauth/client.json"
DOCUMENT = {
    "client_id": CLIENT,
    "client_name": "Claude",
    "redirect_uris": [CALLBACK, "http://localhost/callback", "http://127.0.0.1/callback"],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
}


@dataclass
class Host:
    """A site with a certificate, on this machine, that answers as it is told to."""

    documents: Documents
    answer: Callable[[], web.StreamResponse]
    asked: list[str] = field(default_factory=list)

    def say(self, document: Any, **more: Any) -> None:
        self.answer = lambda: web.json_response(document, **more)


class Hosts(AbstractResolver):
    """`client.example` is on this machine, and whatever else there is a name for."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host != "client.example":
            raise OSError(f"{host} is not known")
        return [ResolveResult(hostname=host, host="127.0.0.1", port=self.port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


def make_certificate(folder: Path) -> tuple[Path, Path]:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    at = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = (
        builder.not_valid_before(at - timedelta(days=1))
        .not_valid_after(at + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("client.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    certificate, key = make_certificate(tmp_path)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(certificate, key)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.load_verify_locations(certificate)

    async def handle(request: web.Request) -> web.StreamResponse:
        told.asked.append(request.path_qs)
        return told.answer()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=own)
    await listener.start()
    port: int = runner.addresses[0][1]
    told = Host(Documents(lambda: Hosts(port), trusting), lambda: web.json_response(DOCUMENT))
    yield told
    await runner.cleanup()


@pytest.fixture
async def site(open_site: Open, host: Host) -> AsyncIterator[Site]:
    async with open_site(documents=host.documents) as site:
        await make_user(site)
        yield site


async def test_a_client_is_known_by_its_document(site: Site, host: Host) -> None:
    page = await site.ask(CLIENT)
    assert "<bdi>Claude</bdi>, described by <strong><bdi>client.example</bdi></strong>" in page.text
    tokens = await site.connect(CLIENT)
    assert (await site.call(tokens["access_token"])).status_code == 200
    assert (await site.refresh(CLIENT, tokens["refresh_token"])).status_code == 200
    # read once, for all of it
    assert host.asked == ["/oauth/client.json"]
    assert (await site.ask(CLIENT, redirect_uri="http://localhost:8123/callback")).status_code == 200
    assert (await site.ask(CLIENT, redirect_uri="https://evil.example/")).status_code == 400


async def test_a_document_is_read_again_after_an_hour(site: Site, host: Host) -> None:
    await site.connect(CLIENT)
    host.say({**DOCUMENT, "redirect_uris": ["https://client.example/new"]})
    assert (await site.ask(CLIENT)).status_code == 200
    await execute(site.server.database.url, "update oauth_client set read_at = now() - interval '2 hours'")
    assert (await site.ask(CLIENT)).status_code == 400
    assert (await site.ask(CLIENT, redirect_uri="https://client.example/new")).status_code == 200
    host.answer = lambda: web.Response(status=404)
    await execute(site.server.database.url, "update oauth_client set read_at = now() - interval '2 hours'")
    assert (await site.ask(CLIENT, redirect_uri="https://client.example/new")).status_code == 400


async def test_a_client_that_is_connected_refreshes_while_its_site_is_away(site: Site, host: Host) -> None:
    tokens = await site.connect(CLIENT)
    host.answer = lambda: web.Response(status=500)
    await execute(site.server.database.url, "update oauth_client set read_at = now() - interval '2 days'")
    assert (await site.refresh(CLIENT, tokens["refresh_token"])).status_code == 200


WRONG: Mapping[str, Any] = {
    "names another": {**DOCUMENT, "client_id": "https://client.example/other.json"},
    "names another client_id": {**DOCUMENT, "client_id": None},
    "token_endpoint_auth_method": {**DOCUMENT, "token_endpoint_auth_method": "client_secret_post"},
    "must have the token_endpoint": {**DOCUMENT, "client_secret": "x"},
    "redirect_uris": {**DOCUMENT, "redirect_uris": [CALLBACK, "javascript:alert(1)"]},
    "must list": {**DOCUMENT, "redirect_uris": CALLBACK},
    "name one to": {**DOCUMENT, "redirect_uris": []},
    "no JSON object": [DOCUMENT],
}


@pytest.mark.parametrize("why", WRONG)
async def test_a_document_that_is_wrong_is_shown_to_the_user(site: Site, host: Host, why: str) -> None:
    host.say(WRONG[why])
    answer = await site.ask(CLIENT)
    assert (answer.status_code, why in answer.text) == (400, True), answer.text
    assert host.asked == ["/oauth/client.json"]
    assert await fetch(site.server.database.url, "select 1 from oauth_client") == []


async def test_a_name_in_a_document_is_text(site: Site, host: Host) -> None:
    host.say({**DOCUMENT, "client_name": "<script>alert(1)</script>"})
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in (await site.ask(CLIENT)).text
    host.say({**DOCUMENT, "client_name": ["x"]})
    await execute(site.server.database.url, "delete from oauth_client")
    assert "<h1>Let <bdi>client.example</bdi> act for you?</h1>" in (await site.ask(CLIENT)).text


@pytest.mark.parametrize(
    "where", ["https://127.0.0.1/x", "http://169.254.169.254/latest/meta-data", "https://client.example/other"]
)
async def test_a_document_that_leads_on_is_not_followed(host: Host, where: str) -> None:
    for status in (301, 302, 303, 307, 308):
        host.answer = lambda status=status: web.Response(status=status, headers={"Location": where})  # type: ignore[misc]
        with pytest.raises(BadDocument, match=f"answers {status}"):
            await host.documents.read(CLIENT)
    assert set(host.asked) == {"/oauth/client.json"}


async def test_a_huge_document_is_not_read_to_its_end(host: Host) -> None:
    host.say({**DOCUMENT, "more": "x" * MOST_BYTES})
    with pytest.raises(BadDocument, match="larger than"):
        await host.documents.read(CLIENT)
    # one that is small while it is packed
    packed = web.Response(text=json.dumps({**DOCUMENT, "more": "x" * 10_000_000}), content_type="application/json")
    packed.enable_compression(web.ContentCoding.gzip)
    host.answer = lambda: packed
    with pytest.raises(BadDocument, match="larger than"):
        await host.documents.read(CLIENT)


async def test_a_document_that_is_no_json_is_refused(host: Host) -> None:
    for body, kind in (
        (b"<html>", "text/html"),
        (b"{", "application/json"),
        (b"\xff", "application/json"),
        (b"[" * 5_000, "application/json"),
    ):
        host.answer = lambda body=body, kind=kind: web.Response(body=body, content_type=kind)  # type: ignore[misc]
        with pytest.raises(BadDocument, match="is no JSON"):
            await host.documents.read(CLIENT)


async def test_a_document_that_never_comes_is_not_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    never = asyncio.Event()

    class Silent(web.StreamResponse):
        async def prepare(self, request: Any) -> Any:
            await never.wait()

    host.answer = Silent
    monkeypatch.setattr("agent_server.oauth.documents.SECONDS", 0.2)
    with pytest.raises(BadDocument, match="was not there within"):
        await host.documents.read(CLIENT)
    never.set()


async def test_a_name_that_leads_to_this_machine_is_not_asked(host: Host) -> None:
    """As the server does it, without the resolver of these tests."""
    for address in (
        "https://localhost/client.json",
        "https://localhost.localdomain/client.json",
        "https://none.invalid/x",
    ):
        with pytest.raises(BadDocument):
            await Documents().read(address)
    assert host.asked == []


PRIVATE = [
    "https://127.0.0.1/x",
    "https://10.0.0.1/x",
    "https://192.168.1.1/x",
    "https://169.254.169.254/latest",
    "https://[::1]/x",
    "https://[fd00::1]/x",
    "https://[::ffff:127.0.0.1]/x",
    "https://[64:ff9b::7f00:1]/x",
    "https://0.0.0.0/x",
    "https://2130706433/x",
    "https://127.1/x",
    "https://100.64.0.1/x",
]
BAD = [
    *PRIVATE,
    "http://client.example/x",
    "https://client.example",
    "https://client.example/",
    "https://client.example/a/../b",
    "https://client.example/./b",
    "https://client.example/x#f",
    "https://user@client.example/x",
    "https://client.example:0/x",
    "https://client.example:x/x",
    "https://client.example\\@evil.example/x",
    "https:///x",
    "https://client.example/" + "x" * 500,
    "https://client.example/\u202e",
]


@pytest.mark.parametrize("address", BAD)
async def test_an_address_that_no_document_may_have_is_refused_before_anything_is_asked(
    site: Site, host: Host, address: str
) -> None:
    with pytest.raises(BadDocument):
        check_address(address)
    assert (await site.ask(address)).status_code == 400
    assert host.asked == []


@given(st.ip_addresses())
def test_no_address_of_a_private_network_is_asked(address: Any) -> None:
    spelled = f"[{address}]" if address.version == 6 else str(address)
    try:
        check_address(f"https://{spelled}/client.json")
    except BadDocument:
        return
    assert address.is_global and not address.is_multicast


async def test_strangers_have_so_many_documents_read(open_site: Open, host: Host) -> None:
    async with open_site(documents=host.documents, rate_per_address=10_000) as site:
        host.answer = lambda: web.Response(status=404)
        answers = [(await site.ask(f"https://client.example/{n}")).status_code for n in range(122)]
        assert answers == [400] * 120 + [429] * 2
        assert len(host.asked) == 120


async def test_what_a_client_without_a_document_registers_is_no_address(site: Site) -> None:
    """Nobody registers under the name of a document."""
    registered = await site.register(client_id=CLIENT)
    assert registered["client_id"] != CLIENT
    done = await site.decide(await site.ask(registered["client_id"]))
    assert "code" in query_of(address_of(done.text))
