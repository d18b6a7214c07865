"""The first hour of a new user at the command line, in a folder with a name that people really have, and on a terminal."""

import os
import pty
import re
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agent_server.testing import copy_database
from tests import zygote
from tests.commands import PATIENCE, agent_server, environment, serving

REQUEST = re.compile(r"[A-Z]+ /\S* \d{3} \d+\.\d s\n")
NAME = 'Zoë\'s "first" agents & $HOME; 100% `id` #1, ' + "x" * 150


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    with copy_database(postgres) as url:
        yield url


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_a_workspace_is_made_set_served_changed_and_migrated_in_a_folder_of_any_name(tmp_path: Path) -> None:
    home = tmp_path / NAME
    home.mkdir()
    made = agent_server("init", "my agents", cwd=home)
    assert made.returncode == 0, made.stderr
    assert "agent-server serve --workspace 'my agents' --reload" in made.stdout
    workspace = home / "my agents"
    assert (workspace / ".env.example").is_file()
    settings = workspace / ".env"
    (home / ".env").write_text("AGENT_SERVER_TITLE=Nobody\n")
    with serving(home, None, "--workspace", "my agents", "--reload", "--port", free_port()) as server:
        said = "".join(server.written)
        assert "Nobody is ready" in said
        assert "  .env    .env\n" in said
        assert "warning" not in said and "table" not in said, said
        begin = len(server.written)
        for path in ("/", "/static/app.js", "/health", "/readyz", "/api/page"):
            assert server.http.get(path).status_code == 200
        server.ask("How do I write a tool?")
        server.wait_for("POST /api/chat 200 ")
        after = [line for line in server.written[begin:] if line.strip()]
        assert [line.split(" ")[1] for line in after] == ["/", "/api/page", "/api/chat"], after
        assert all(REQUEST.fullmatch(line) for line in after), after

        settings.write_text("AGENT_SERVER_TITLE=Divers\n")
        server.wait_for("Changed: .env. Starting again.")
        again = server.wait_for("Ready again: http://127.0.0.1:")
        assert again.split("#key=")[1].strip() == server.http.headers["Authorization"].removeprefix("Bearer ")
        assert server.get("/api/page")["name"] == "Divers", "the workspace's own wins"
        settings.write_text("AGENT_SERVER_TURN_TIMEOUT=soon\n")
        server.wait_for(f"AGENT_SERVER_TURN_TIMEOUT in {workspace}/.env: ")
        server.wait_for("Waiting for a change")
        settings.unlink()
        server.wait_for("Ready again")
        assert (workspace / ".data" / "local-key").read_text().strip() in again
    upgraded = agent_server("db", "upgrade", "--workspace", "my agents", cwd=home)
    assert upgraded.returncode == 0, upgraded.stderr
    assert upgraded.stdout.endswith("pending: nothing\n")
    assert upgraded.stderr == ""


def test_on_a_terminal_the_key_and_the_address_stay_on_the_screen(tmp_path: Path, empty: str) -> None:
    assert agent_server("init", "mine", cwd=tmp_path).returncode == 0
    ours, theirs = pty.openpty()
    process = zygote.start(
        *("agent_server", "serve", "--port", "0"),
        cwd=tmp_path / "mine",
        environment=environment({"DATABASE_URL": empty, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}),
        files=(theirs, theirs, theirs),
    )
    os.close(theirs)
    screen = ""

    def read_until(text: str) -> None:
        nonlocal screen
        give_up = time.monotonic() + PATIENCE
        while text not in screen:
            assert time.monotonic() < give_up, screen
            if select.select([ours], [], [], 1)[0]:
                screen += os.read(ours, 65536).decode()

    try:
        read_until("mcpServers")
        read_until("}}}}")
        found = re.search(r"As you  (http://[\d.:]+)/#key=(\S+)", screen)
        assert found
        for path in ("/", "/static/app.js", "/static/app.css", "/health", "/api/page", "/favicon.ico"):
            httpx.get(f"{found[1]}{path}")
        httpx.get(f"{found[1]}/no/such")
        read_until("/no/such 404")
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.replace("\r\n", "\n"))
        rows = sum(max(1, -(-len(line) // 80)) for line in shown[shown.index("As you") :].splitlines())
        assert rows <= 23, shown
    finally:
        process.send_signal(2)
        process.wait(PATIENCE)
        os.close(ours)
