"""What the MCP SDK's OAuth endpoints ask of this server. They check the protocol; what is stored and allowed is here."""

import re
from datetime import timedelta
from typing import Any
from uuid import UUID

from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    AuthorizeError,
    RefreshToken,
    RegistrationError,
    TokenError,
)
from mcp.shared.auth import DEFAULT_GRANT_TYPES, InvalidRedirectUriError, OAuthClientInformationFull, OAuthToken
from pydantic import AnyUrl

from agent_server.db import now
from agent_server.errors import Unauthorized
from agent_server.identity.accounts import Act
from agent_server.identity.limits import HOUR, limit_key, network_of, take
from agent_server.identity.users import roles_of_account
from agent_server.oauth import tokens
from agent_server.oauth.authority import (
    CONSENT,
    DOCUMENT_SECONDS,
    DOCUMENTS_PER_HOUR,
    REGISTRATIONS_PER_HOUR,
    Authority,
)
from agent_server.oauth.clients import Described, add_client, clean_name, find_client, mistake_of_redirects
from agent_server.oauth.documents import BadDocument, is_document
from agent_server.oauth.grants import DISCONNECTED, REUSED, end_grant, exchange, find_grant, refresh
from agent_server.oauth.redirects import find_allowed

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_LONGEST_STATE = 2_000
_METHODS = ("none", "client_secret_post", "client_secret_basic")


class Client(OAuthClientInformationFull):
    """A client as the SDK's endpoints know it."""

    def validate_scope(self, requested_scope: str | None) -> list[str] | None:
        # What may be had depends on the resource and the user, and on no registration.
        return None if requested_scope is None else requested_scope.split()

    def validate_redirect_uri(self, redirect_uri: AnyUrl | None) -> AnyUrl:
        registered = [str(each) for each in self.redirect_uris or ()]
        if redirect_uri is None:
            return super().validate_redirect_uri(None)
        if (allowed := find_allowed(redirect_uri, registered)) is None:
            raise InvalidRedirectUriError("redirect_uri is none of those that this client has registered")
        return allowed


class Code(AuthorizationCode):
    """A code and the grant that it begins."""

    owner_id: UUID
    grant_id: UUID


class Refresh(RefreshToken):
    """A refresh token, the grant that it is of and its number there."""

    owner_id: UUID
    grant_id: UUID
    number: int


class Access(AccessToken):
    """An access token and the grant that it is of."""

    owner_id: UUID
    grant_id: UUID


