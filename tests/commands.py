"""Running `agent-server` as a user would: in a process of its own, with none of our variables set but those given."""

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from agent_server.settings import Settings, variable_of
from tests import zygote

PATIENCE = 90
"""Seconds after which a test gives up on a process; they start slowly on a busy machine."""
OUR_VARIABLES = frozenset({variable_of(field) for field in Settings.model_fields} | {"AGENT_SERVER_KEY"})


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in OUR_VARIABLES}
    return {**inherited, "AGENT_SERVER_OFFLINE_WORDS_PER_SECOND": "0", **variables}


def agent_server(
    *arguments: str, cwd: Path, stdin: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return zygote.run(
        "agent_server", *arguments, cwd=cwd, environment=environment(variables), stdin=stdin, timeout=PATIENCE
    )


@dataclass
class Serving:
    """A running `agent-server serve`: its process, what it has written, and a client with the key it announced."""

    process: zygote.Process
    written: list[str]
    http: httpx.Client
    _lines: "queue.Queue[str | None]"

    def wait_for(self, text: str) -> str:
        """The next line with `text`. Fails when the process ends before."""
        while (line := self._lines.get(timeout=PATIENCE)) is not None:
            self.written.append(line)
            if text in line:
                return line
        raise AssertionError(f"the server ended without {text!r}:\n{''.join(self.written)}")

    def get(self, path: str) -> Any:
        response = self.http.get(path)
        assert response.status_code == 200, response.text
        return response.json()

    def ask(self, message: str, **body: Any) -> dict[str, Any]:
        response = self.http.post("/api/chat", json={"message": message, "stream": False, **body})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def call(self, tool: str, **arguments: Any) -> Any:
        response = self.http.post(f"/api/tools/{tool}", json=arguments)
        assert response.status_code == 200, response.text
        return response.json()

    def end(self, by: signal.Signals = signal.SIGINT) -> int:
        """Send a signal to the process and to those it started, as ctrl-C does; its exit code."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, by)
        try:
            return self.process.wait(PATIENCE / 2)
        except subprocess.TimeoutExpired:
            # Python drops an interrupt that comes while it runs a destructor; a person presses ctrl-C again.
            os.killpg(self.process.pid, by)
            return self.process.wait(PATIENCE / 2)

    def ended(self) -> str:
        """All that the process has written, when it has ended."""
        self.end()
        while (line := self._lines.get(timeout=PATIENCE)) is not None:
            self.written.append(line)
        return "".join(self.written)


@contextmanager
def serving(workspace: Path, url: str | None, *arguments: str, **variables: str) -> Iterator[Serving]:
    """`agent-server serve` on a free port, from its announcement on. Without a `url` it starts a database itself."""
    options = arguments if "--port" in arguments else (*arguments, "--port", "0")
    out, into = os.pipe()
    process = zygote.start(
        "agent_server",
        *("serve", "--workspace", str(workspace), *options),
        cwd=workspace,
        environment=environment({**({"DATABASE_URL": url} if url else {}), **variables}),
        files=(0, 1, into),
    )
    os.close(into)
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(out, lines))
    reader.start()
    try:
        with httpx.Client(timeout=PATIENCE) as http:
            server = Serving(process, [], http, lines)
            address = server.wait_for("  As you  ").split()[-1]
            http.base_url, key = address.split("/#key=")
            http.headers["Authorization"] = f"Bearer {key}"
            server.wait_for("mcpServers")
            yield server
            server.end()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()


def _read(out: int, lines: "queue.Queue[str | None]") -> None:
    with open(out, encoding="utf-8") as written:
        for line in written:
            lines.put(line)
    lines.put(None)
