"""Pages at addresses of the web -> files of a collection.

A list of addresses may be anybody's, so none leads into the network of the server: the address that a name stands for is
looked at when the connection is made, again for each redirect. Every answer has limits of size and time.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from yarl import URL

from agent_server.errors import InvalidInput, Mistake
from agent_server.gathering.gather import Gathered, read_notes, remove_gone, write_notes, write_whole
from agent_server.internet import PublicResolver, is_public
from agent_server.knowledge.ingest import Progress
from agent_server.knowledge.parse import MOST_BYTES, MOST_BYTES_OF_TEXT
from agent_server.knowledge.readers import SUFFIXES, is_readable

MOST_ADDRESSES = 10_000
MOST_REDIRECTS = 5
AT_ONCE = 8
ATTEMPTS = 3
LONGEST_WAIT = 30.0
"""Seconds that a server may ask to wait for before the next attempt."""
_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=10, sock_read=20)
_NOTED_EVERY = 50
_TYPES = {
    "text/html": ".html",
    "application/xhtml+xml": ".xhtml",
    "text/markdown": ".md",
    "text/x-markdown": ".md",
    "text/plain": ".txt",
    "text/x-rst": ".rst",
    "application/pdf": ".pdf",
    "application/x-ipynb+json": ".ipynb",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
}
_BY_NAME = ("text/plain", "application/octet-stream", "application/json", "binary/octet-stream", "")
"""Types with which servers send files whose names say more."""


class _Refused(Exception):
    """Why a page is not fetched."""


class _Later(Exception):
    """Why an attempt failed, and after how many seconds the next one may succeed."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


def read_addresses(file: Path) -> list[str]:
    """The addresses of a list, one in a line. Raises InvalidInput for the first line that is none."""
    addresses: dict[str, None] = {}
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError):
        raise InvalidInput(f"{file}: is no text; write one http or https address in a line") from None
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        try:
            url = URL(line)
            good = url.scheme in ("http", "https") and bool(url.host) and not url.user
        except ValueError:
            good = False
        if not good:
            raise InvalidInput(f"{file}:{number}: is no address; write https://example.org/page, and # before a remark")
        addresses[str(url.with_fragment(None))] = None
    if not addresses:
        raise InvalidInput(f"{file}: has no address; write one http or https address in a line")
    if len(addresses) > MOST_ADDRESSES:
        raise InvalidInput(f"{file}: has more than {MOST_ADDRESSES:,} addresses; make several lists of them")
    return list(addresses)


async def fetch_addresses(
    addresses: Sequence[str],
    target: Path,
    *,
    allow_private: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Gathered:
    """Make `target` hold the pages at these addresses. One that cannot be fetched keeps its version of before."""
    before = read_notes(target)
    known = {note["address"]: (name, note) for name, note in before.items() if "address" in note}
    gathered = Gathered({name: note for address, (name, note) in known.items() if address in set(addresses)})
    done, waiting = 0, asyncio.Semaphore(AT_ONCE)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(_open_session(allow_private=allow_private))

        async def take(address: str) -> None:
            nonlocal done
            async with waiting:
                name, note = known.get(address, ("", {}))
                is_there = bool(name) and (target / name).is_file()
                try:
                    found = await _fetch(session, address, note if is_there else {}, allow_private=allow_private)
                except _Refused as error:
                    gathered.problems.append(Mistake(address, None, str(error)))
                else:
                    if found is not None:
                        suffix, content, new = found
                        gathered.files.pop(name, None)
                        gathered.files[name_file(address, suffix)] = {"address": address, **new}
                        await asyncio.to_thread(write_whole, target / name_file(address, suffix), content)
            done += 1
            if done % _NOTED_EVERY == 0:
                write_notes(target, {**before, **gathered.files})
            if progress is not None:
                progress(Progress(done, len(addresses), address))

        # Noted first: of what a run that is killed has written, the next one must know that it is its own.
        write_notes(target, before)
        async with asyncio.TaskGroup() as tasks:
            for address in addresses:
                tasks.create_task(take(address))
    remove_gone(target, before, gathered.files)
    write_notes(target, gathered.files)
    gathered.problems.sort(key=lambda problem: addresses.index(problem.file))
    return gathered


def name_file(address: str, suffix: str) -> str:
    """The file that an address becomes, below a folder of its host."""
    url = URL(address)
    path = url.path.strip("/") or "index"
    for known in SUFFIXES:
        path = path.removesuffix(known)
    parts = [re.sub(r"[^\w.-]+", "_", part)[:80].lstrip(".") or "_" for part in path.split("/")]
    host = f"{url.host}-{url.port}" if not url.is_default_port() else str(url.host)
    # Two addresses must not become one file.
    own = (
        ""
        if "/".join(parts) == path and not url.query_string
        else f"-{hashlib.sha256(address.encode()).hexdigest()[:8]}"
    )
    return "/".join((re.sub(r"[^\w.-]+", "_", host), *parts)) + own + suffix


def _open_session(*, allow_private: bool) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        resolver=None if allow_private else PublicResolver(_PRIVATE), use_dns_cache=False, limit=AT_ONCE
    )
    # Not by a proxy of the environment: then it would be the proxy's address that is looked at.
    return aiohttp.ClientSession(
        connector=connector, timeout=_TIMEOUT, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
    )


