"""`content ingest FOLDER_OR_LIST`: what stands elsewhere becomes a collection, and the index is that of a fresh ingest."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy import text

from agent_server.db import Database
from agent_server.gathering.fetch import name_file
from agent_server.internet import is_public
from agent_server.testing import copy_database
from tests import zygote
from tests.commands import PATIENCE, agent_server, environment
from tests.conftest import everything
from tests.knowledge.test_ingest import index, query


@dataclass
class Site:
    """A web server of a test: what it answers to each path, and what it was asked."""

    address: str
    pages: dict[str, tuple[int, dict[str, str], bytes]]
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def put(self, path: str, body: str, status: int = 200, **headers: str) -> str:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.pages[path] = (status, {"Content-Type": "text/html; charset=utf-8", **named}, body.encode())
        return self.address + path


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        site: ClassVar[Site]

        def do_GET(self) -> None:
            self.site.asked.append((self.path, dict(self.headers)))
            status, headers, body = self.site.pages.get(self.path, (404, {}, b""))
            if headers.get("ETag") and headers["ETag"] == self.headers.get("If-None-Match"):
                status, body = 304, b""
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.site = Site(f"http://127.0.0.1:{server.server_port}", {})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Handler.site
    server.shutdown()
    server.server_close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    (root / "prompts").mkdir(parents=True)
    (root / "content").mkdir()
    (root / "prompts" / "agent.md").write_text("---\nname: agent\ndescription: Answers.\n---\nAnswer.\n")
    return root


@pytest.fixture
def url(postgres: str, workspace: Path) -> Iterator[str]:
    """A database with the tables of the engine alone: the workspace has no others."""
    with copy_database(postgres) as url:
        done = agent_server("db", "upgrade", cwd=workspace, DATABASE_URL=url)
        assert done.returncode == 0, done.stderr
        yield url


NO_DATABASE = "postgresql://nobody@127.0.0.1:1/nothing"

Ingest = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def ingest(workspace: Path, url: str) -> Ingest:
    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        done = agent_server("content", "ingest", *arguments, "--json", cwd=workspace, DATABASE_URL=url)
        assert done.stdout, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, report

    return run


def page(words: str) -> str:
    return f"<html><head><title>Page</title></head><body><main><h1>{words}</h1><p>Text of {words}.</p></main></body></html>"


async def test_a_folder_becomes_a_collection_that_follows_it(
    ingest: Ingest, workspace: Path, tmp_path: Path, database: Database
) -> None:
    source = tmp_path / "Handbook 2026"
    (source / "deep").mkdir(parents=True)
    (source / "a.md").write_text("# Apples\n\nApples are red.\n")
    (source / "deep" / "b.txt").write_text("Bananas are yellow.\n")
    (source / "c.png").write_bytes(b"png")
    code, report = ingest(str(source))
    assert (code, report["added"]) == (0, 2)
    assert [remark["message"] for remark in report["remarks"]] == ["1 file of the kind .png not read"]
    documents = "select path, collection from document order by path"
    assert await query(database, documents) == [
        ("Handbook-2026/a.md", "Handbook-2026"),
        ("Handbook-2026/deep/b.txt", "Handbook-2026"),
    ]
    (source / "a.md").unlink()
    (source / "d.md").write_text("# Dates\n\nDates are sweet.\n")
    code, report = ingest(str(source))
    assert (report["added"], report["removed"], report["unchanged"]) == (1, 1, 1)
    assert [path for path, _ in await query(database, documents)] == ["Handbook-2026/d.md", "Handbook-2026/deep/b.txt"]


def test_pages_of_somebody_else_are_never_overwritten(workspace: Path, tmp_path: Path) -> None:
    (workspace / "content" / "guide").mkdir()
    (workspace / "content" / "guide" / "a.md").write_text("# Mine\n")
    (tmp_path / "guide").mkdir()
    (tmp_path / "guide" / "a.md").write_text("# Theirs\n")
    done = agent_server("content", "ingest", str(tmp_path / "guide"), cwd=workspace, DATABASE_URL=NO_DATABASE)
    assert done.returncode == 1
    assert "has pages that were not gathered; name another collection with --collection NAME" in done.stderr
    assert (workspace / "content" / "guide" / "a.md").read_text() == "# Mine\n"


async def test_each_address_of_a_list_is_read_or_named(
    ingest: Ingest, workspace: Path, tmp_path: Path, site: Site, database: Database
) -> None:
    addresses = [
        site.put("/guide/", page("Guide"), ETag='"1"'),
        site.put("/notes.md", "# Notes\n\nWritten by hand.\n", Content_Type="text/plain"),
        site.put("/old", "", 302, Location="/new"),
        site.put("/loop", "", 302, Location="/loop"),
        site.put("/a.png", "x", Content_Type="image/png"),
        site.put("/file", "", 302, Location="file:///etc/passwd"),
        site.address + "/nothing",
        site.put("/large", "x" * 20_000_001),
    ]
    site.put("/new", page("Moved"))
    (tmp_path / "site.txt").write_text("# what we read\n" + "\n".join(addresses) + "\n")
    code, report = ingest(str(tmp_path / "site.txt"), "--allow-private")
    assert (code, report["added"]) == (1, 3)
    assert {problem["file"].removeprefix(site.address): problem["message"] for problem in report["problems"]} == {
        "/loop": "leads on more than 5 times",
        "/a.png": "is image/png, which is not read",
        "/file": "leads to file; only http and https are fetched",
        "/nothing": "answers 404; correct the address or take it out of the list",
        "/large": "is larger than 20 MB",
    }
    titles = {title for (title,) in await query(database, "select title from document")}
    assert titles == {"Guide", "Moved", "Notes"}

    # The page that has not changed is not sent again; what is not in the list any more goes.
    (tmp_path / "site.txt").write_text("\n".join(addresses[:2]) + "\n")
    site.asked.clear()
    site.put("/notes.md", "gone", 503, Retry_After="0")
    code, report = ingest(str(tmp_path / "site.txt"), "--allow-private")
    assert (report["removed"], report["unchanged"]) == (1, 2)
    assert [problem["message"] for problem in report["problems"]] == ["answers 503"]
    assert [headers.get("If-None-Match") for path, headers in site.asked if path == "/guide/"] == ['"1"']
    assert [path for path, _ in site.asked].count("/notes.md") == 3


async def test_no_address_of_a_private_network_is_fetched_unless_it_is_allowed(
    ingest: Ingest, tmp_path: Path, site: Site
) -> None:
    site.put("/", page("Inside"))
    port = site.address.rpartition(":")[2]
    hosts = ["127.0.0.1", "localhost", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
    (tmp_path / "site.txt").write_text("".join(f"http://{host}:{port}/\n" for host in hosts))
    code, report = ingest(str(tmp_path / "site.txt"))
    assert (code, report["added"], site.asked) == (1, 0, [])
    said = {problem["file"].split("/")[2].rpartition(":")[0]: problem["message"] for problem in report["problems"]}
    assert "not a canonical IPv4 address" in said.pop("2130706433")
    private = "leads into a private network; with --allow-private it is fetched"
    assert (len(said), {*said.values()}) == (len(hosts) - 1, {private})


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07::1", True),
        *((a, False) for a in ("10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1")),
        *(
            (a, False)
            for a in ("::1", "fe80::1%eth0", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::")
        ),
    ],
)
def test_an_address_is_public_where_the_internet_leads_to_it(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    "wrong", ["ftp://example.org/a", "example.org", "http://", "http://user:pw@example.org/", "http://[::1"]
)
def test_a_line_that_is_no_address_is_named(workspace: Path, tmp_path: Path, wrong: str) -> None:
    (tmp_path / "site.txt").write_text(f"https://example.org/\n{wrong}\n")
    done = agent_server("content", "ingest", str(tmp_path / "site.txt"), cwd=workspace, DATABASE_URL=NO_DATABASE)
    assert done.returncode == 1
    assert "site.txt:2: is no address" in done.stderr


def test_no_two_addresses_become_one_file_and_none_leaves_its_folder() -> None:
    paths = ["", "a", "a?b=1", "a?b=2", "a b", "a_b", "../../etc/passwd", ".hidden", "a/b", "a.html", "ä"]
    names = [name_file(f"https://example.org/{path}", ".md") for path in paths]
    assert len({*names}) >= len(paths) - 1  # a.html and a are one page where both are sent as the same kind
    assert all(name.startswith("example.org/") and ".." not in name.split("/") for name in names)
    assert not any(part.startswith(".") for name in names for part in name.split("/"))


async def test_an_ingest_that_is_killed_is_finished_by_the_next_and_equals_a_fresh_one(
    ingest: Ingest, workspace: Path, tmp_path: Path, url: str, database: Database
) -> None:
    source = tmp_path / "book"
    source.mkdir()
    for number in range(700):
        words = " ".join(f"Wort{number + step}" for step in range(120))
        (source / f"{number:04}.md").write_text(
            f"# Seite {number}\n\nDas ist eine Seite der Flaschenventile. {words}.\n"
        )
    running = zygote.start(
        "agent_server", "content", "ingest", str(source), cwd=workspace, environment=environment({"DATABASE_URL": url})
    )
    ends = time.monotonic() + PATIENCE
    while not (await query(database, "select count(*) from document"))[0][0]:
        assert running.poll() is None and time.monotonic() < ends
    running.send_signal(signal.SIGKILL)
    running.wait(PATIENCE)
    left = (await query(database, "select count(*) from document"))[0][0]
    assert 0 < left < 700
    code, report = ingest(str(source))
    assert (code, report["added"], report["unchanged"]) == (0, 700 - left, left)
    resumed = [*await index(database), await query(database, "select * from compound order by 2, 3")]
    async with everything(database) as session:
        await session.execute(text("truncate document, chunk, passage_words, passage_vector, term, corpus, compound"))
    ingest(str(source))
    assert resumed == [*await index(database), await query(database, "select * from compound order by 2, 3")]


async def test_watch_takes_up_each_change_and_survives_a_mistake(
    workspace: Path, tmp_path: Path, url: str, database: Database
) -> None:
    source = tmp_path / "book"
    source.mkdir()
    (source / "a.md").write_text("# Apples\n\nApples are red.\n")
    running = zygote.start(
        *("agent_server", "content", "ingest", str(source), "--watch"),
        cwd=workspace,
        environment=environment({"DATABASE_URL": url}),
    )

    async def wait_for(expected: list[str]) -> None:
        ends = time.monotonic() + PATIENCE
        while (found := [t for (t,) in await query(database, "select title from document order by 1")]) != expected:
            assert running.poll() is None and time.monotonic() < ends, found

    try:
        await wait_for(["Apples"])
        (source / "b.md").write_text("# Bananas\n\nYellow.\n")
        await wait_for(["Apples", "Bananas"])
        (source / "a.md").write_text("---\ntitle: [\n---\nBroken.\n")
        (source / "c.md").write_text("# Cherries\n\nDark.\n")
        await wait_for(["Apples", "Bananas", "Cherries"])
        (source / "b.md").unlink()
        await wait_for(["Apples", "Cherries"])
    finally:
        running.kill()
