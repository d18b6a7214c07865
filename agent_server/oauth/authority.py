"""What all parts of the authorisation server are given, and what is known of what tokens can be for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent_server.db import Database
from agent_server.identity.accounts import Accounts
from agent_server.oauth.documents import Documents
from agent_server.settings import Settings

AUTHORIZE, CONSENT, TOKEN = "/oauth/authorize", "/oauth/consent", "/oauth/token"  # an address
REGISTER, REVOKE = "/oauth/register", "/oauth/revoke"
WELL_KNOWN = "/.well-known/oauth-authorization-server"
DOCUMENT_SECONDS = 3600
"""How long what a document says is taken for true."""
REGISTRATIONS_PER_HOUR, DOCUMENTS_PER_HOUR = 60, 120
"""From one address."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A resource that tokens are for. `scopes` are all that may be asked for there, with what each is for, and `usual`
    those that a client has that asks for none."""

    address: str
    name: str
    scopes: Mapping[str, Sequence[str]]
    usual: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Authority:
    """The authorisation server of one process. The first of `targets` is the whole, the others are parts of it."""

    issuer: str
    settings: Settings
    database: Database
    accounts: Accounts
    targets: Sequence[Target]
    documents: Documents = field(default_factory=Documents)

    def find_target(self, resource: str | None) -> Target | None:
        """The target that a client names by its address. It means the whole where it names none."""
        if resource is None:
            return self.targets[0]
        return next((each for each in self.targets if each.address == resource.removesuffix("/")), None)

    @property
    def metadata(self) -> Mapping[str, object]:
        """RFC 8414, section 2."""
        methods = ["none", "client_secret_post", "client_secret_basic"]
        return {
            "issuer": self.issuer,
            "authorization_endpoint": self.issuer + AUTHORIZE,
            "token_endpoint": self.issuer + TOKEN,
            "registration_endpoint": self.issuer + REGISTER,
            "revocation_endpoint": self.issuer + REVOKE,
            "scopes_supported": sorted(self.targets[0].usual),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_methods_supported": methods,
            "revocation_endpoint_auth_methods_supported": methods,
            "code_challenge_methods_supported": ["S256"],
            "client_id_metadata_document_supported": True,
            "authorization_response_iss_parameter_supported": True,
        }
