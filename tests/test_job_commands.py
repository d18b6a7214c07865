"""`agent-server tool call` of a long tool and `agent-server job`, beside a server on the same database."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from agent_server.testing import copy_database
from tests import zygote
from tests.commands import PATIENCE, agent_server, environment, serving
from tests.conftest import ROOT
from tests.mcp.long_tools import TOOLS
from tests.mcp.test_stops import until

GOES_ON = re.compile(r"goes on in another process\. To come back for it: agent-server job show ([0-9a-f-]{36})")


def test_a_job_of_the_command_line_outlives_its_process_and_its_caller_comes_back_for_it(
    postgres: str, tmp_path: Path
) -> None:
    scaffold = ROOT / "agent_server" / "scaffold"
    root = shutil.copytree(scaffold, tmp_path / "w", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "tools" / "work.py").write_text(TOOLS)
    folder, told = tmp_path / "folder", tmp_path / "told"
    folder.mkdir()
    with copy_database(postgres) as url, serving(root, url):

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return agent_server(*arguments, cwd=root, DATABASE_URL=url)

        def leave(line: str, by: signal.Signals) -> str:
            """What a call has written that is ended by a signal while its tool works, which another process takes up."""
            with told.open("w") as file:
                process = zygote.start(
                    "agent_server",
                    *("tool", "call", "write_line", "--folder", str(folder), "--line", line),
                    cwd=root,
                    environment=environment({"DATABASE_URL": url}),
                    files=(0, 1, file.fileno()),
                )
            until((folder / "begun").exists)
            (folder / "begun").unlink()
            os.killpg(process.pid, by)
            process.wait(PATIENCE)
            until((folder / "begun").exists)
            (folder / "open").touch()
            return told.read_text()

        left = GOES_ON.search(leave("left", signal.SIGINT))
        assert left is not None
        shown = run("job", "show", left[1], "--wait")
        assert (shown.returncode, shown.stdout) == (0, "Write line: done\nDone.\n\nleft\n"), shown.stderr
        for name in ("open", "begun"):
            (folder / name).unlink()

        leave("killed", signal.SIGKILL)
        waited = run("tool", "call", "write_line", "--folder", str(folder), "--line", "waited")
        assert (waited.returncode, waited.stdout) == (0, '"waited"\n'), waited.stderr
        jobs = json.loads(run("job", "list", "--json").stdout)
        assert [job["state"] for job in jobs] == ["done", "done", "done"]
        assert [job["id"] for job in jobs][2] == left[1]
        refused = run("job", "cancel", left[1])
        assert (refused.returncode, refused.stderr.partition(":")[0]) == (1, "conflict")