_PRIVATE = "leads into a private network; with --allow-private it is fetched"


async def _fetch(
    session: aiohttp.ClientSession, address: str, note: Mapping[str, str], *, allow_private: bool
) -> tuple[str, bytes, dict[str, str]] | None:
    """The ending of the file, its content and what is noted of it. None where it has not changed since `note`."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await _follow(session, URL(address), note, allow_private=allow_private)
        except _Later as error:
            wait, message = error.seconds, str(error)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            refused = getattr(error, "os_error", error)
            if _PRIVATE in str(refused):
                raise _Refused(_PRIVATE) from None
            wait, message = 0.5 * attempt, f"cannot be fetched: {str(refused) or 'it takes too long'}"
        if attempt < ATTEMPTS:
            await asyncio.sleep(wait)
    raise _Refused(message)


async def _follow(
    session: aiohttp.ClientSession, url: URL, note: Mapping[str, str], *, allow_private: bool
) -> tuple[str, bytes, dict[str, str]] | None:
    headers = {"If-None-Match": note["etag"]} if note.get("etag") else {}
    for _ in range(MOST_REDIRECTS + 1):
        _check(url, allow_private=allow_private)
        async with session.get(url, allow_redirects=False, headers=headers) as answer:
            if answer.status == 304 and headers:
                return None
            if answer.status in (301, 302, 303, 307, 308) and "Location" in answer.headers:
                url = url.join(URL(answer.headers["Location"])).with_fragment(None)
                continue
            if answer.status == 429 or answer.status >= 500:
                raise _Later(f"answers {answer.status}", _read_wait(answer.headers.get("Retry-After")))
            if answer.status != 200:
                raise _Refused(f"answers {answer.status}; correct the address or take it out of the list")
            suffix = _choose_suffix(answer.content_type, url)
            etag = answer.headers.get("ETag", "")
            return (
                suffix,
                await _read(answer, MOST_BYTES.get(suffix, MOST_BYTES_OF_TEXT)),
                {"etag": etag} if etag else {},
            )
    raise _Refused(f"leads on more than {MOST_REDIRECTS} times")


def _check(url: URL, *, allow_private: bool) -> None:
    if url.scheme not in ("http", "https") or not url.host:
        raise _Refused(f"leads to {url.scheme or 'nowhere'}; only http and https are fetched")
    try:
        # An address that is no name is connected to without the resolver.
        public = is_public(url.host)
    except ValueError:
        return
    if not (public or allow_private):
        raise _Refused(_PRIVATE)


def _choose_suffix(content_type: str, url: URL) -> str:
    named = Path(url.path).suffix.lower()
    suffix = _TYPES.get(content_type.lower(), "")
    if content_type.lower() in _BY_NAME and named in SUFFIXES:
        suffix = named
    if not suffix:
        raise _Refused(f"is {content_type or 'of no type'}, which is not read")
    if not is_readable(suffix):
        raise _Refused(f"is {suffix}, which is read with `pip install 'agent-server[documents]'`")
    return suffix


def _read_wait(value: str | None) -> float:
    return min(float(value), LONGEST_WAIT) if value and value.isdigit() else 1.0


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    content = bytearray()
    async for part in answer.content.iter_chunked(65_536):
        content += part
        if len(content) > most:
            raise _Refused(f"is larger than {most // 1_000_000} MB")
    return bytes(content)
