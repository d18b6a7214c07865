"""mcp.yaml -> the outside servers of a workspace.

    tickets:
      url: https://tickets.example.com/mcp
      headers:
        Authorization: Bearer ${MCP_TICKETS_TOKEN}
      tools:
        find_ticket: {effect: read}
        close_ticket: {effect: keyed, scope: tickets:close}
    files:
      command: [npx, -y, "@modelcontextprotocol/server-filesystem", content]

A secret stands in the environment or in `.env` under a name that begins with MCP_, and never in the file: nothing else
of the environment can be sent to a server.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agent_server.errors import Mistake, name_known
from agent_server.front_matter import read_head
from agent_server.log import without_secrets

FILE = "mcp.yaml"
_NAME = re.compile(r"[a-z][a-z_]{0,30}")
_PREFIX = re.compile(r"([a-z_][a-z0-9_]{0,30})?")
_TOOL_NAME = re.compile(r"[a-z_][a-z0-9_]{0,63}")
_COLLECTION = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_SCOPE = re.compile(r"[a-z_]+:[a-z_]+")
VARIABLE = re.compile(r"\$\{(\w*)\}")
_OF_SERVERS = re.compile(r"MCP_[A-Z0-9_]+")
_SECRET = re.compile(r"auth|key|token|secret|cookie|credential|passw|session", re.IGNORECASE)
"""What is in the names of headers, variables and parameters that hold secrets."""

Effect = Literal["read", "keyed", "once"]
Texts = tuple[str, ...]


class OutsideTool(BaseModel):
    """What may be done with one tool of a server. What is None is not said there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    effect: Effect | None = None
    scope: str | None = None
    confirm: bool | None = None
    staff: bool = False
    name: str | None = None

    @property
    def has_effect(self) -> Effect:
        return self.effect or "once"

    @property
    def is_confirmed(self) -> bool:
        """Whether its user is asked before an agent's call."""
        return self.has_effect != "read" if self.confirm is None else self.confirm


