"""The repository says what is so: its links lead somewhere, its pages are complete, its examples work."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute

from agent_server import errors
from agent_server.api import create_routers
from agent_server.http import statuses
from agent_server.models.choice import choose_model
from agent_server.prompts import VARIABLES, FrontMatter
from agent_server.settings import Settings, load_settings, variable_of
from agent_server.workspace import load_workspace
from tests.commands import agent_server
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")] + sorted(
    DOCS.rglob("*.md")
)
LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-oldest.lock"]
FENCE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1`*[ ]*$", re.MULTILINE | re.DOTALL)
NAMED_BLOCK = re.compile(r"^`((?:tools|prompts|content)/[^`\n]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)

MACHINE_PATH = re.compile(
    r"(?<![\w.$}>/-])(?:/(?:root|home|Users|work|workspaces|mnt|private)/[\w.-]+|[A-Z]:\\\\?Users)"
)
SECRETS = {
    "a key of OpenAI's or Anthropic's": re.compile(r"\bsk-(?!secret)[\w-]{20,}"),
    "a key of Google's": re.compile(r"\bAIza[\w-]{35}"),
    "a key of Groq's": re.compile(r"\bgsk_\w{20,}"),
    "a key of AWS's": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a token of GitHub's": re.compile(r"\b(?:gh[pousr]_\w{36}|github_pat_\w{22,})"),
    "a token of Slack's": re.compile(r"\bxox[abprs]-[\w-]{10,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a key of this server's": re.compile(r"\bas[kg]_[0-9a-f]{32}\.[\w-]{43}"),
    "a signed token": re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}"),
    "a password in an address": re.compile(
        r"://(?!user:password@)[\w.-]+:[^\s:@/{}$<>\[\]*()\"'`]{6,}@[\w.-]+\.[a-z]{2,}"
    ),
}


@cache
def tracked() -> Sequence[str]:
    """Every file that is in version control, or would be."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