class Provider:
    """Answers for one request. `act` says where it comes from, and `resource` what a token is asked for, if it says so.
    `reads` says whether documents of clients are read: only while somebody is about to let one in."""

    def __init__(self, authority: Authority, act: Act, *, resource: str | None = None, reads: bool = False) -> None:
        self._authority, self._act, self._resource, self._reads = authority, act, resource, reads
        self._database = authority.database
        self._known: dict[str, Described | None] = {}
        self.mistake: str | None = None

    async def get_client(self, client_id: str) -> Client | None:
        described = await self._describe(client_id)
        if described is None:
            return None
        secret = await self._secret()
        return Client(
            client_id=described.id,
            client_name=described.name,
            redirect_uris=[AnyUrl(each) for each in described.redirect_uris],
            token_endpoint_auth_method=described.method,
            client_secret=None if described.method == "none" else tokens.client_secret(secret, described.id),
            grant_types=list(DEFAULT_GRANT_TYPES),
        )

    async def _describe(self, client_id: str) -> Described | None:
        # Asked for up to three times in a request.
        if client_id not in self._known:
            self._known[client_id] = await self._find(client_id)
        return self._known[client_id]

    async def _find(self, client_id: str) -> Described | None:
        if not client_id.isprintable():
            return None
        async with self._database.transaction() as session:
            known = await find_client(session, client_id)
        if not self._reads or not is_document(client_id) or (known is not None and known.age < DOCUMENT_SECONDS):
            return known
        await self._take("oauth_document", DOCUMENTS_PER_HOUR)
        try:
            read = await self._authority.documents.read(client_id)
        except BadDocument as error:
            self.mistake = f"The client's document {error}"
            return None
        async with self._database.transaction() as session:
            await add_client(session, read)
        return read

    async def _take(self, kind: str, burst: int) -> None:
        """Count an act of whoever asks. Raises TooMany."""
        if self._act.address is None or not self._authority.settings.rate_per_address:
            return
        key = limit_key(await self._secret(), kind, network_of(self._act.address))
        async with self._database.transaction() as session:
            await take(session, key, per_seconds=HOUR, burst=burst)

    async def _secret(self) -> bytes:
        return await self._authority.accounts.resolver.secret.get()

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        """Store a client. What it was given beside is changed in place: the SDK answers with it."""
        redirects = [str(each) for each in client_info.redirect_uris or ()]
        if mistake := mistake_of_redirects(redirects):
            raise RegistrationError("invalid_redirect_uri", mistake)
        method = client_info.token_endpoint_auth_method or "none"
        if method not in _METHODS:
            raise RegistrationError("invalid_client_metadata", f"token_endpoint_auth_method: {' or '.join(_METHODS)}")
        await self._take("oauth_register", REGISTRATIONS_PER_HOUR)
        described = Described(
            id=client_info.client_id,
            name=clean_name(client_info.client_name or "") or "A program without a name",
            redirect_uris=tuple(redirects),
            method=method,
        )
        async with self._database.transaction() as session:
            await add_client(session, described)
        client_info.client_name, client_info.grant_types = described.name, list(DEFAULT_GRANT_TYPES)
        client_info.response_types = ["code"]
        if method != "none":
            client_info.client_secret = tokens.client_secret(await self._secret(), described.id)

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        """The address of the page on which the user reads what is asked for."""
        if not _CHALLENGE.fullmatch(params.code_challenge):
            raise AuthorizeError("invalid_request", "code_challenge is no S256 challenge of 43 characters")
        if params.state is not None and len(params.state) > _LONGEST_STATE:
            raise AuthorizeError("invalid_request", f"state has more than {_LONGEST_STATE} characters")
        target = self._authority.find_target(params.resource)
        if target is None:
            raise AuthorizeError("invalid_target", "resource is none of this server's")
        # Some, like `openid` and `offline_access`, are asked for by habit and are not ours.
        scopes = target.usual if params.scopes is None else {each for each in params.scopes if each in target.scopes}
        if not scopes:
            raise AuthorizeError("invalid_scope", "none of the scopes is one of this resource")
        asked = tokens.Request(
            client_id=client.client_id,
            client_name=client.client_name or client.client_id,
            redirect_uri=str(params.redirect_uri),
            redirect_named=params.redirect_uri_provided_explicitly,
            resource=target.address,
            scopes=tuple(sorted(scopes)),
            challenge=params.code_challenge,
            state=params.state,
        )
        return f"{self._authority.issuer}{CONSENT}?request={tokens.issue_request(await self._secret(), asked)}"

    async def load_authorization_code(self, client: OAuthClientInformationFull, authorization_code: str) -> Code | None:
        if (said := tokens.read_code(authorization_code)) is None:
            return None
        owner_id, grant_id, sha = said
        async with self._database.transaction(owner_id) as session:
            row = await find_grant(session, owner_id, grant_id)
            if row is None or row.code_sha != sha or row.client_id != client.client_id:
                return None
            if row.exchanged_at is not None or row.revoked_at is not None:
                await end_grant(session, self._act, owner_id, grant_id, REUSED, "unauthorized")
                return None
        return Code(
            code=authorization_code,
            scopes=row.scopes,
            expires_at=row.code_expires_at.timestamp(),
            client_id=row.client_id,
            code_challenge=row.challenge,
            redirect_uri=AnyUrl(row.redirect_uri),
            redirect_uri_provided_explicitly=row.redirect_named,
            resource=row.resource,
            owner_id=owner_id,
            grant_id=grant_id,
        )

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: Code
    ) -> OAuthToken:
        code = authorization_code
        self._check_resource(code.resource)
        async with self._database.transaction(code.owner_id) as session:
            is_first = await exchange(session, code.owner_id, code.grant_id)
            if not is_first:
                await end_grant(session, self._act, code.owner_id, code.grant_id, REUSED, "unauthorized")
        if not is_first:
            raise TokenError("invalid_grant", "authorization code does not exist")
        return await self._issue(client.client_id, code.owner_id, code.grant_id, code.scopes, code.resource, 1)

    async def load_refresh_token(self, client: OAuthClientInformationFull, refresh_token: str) -> Refresh | None:
        if (said := tokens.read_refresh(await self._secret(), refresh_token)) is None:
            return None
        owner_id, grant_id, number = said
        async with self._database.transaction(owner_id) as session:
            row = await find_grant(session, owner_id, grant_id)
            if row is None or row.client_id != client.client_id or row.revoked_at is not None:
                return None
            if number != row.refreshes:
                await end_grant(session, self._act, owner_id, grant_id, REUSED, "unauthorized")
                return None
        return Refresh(
            token=refresh_token,
            client_id=row.client_id,
            scopes=row.scopes,
            expires_at=int(row.expires_at.timestamp()),
            resource=row.resource,
            owner_id=owner_id,
            grant_id=grant_id,
            number=number,
        )

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: Refresh, scopes: list[str]
    ) -> OAuthToken:
        token = refresh_token
        self._check_resource(token.resource)
        async with self._database.transaction(token.owner_id) as session:
            is_latest = await refresh(session, token.owner_id, token.grant_id, token.number)
            if not is_latest:
                await end_grant(session, self._act, token.owner_id, token.grant_id, REUSED, "unauthorized")
        if not is_latest:
            raise TokenError("invalid_grant", "refresh token does not exist")
        return await self._issue(
            client.client_id, token.owner_id, token.grant_id, scopes, token.resource, token.number + 1
        )

    def _check_resource(self, granted: str | None) -> None:
        if self._resource is not None and self._resource.removesuffix("/") != granted:
            raise TokenError("invalid_target", "resource is another than the one that was granted")

    async def _issue(
        self, client_id: str, owner_id: UUID, grant_id: UUID, scopes: list[str], resource: str | None, number: int
    ) -> OAuthToken:
        minutes, secret = self._authority.settings.access_token_minutes, await self._secret()
        try:
            async with self._database.transaction(owner_id) as session:
                await roles_of_account(session, owner_id)
        except Unauthorized as error:
            raise TokenError("invalid_grant", error.message) from None
        granted = tokens.Granted(
            owner_id=owner_id,
            grant_id=grant_id,
            client_id=client_id,
            scopes=frozenset(scopes),
            expires_at=now() + timedelta(minutes=minutes),
        )
        return OAuthToken(
            access_token=tokens.issue_access(secret, self._authority.issuer, granted, resource or ""),
            expires_in=minutes * 60,
            scope=" ".join(sorted(scopes)),
            refresh_token=tokens.issue_refresh(secret, owner_id, grant_id, number),
        )

    async def load_access_token(self, token: str) -> Access | None:
        try:
            said = tokens.read_access(await self._secret(), self._authority.issuer, token, None)
        except Unauthorized:
            return None
        return Access(
            token=token,
            client_id=said.client_id,
            scopes=sorted(said.scopes),
            expires_at=int(said.expires_at.timestamp()),
            owner_id=said.owner_id,
            grant_id=said.grant_id,
        )

    async def revoke_token(self, token: Any) -> None:
        """End the whole grant: a token of it that works on would surprise whoever has revoked one."""
        async with self._database.transaction(token.owner_id) as session:
            await end_grant(session, self._act, token.owner_id, token.grant_id, DISCONNECTED)

    async def exchange_identity_assertion(self, client: OAuthClientInformationFull, params: Any) -> OAuthToken:
        raise TokenError("unsupported_grant_type", "assertions of identity are not taken")