class OutsideServer(BaseModel):
    """A server as its file declares it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    url: str | None = None
    command: Annotated[Texts, Field(min_length=1)] | None = None
    headers: Mapping[str, str] = Field(default_factory=dict)
    env: Mapping[str, str] = Field(default_factory=dict)
    prefix: str | None = None
    scope: str | None = None
    timeout: Annotated[float, Field(gt=0)] | None = None
    private: bool = False
    tools: Mapping[str, OutsideTool] | None = None
    resources: Mapping[str, Annotated[Texts, Field(min_length=1)]] = Field(default_factory=dict)

    @field_validator("tools", mode="before")
    @classmethod
    def _read_tools(cls, value: Any) -> Any:
        # Both `[search, fetch]` and `search:` without a value are the plain way to write it.
        if isinstance(value, list):
            return {str(name): {} for name in value}
        if isinstance(value, dict):
            return {str(name): {} if said is None else said for name, said in value.items()}
        return value

    def allows(self, tool: str) -> bool:
        return self.tools is None or tool in self.tools

    def find_tool(self, tool: str) -> OutsideTool:
        """What is said of a tool; the safe defaults where nothing is."""
        return (self.tools or {}).get(tool) or OutsideTool()

    def scope_of(self, tool: str) -> str:
        return self.find_tool(tool).scope or self.scope or f"{self.name}:use"

    @property
    def names_before(self) -> str:
        """What stands before the names of its tools."""
        prefix = self.name if self.prefix is None else self.prefix
        return f"{prefix}_" if prefix else ""

    @property
    def place(self) -> str:
        """Where it is, as it may be shown."""
        if self.url is not None:
            return self.url.partition("?")[0]
        return " ".join(self.command or ())

    @property
    def variables(self) -> list[str]:
        """The variables that its headers and its environment are filled in from."""
        texts = [*self.headers.values(), *self.env.values()]
        return sorted({name for text in texts for name in VARIABLE.findall(text)})


@dataclass(frozen=True)
class ReadServers:
    """The servers of a workspace by name, the line of each, and what is wrong with the file."""

    servers: Mapping[str, OutsideServer]
    lines: Mapping[str, int]
    mistakes: list[Mistake]


def read_servers(root: Path) -> ReadServers:
    """The outside servers of a workspace."""
    try:
        text = (root / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ReadServers({}, {}, [])
    except (UnicodeDecodeError, OSError) as error:
        wrong = Mistake(FILE, None, f"cannot be read ({type(error).__name__}); save it as a file of UTF-8 text")
        return ReadServers({}, {}, [wrong])
    head = read_head(text, 1)
    mistakes = [Mistake(FILE, line, message.replace("front matter is", "is", 1)) for line, message in head.mistakes]
    mistakes += [
        Mistake(FILE, line, f"{name}: stands in line {first} already; name each server once")
        for name, line, first in head.repeated
    ]
    found: dict[str, OutsideServer] = {}
    for name, value in head.values.items():
        try:
            server = OutsideServer.model_validate({**value, "name": name} if isinstance(value, dict) else value)
        except ValidationError as error:
            wrong_keys = list(_explain(error))
        else:
            wrong_keys = list(_find_wrong(server))
            found[name] = server
        mistakes += [Mistake(FILE, head.lines.get(name), f"{name}: {message}") for message in wrong_keys]
    return ReadServers(found, head.lines, mistakes)


def _explain(error: ValidationError) -> Iterator[str]:
    keys = [key for key in OutsideServer.model_fields if key != "name"]
    for one in error.errors(include_url=False, include_input=False):
        path = [str(part) for part in one["loc"]]
        inside = OutsideTool.model_fields if path[:1] == ["tools"] and len(path) > 2 else keys
        match one["type"]:
            case "extra_forbidden":
                yield f"{'.'.join(path)} is no key there; {name_known(path[-1], inside)}"
            case "literal_error" if path[-1] == "effect":
                yield (
                    f"{'.'.join(path)}: is one of read, keyed and once. What a server elsewhere does is never `stored` "
                    "here; leave it out where you do not know"
                )
            case _ if not path:
                yield "is no mapping; write `url:` or `command:` below it"
            case _:
                yield f"{'.'.join(path)}: {one['msg']}"


def _find_wrong(server: OutsideServer) -> Iterator[str]:
    if not _NAME.fullmatch(server.name):
        yield "is no name of a server: its scope is made of it, as in `front_desk`, of a-z and _"
    if (server.url is None) == (server.command is None):
        yield "give it either `url: https://...` or `command: [program, argument]`"
    if not _PREFIX.fullmatch(server.prefix or ""):
        yield "prefix: is not of a-z, 0-9 and _; the names of its tools begin with it"
    for scope in [server.scope, *(each.scope for each in (server.tools or {}).values())]:
        if scope is not None and not _SCOPE.fullmatch(scope):
            yield f"scope {scope!r} is not resource:verb, as in tickets:write"
    for tool in (server.tools or {}).values():
        if tool.name is not None and not _TOOL_NAME.fullmatch(tool.name):
            yield f"name {tool.name!r} is not 1 to 64 of a-z, 0-9 and _, and begins with no digit"
    for collection in server.resources:
        if not _COLLECTION.fullmatch(collection):
            yield f"resources: {collection!r} is no folder of content/; write one of a-z, 0-9, - and _"
    yield from _find_wrong_values(server)
    if server.url is not None:
        yield from _find_wrong_url(server, server.url)
        if server.env:
            yield "env: is for a `command`; what a server at an address needs stands in `headers`"
    elif server.headers:
        yield "headers: are for a `url`; what a command needs stands in `env`"


def _find_wrong_values(server: OutsideServer) -> Iterator[str]:
    for where, values in (("headers", server.headers), ("env", server.env)):
        for name, text in values.items():
            if "\n" in text or "\r" in text or not text.isprintable():
                yield f"{where}: {name} has characters that no line of text has"
            for variable in VARIABLE.findall(text):
                if not _OF_SERVERS.fullmatch(variable):
                    yield f"{where}: {name} names ${{{variable}}}; only variables that begin with MCP_ are filled in"
            if not VARIABLE.search(text) and (_SECRET.search(name) or without_secrets(text) != text):
                yield (
                    f"{where}: {name} holds a secret; put it into the environment or into .env, and write "
                    f"{name}: ${{MCP_{server.name.upper()}_{'TOKEN' if where == 'headers' else name.upper()}}}"
                )
    for text in server.command or ():
        if VARIABLE.search(text) or without_secrets(text) != text:
            yield "command: a secret would stand in the list of processes; hand it over in `env`"


def _find_wrong_url(server: OutsideServer, url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or not url.isprintable() or " " in url:
        yield "url: is no address; write one as https://example.com/mcp is written"
        return
    if parts.username is not None or parts.password is not None:
        yield "url: holds a password; put it into a header, as in Authorization: Bearer ${MCP_TOKEN}"
    if any(_SECRET.search(name) for name, _ in parse_qsl(parts.query)) or without_secrets(url) != url:
        yield "url: holds a secret; put it into a header, as in Authorization: Bearer ${MCP_TOKEN}"
    if parts.scheme == "http" and not (server.private or is_here(host)):
        yield "url: without https others read along; write https://, or `private: true` for a network of your own"


def is_here(host: str) -> bool:
    """Whether a host is this machine by its very name."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