def texts() -> Iterator[tuple[str, str]]:
    for name in tracked():
        try:
            yield name, (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:  # an image
            continue


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(page: Path) -> set[str]:
    """What stands in backquotes in the first column of a page's tables."""
    firsts = re.findall(r"^\| *(`[^|]*) *\|", page.read_text(), re.MULTILINE)
    return {name for first in firsts for name in re.findall(r"`([^`]+)`", first)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_something(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{link}: there is no such file"
        assert not anchor or anchor in anchors(target), f"{link}: there is no such heading"


def test_every_decision_is_listed_and_has_its_four_parts() -> None:
    decisions = sorted(DOCS.glob("decisions/[0-9]*.md"))
    listed = re.findall(r"\]\((\d{4}-[^)]+)\)", (DOCS / "decisions" / "README.md").read_text())
    assert listed == [path.name for path in decisions]
    for number, path in enumerate(decisions, 1):
        text = path.read_text()
        assert text.startswith(f"# {number}. ")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Alternatives"]


def test_every_error_code_is_documented() -> None:
    def codes(cls: type[errors.AgentServerError]) -> set[str]:
        modules = (errors.__name__, statuses.__name__)
        return {cls.code}.union(*(codes(sub) for sub in cls.__subclasses__() if sub.__module__ in modules))

    assert codes(errors.AgentServerError) <= rows(DOCS / "http.md")


def test_every_route_is_documented() -> None:
    text = (DOCS / "http.md").read_text()
    workspace = load_workspace(ROOT)
    routes = [route for router in create_routers(workspace) for route in router.routes]
    assert len(routes) > 40
    for route in routes:
        assert isinstance(route, APIRoute)
        # Of a tool's route and of the pages under /docs, one line says how they look.
        if route.name in workspace.tools or route.path.startswith("/docs") or not route.include_in_schema:
            continue
        for method in route.methods or ():
            assert f"`{method} {route.path_format}`" in text, f"{method} {route.path_format}"


def test_every_key_and_variable_of_an_agent_is_documented() -> None:
    keys = rows(DOCS / "prompts.md")
    assert set(FrontMatter.model_fields) | set(VARIABLES) <= keys


def test_every_default_model_is_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "models.md").read_text()
    monkeypatch.chdir(tmp_path)
    keys = [variable_of(field) for field in Settings.model_fields if field.endswith("_api_key")]
    for variable in (*keys, "OPENAI_BASE_URL", "AGENT_SERVER_MODEL"):
        monkeypatch.delenv(variable, raising=False)
    for variable in keys:
        with monkeypatch.context() as only:
            only.setenv(variable, "x")
            assert f"| `{variable}` | `{choose_model(load_settings()).name}` |" in page


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_packages_and_hashes_and_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert not re.search(r"://|^--|index-url|find-links|trusted-host| @ ", re.sub(r"--hash=sha256:", "", text), re.M)
    pinned = re.findall(r"^([a-z0-9-]+)(?:\[[^\]]+\])?==\S+.*?(?=^[a-z0-9]|\Z)", text, re.MULTILINE | re.DOTALL)
    hashed = re.findall(r"^([a-z0-9-]+)(?:\[[^\]]+\])?==[^\n]*\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    assert pinned == hashed
    assert len(pinned) > 50


def test_the_lock_has_every_package_that_the_server_imports() -> None:
    """What the tests need beside it must not hide that the server would not start without them."""
    script = (
        "import sys, json, agent_server.commands; print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    distributions = packages_distributions()
    imported = {name for module in json.loads(done.stdout) for name in distributions.get(module, ())}
    locked = set(re.findall(r"^([a-z0-9-]+)(?:\[[^\]]+\])?==", (ROOT / LOCKS[0]).read_text(), re.MULTILINE))
    missing = (
        {re.sub(r"[-_.]+", "-", name).lower() for name in imported} - locked - {"agent-server", "setuptools", "pip"}
    )
    assert not missing, f"imported, and not in {LOCKS[0]}: {sorted(missing)}"


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    found = [f"{name}: {match[0]}" for name, text in texts() for match in MACHINE_PATH.finditer(text)]
    assert found == []


def test_no_file_holds_a_secret() -> None:
    """Tests of the masks spell made-up ones, which is what they are for."""
    real = [(name, text) for name, text in texts() if not name.startswith("tests/")]
    found = [f"{name}: {kind}" for name, text in real for kind, pattern in SECRETS.items() if pattern.search(text)]
    assert found == []


def test_the_patterns_of_secrets_find_secrets() -> None:
    samples = [
        "sk-" + "a1" * 20,
        "AIza" + "b" * 35,
        "gsk_" + "c" * 20,
        "AKIA" + "D" * 16,
        "ghp_" + "e" * 36,
        "xoxb-" + "f" * 12,
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        f"ask_{'0' * 32}.{'g' * 43}",
        ".".join(("eyJ" + "h" * 12, "eyJ" + "i" * 12, "j" * 24)),
        "postgresql://me:" + "hunter22" + "@db.example.org/name",
    ]
    for sample, pattern in zip(samples, SECRETS.values(), strict=True):
        assert pattern.search(sample), sample
    assert MACHINE_PATH.search("see " + "/home" + "/me/project")


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace that the files shown in docs/ make together."""
    folder = tmp_path_factory.mktemp("documented")
    for page in sorted(DOCS.glob("*.md")):
        for name, text in NAMED_BLOCK.findall(page.read_text()):
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            assert not file.exists(), f"{name} is shown twice"
            file.write_text(text)
    return folder


def run_command(*arguments: str, cwd: Path) -> Any:
    done = agent_server(*arguments, "--json", cwd=cwd)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_the_files_shown_in_the_documentation_are_a_workspace_without_mistakes(documented: Path) -> None:
    assert [found for found in run_command("check", cwd=documented) if found["severity"] == "mistake"] == []
    tools = {tool["name"]: tool["effect"] for tool in run_command("tool", "list", cwd=documented)}
    shown = {"get_book": "read", "add_wish": "stored", "refund_order": "keyed", "print_label": "once"}
    assert shown.items() <= tools.items()
    assert "request_callback" in tools


def test_every_block_of_python_or_yaml_in_the_documentation_can_be_read() -> None:
    for page in PAGES:
        for language, code in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            match language:
                case "python":
                    compile(code, str(page), "exec")
                case "yaml":
                    yaml.safe_load(code)
                case "json":
                    json.loads(code)
                case "toml" | "ini" | "nginx" | "sh" | "dockerfile" | "js" | "markdown" | "text" | "jsonc":
                    pass
                case _:
                    raise AssertionError(f"{page.name}: a block in {language}; should a test read it?")


def test_nothing_outside_the_database_layer_takes_a_connection_that_says_for_nobody() -> None:
    taking = re.compile(r"\.(owner|pool|_patient)\.(begin|connect)\(|\.raw_connection\(|AsyncSession\(|\.direct\(\)")
    allowed = {
        "agent_server/jobs.py",
        "agent_server/signals.py",
        "agent_server/heartbeat.py",
    }  # locks and notifications, no rows
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("agent_server", "tools")
        for path in (ROOT / folder).rglob("*.py")
        if "db" not in path.relative_to(ROOT).parts and taking.search(path.read_text())
    }
    assert found == allowed
