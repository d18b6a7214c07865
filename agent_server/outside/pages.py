"""Resources of outside servers as pages of content/.

They are taken when somebody accepts them, as files: what can be cited was there to be read, every replica has the same,
and no answer waits for another server. The title of each page says whose text it is, and stands in every passage of it.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from agent_server.outside.servers import OutsideServer
from agent_server.wording import one_line, shorten

LONGEST_PAGE = 500_000
MOST_PAGES = 500
_NO_NAME = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Listed:
    """A resource as its server lists it."""

    uri: str
    title: str


@dataclass(frozen=True)
class Page:
    """A page to be written: `file` is its path under content/."""

    file: str
    text: str


def choose_resources(server: OutsideServer, listed: Sequence[Listed]) -> Iterator[tuple[str, Listed]]:
    """The resources that are knowledge, each with its collection."""
    for resource in listed[:MOST_PAGES]:
        for collection, patterns in server.resources.items():
            if any(fnmatchcase(resource.uri, pattern) for pattern in patterns):
                yield collection, resource
                break


def make_page(server: OutsideServer, collection: str, resource: Listed, text: str) -> Page:
    """The page of a resource."""
    name = _NO_NAME.sub("-", resource.uri.lower()).strip("-")[-40:].strip("-")
    digest = hashlib.sha256(resource.uri.encode()).hexdigest()[:8]
    title = f"{shorten(one_line(resource.title), 100)} (from {server.name})"
    # JSON is YAML too, and no text can end it.
    head = f"---\ntitle: {json.dumps(title)}\n---\n"
    return Page(f"{collection}/{_begin(server)}{name}-{digest}.md", f"{head}{text[:LONGEST_PAGE]}\n")


def compare_pages(server: OutsideServer, content: Path, pages: Sequence[Page]) -> Mapping[str, str]:
    """The paths under content/ that would be `new`, `changed` or `gone`."""
    found: dict[str, str] = {}
    for page in pages:
        path = content / page.file
        if not path.is_file():
            found[page.file] = "new"
        elif path.read_text(encoding="utf-8") != page.text:
            found[page.file] = "changed"
    kept = {page.file for page in pages}
    for path in sorted(content.glob(f"*/{_begin(server)}*.md")):
        if (file := path.relative_to(content).as_posix()) not in kept:
            found[file] = "gone"
    return found


def write_pages(content: Path, pages: Sequence[Page], changes: Mapping[str, str]) -> None:
    """Write what is new or changed, and remove what is gone."""
    for page in pages:
        if page.file in changes:
            path = content / page.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(page.text, encoding="utf-8")
    for file, change in changes.items():
        if change == "gone":
            (content / file).unlink()


def _begin(server: OutsideServer) -> str:
    return f"from-{server.name.replace('_', '-')}-"
