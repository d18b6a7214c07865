"""The command line: what each command prints, and the exit code that a script can rely on.

Most commands run in this process, through the same entry as the real one; starting one takes seconds.
"""

import asyncio
import contextlib
import json
import os
import pty
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from dirty_equals import IsInt, IsPartialDict, IsStr
from typer.main import get_command
from typer.testing import CliRunner, Result

from agent_server.cli import app
from agent_server.log import configure_logging
from agent_server.testing import Call, Refuse, Say, Step, copy_database, scripted_openai
from agent_server.version import VERSION
from tests import zygote
from tests.commands import OUR_VARIABLES, PATIENCE, agent_server, environment
from tests.conftest import ROOT

PASSWORD = "opens-everything-0123456789"
NO_DATABASE = f"postgresql://someone:{PASSWORD}@127.0.0.1:1/nothing"
Run = Callable[..., Result]


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    with copy_database(postgres) as url:
        yield url


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Run a command: `run("tool", "list")`, with the reference workspace and no database."""
    for variable in OUR_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AGENT_SERVER_WORKSPACE", str(ROOT))
    monkeypatch.setenv("AGENT_SERVER_OFFLINE_WORDS_PER_SECOND", "0")
    monkeypatch.setenv("DATABASE_URL", NO_DATABASE)
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return runner.invoke(app, arguments, input=stdin, catch_exceptions=False)

    yield run
    configure_logging("WARNING", "console")  # a command has pointed the log at an output that is closed by now


@pytest.fixture
def stocked(run: Run, stocked_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The same, with a database that holds the reference workspace's seeds and content."""
    monkeypatch.setenv("DATABASE_URL", stocked_url)
    return run


def result(done: Result) -> Any:
    """The one JSON document that a command printed."""
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def lines(done: Result) -> list[Any]:
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_help_explains_every_command_and_option_with_its_default(run: Run) -> None:
    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, (*path, name))

    for path, command in walk(get_command(app), ()):
        text = run(*path, "--help").stdout
        assert (command.help or "") and "..." not in text.split("Options:")[-1], text
        for parameter in command.params:
            assert getattr(parameter, "help", None) or parameter.name == "help", f"{path} {parameter.name}"
    serve = run("serve", "--help").stdout
    for default in ("[default: 127.0.0.1]", "[default: 8000]", "[default: .]"):
        assert default in serve
    assert "Example: agent-server tool call create_task --title 'Buy fins'" in run("tool", "call", "--help").stdout


def parse(command: Any, words: list[str]) -> str:
    """The path of the command that these words run. Raises click's UsageError."""
    context = command.make_context(command.name or "agent-server", list(words))
    if not hasattr(command, "commands"):
        return ""
    left = [*context._protected_args, *context.args]
    if not left and command.invoke_without_command:
        return ""
    name, child, rest = command.resolve_command(context, left)
    return f"{name} {parse(child, rest)}".strip()


def test_each_help_ends_with_an_example_that_the_command_line_takes(run: Run) -> None:
    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, f"{path} {name}".strip())

    whole = get_command(app)
    for path, command in walk(whole, ""):
        *_, last = run(*path.split(), "--help").stdout.strip().splitlines()
        assert last.strip().startswith("Example: agent-server "), (path, last)
        of = parse(whole, shlex.split(last.partition("agent-server ")[2]))
        assert of.startswith(path) if hasattr(command, "commands") else of == path, (path, last)


@pytest.mark.parametrize("thread", ["", "import threading, time; threading.Thread(target=wait).start()"])
def test_a_command_ends_with_its_code_when_all_is_said_and_all_threads_have_ended(thread: str) -> None:
    script = (
        "import os, sys, threading; from agent_server.cli import main\n"
        "def wait(): threading.main_thread().join(); print('waited')\n"
        f"{thread}\n"
        "print('before'); main()"
    )
    done = subprocess.run([sys.executable, "-c", script, "srve"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "before\nwaited\n" if thread else "before\n")
    assert "No such command 'srve'" in done.stderr


def test_the_version_is_said_by_itself(run: Run) -> None:
    said = run("--version")
    assert (said.exit_code, said.stdout) == (0, f"agent-server {VERSION}\n")


def test_help_loads_nothing_that_is_heavy_and_what_others_do_at_the_end_is_done() -> None:
    script = (
        "import atexit, sys; from agent_server.cli import main\n"
        "atexit.register(lambda: print({m.partition('.')[0] for m in sys.modules}))\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True)
    assert "Usage: agent-server" in done.stdout or "Usage: " in done.stdout
    loaded = set(eval(done.stdout.splitlines()[-1]))  # a set of names that the line above printed
    assert loaded.isdisjoint({"agents", "fastapi", "litellm", "mcp", "numpy", "pydantic", "sqlalchemy", "wordllama"})


def test_wrong_usage_is_2_and_says_what_would_be_right(run: Run) -> None:
    for arguments, hint in {
        ("srve",): "serve",
        ("serve", "--prot", "1"): "--port",
        ("route",): "Give one MESSAGE, or --stdin",
        ("route", "a", "--stdin"): "Give one MESSAGE, or --stdin",
        ("content", "search"): "Give one QUERY, or --stdin",
        ("content", "search", "x", "--limit", "0"): "greater than or equal to 1",
        ("tool", "call", "creat_task"): "did you mean create_task",
        ("tool", "call", "xyz"): "`agent-server tool list` shows which there are",
        ("tool", "call", "create_task", "--title"): "--title needs a value",
        ("tool", "call", "create_task", "Buy"): "'Buy': write arguments as --NAME VALUE",
        ("tool", "call", "create_task", "--title", "x", "--json", "{}"): "not both",
    }.items():
        done = run(*arguments)
        assert (done.exit_code, done.stdout) == (2, ""), (arguments, done.stderr)
        assert hint in done.stderr, (arguments, done.stderr)


def test_what_cannot_be_done_is_1_with_a_message_and_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, message in {
        ("prompt", "render", "nobody"): "invalid_input: There is no agent 'nobody'; there are certification, ",
        ("key", "list"): "unavailable: The database at 127.0.0.1:1/nothing does not answer",
        ("chat", "hi"): "unavailable: The database at 127.0.0.1:1/nothing does not answer",
        ("db", "current"): "unavailable: The database at 127.0.0.1:1/nothing does not answer",
        ("content", "ingest"): "unavailable: The database at 127.0.0.1:1/nothing does not answer",
        ("key", "revoke", "x"): "invalid_input: id: this is no key's id; `agent-server key list` shows the ids",
        ("check", "-w", "nowhere"): "",
    }.items():
        done = run(*arguments)
        assert done.exit_code == 1, (arguments, done.stderr)
        assert done.stderr.startswith(message), (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        assert PASSWORD not in done.output
    monkeypatch.setenv("AGENT_SERVER_PORT", "eighty")
    monkeypatch.setenv("AGENT_SERVER_LOG_LEVEL", "loud")
    refused = run("tool", "list")
    assert refused.exit_code == 1
    assert "AGENT_SERVER_PORT: " in refused.stderr
    assert "AGENT_SERVER_LOG_LEVEL: " in refused.stderr


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{PASSWORD}@127.0.0.1:port/db",
        f"postgresql://me:{PASSWORD}/x@127.0.0.1/db",
        f"postgresql://me:{PASSWORD}@127.0.0.1/db?bogus=1",
        "postgresql://",
        f"mysql://me:{PASSWORD}@127.0.0.1/db",
        f"postgresql://me:{PASSWORD}@no-such-host.invalid/db",
    ],
)
def test_an_address_of_a_database_that_leads_nowhere_is_named_without_its_password(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    done = run("db", "current")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr


def test_a_database_that_lets_nobody_in_is_said_to(stocked_url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", stocked_url.replace("/scratch_", "/no_"))
    done = run("db", "current")
    assert done.exit_code == 1
    assert 'does not answer (database "no_' in done.stderr
    assert "does not exist); start it, or correct DATABASE_URL" in done.stderr


def test_a_bug_in_a_tool_is_70_with_its_traceback_on_standard_error(tmp_path: Path, empty: str) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "broken.py").write_text(
        "from agent_server import ToolContext, tool\n\n\n"
        '@tool(scope="things:read", effect="read")\n'
        "async def divide(context: ToolContext, by: int) -> int:\n"
        '    """Divide."""\n'
        "    return 1 // by\n"
    )
    done = agent_server("tool", "call", "divide", "--by", "0", cwd=tmp_path, DATABASE_URL=empty)
    assert (done.returncode, done.stdout) == (70, "")
    assert 'tools/broken.py", line 7, in divide' in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert "divide failed; this is our fault. Reference " in done.stderr.splitlines()[-1]
    assert done.stderr.count("Traceback") == 1


def test_route_says_who_would_take_a_message(run: Run) -> None:
    message = "How long do I wait before flying?"
    one = result(run("route", message, "--json"))
    assert one == {"message": message, "agent": "safety", "confidence": one["confidence"], "decided_by": "meaning"}
    assert 0 <= one["confidence"] <= 1
    said = f"{message}\n\n  Add fins to my list\nShow my open tasks\ttasks\nasdf qwer\t-\nthanks a lot!\n"
    *many, report = lines(run("route", "--stdin", "--json", stdin=said))
    assert [(line["message"], line["agent"]) for line in many if "expected" not in line] == [
        (message, "safety"),
        ("Add fins to my list", "tasks"),
        ("thanks a lot!", "triage"),
    ]
    assert [line["expected"] for line in many if "expected" in line] == ["tasks", "-"]
    figures = IsPartialDict(messages=1, out_of_scope=1, accuracy=1, coverage_95=1, coverage_98=1, sure_out_of_scope=0)
    assert report == {"report": figures}
    assert run("route", message).stdout.split() == ["safety", f"{one['confidence']:.2f}", "meaning", *message.split()]


def test_route_reads_a_list_of_labelled_messages_and_knows_the_labels(run: Run) -> None:
    listed = "- {message: Show my open tasks, agent: tasks}\n- {message: asdf qwer, agent: null}\n"
    told = run("route", "--stdin", stdin=listed).stdout
    assert "1 message: accuracy 100.0%" in told and "of 1 out of scope taken as sure 0.0%" in told
    wrong = run("route", "--stdin", stdin="Show my open tasks\tchores\n")
    assert wrong.exit_code == 2 and "No agent is called chores" in wrong.stderr


def test_tool_list_has_the_schemas(run: Run) -> None:
    tools = {tool["name"]: tool for tool in result(run("tool", "list", "--json"))}
    assert tools["create_task"] == IsPartialDict(
        description="Add a task to the caller's to-do list.", scope="tasks:write", effect="stored"
    )
    assert list(tools["create_task"]["input_schema"]["properties"]) == ["title", "description", "due"]
    assert tools["create_task"]["output_schema"]["properties"]["status"]
    table = run("tool", "list").stdout
    assert [line.split()[0] for line in table.splitlines()] == list(tools)


def test_content_search_finds_passages(stocked: Run) -> None:
    query = "how long to wait before flying"
    found = result(stocked("content", "search", query, "--limit", "2", "--json"))
    assert found["query"] == query
    assert len(found["hits"]) == 2
    assert found["hits"][0] == IsPartialDict(
        document="safety/flying-after-diving.md", title=IsStr, heading=IsStr, text=IsStr
    )
    assert found["hits"][0]["score"] >= found["hits"][1]["score"] > 0
    many = lines(stocked("content", "search", "--stdin", "--json", stdin="wreck\n\nnitrox\n"))
    assert [(one["query"], len(one["hits"])) for one in many] == [("wreck", 5), ("nitrox", 5)]
    assert "safety/flying-after-diving.md" in stocked("content", "search", query).stdout


def test_keys_and_users_are_made_used_and_ended(stocked: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    user = result(stocked("user", "create", "ada@example.com", "--json"))
    assert user == {"id": IsStr, "name": "ada@example.com"}
    again = stocked("user", "create", "ada@example.com")
    assert (again.exit_code, again.stderr) == (1, "conflict: There is a user 'ada@example.com' already\n")
    made = result(
        stocked(
            "key", "create", "--user", "ada@example.com", "--name", "ci", "--scope", "tasks:read", "--scope",
            "tasks:write", "--days", "30", "--json",
        )
    )  # fmt: skip
    assert made == IsPartialDict(user="ada@example.com", name="ci", scopes=["tasks:read", "tasks:write"])
    assert UUID(made["id"]).hex in made["key"]
    assert made["expires_at"] > made["created_at"]
    monkeypatch.setenv("AGENT_SERVER_KEY", made["key"])
    assert result(stocked("tool", "call", "create_task", "--title", "Hers"))["title"] == "Hers"
    refused = stocked("tool", "call", "update_profile", "--level", "x")
    assert (refused.exit_code, refused.stderr.partition(":")[0]) == (1, "forbidden")
    monkeypatch.delenv("AGENT_SERVER_KEY")
    assert result(stocked("tool", "call", "list_tasks"))["items"] == [], "a task of another user's is seen"
    listed = result(stocked("key", "list", "--json"))
    assert [key["id"] for key in listed] == [made["id"]]
    assert made["key"] not in stocked("key", "list").stdout
    assert stocked("key", "revoke", made["id"]).stdout == f"Revoked {made['id']}\n"
    monkeypatch.setenv("AGENT_SERVER_KEY", made["key"])
    ended = stocked("tool", "call", "list_tasks")
    assert (ended.exit_code, ended.stderr) == (1, "unauthorized: This key has been revoked; get a new one\n")
    monkeypatch.setenv("AGENT_SERVER_KEY", "nonsense")
    assert stocked("tool", "call", "list_tasks").exit_code == 1
    unknown = stocked("key", "create", "--user", "nobody")
    assert "`agent-server user create nobody` makes one" in unknown.stderr
    assert "write resource:verb" in stocked("key", "create", "--scope", "everything").stderr
    assert "There is no key" in stocked("key", "revoke", str(UUID(int=7))).stderr


def test_arguments_of_a_tool_are_read_as_its_schema_has_them(stocked: Run) -> None:
    task = result(stocked("tool", "call", "create_task", "--title=7", "--due", "2026-12-31", "--description", "[1]"))
    assert task == IsPartialDict(title="7", due="2026-12-31", description="[1]")
    assert result(stocked("tool", "call", "list_tasks", "--limit", "1", "--status", "all"))["items"] == [task]
    changed = result(stocked("tool", "call", "update_task", "--task", "7", "--clear-due", "true"))
    assert changed["due"] is None
    by_json = result(stocked("tool", "call", "get_task", "--json", json.dumps({"task": task["id"]})))
    assert by_json == changed
    for arguments, message in {
        ("create_task", "--title", "x", "--colour", "red"): "invalid_input: colour: ",
        ("create_task",): "invalid_input: title: Field required",
        ("create_task", "--title", "x", "--due", "tomorrow"): "invalid_input: due: ",
        ("list_tasks", "--limit", "many"): "invalid_input: limit: ",
        ("list_tasks", "--limit", "0"): "invalid_input: limit: ",
        ("list_tasks", "--json", "{"): "invalid_input: The arguments of list_tasks are not JSON",
        ("get_task", "--task", "nothing"): "not_found: ",
    }.items():
        done = stocked("tool", "call", *arguments)
        assert (done.exit_code, done.stdout) == (1, ""), (arguments, done.stderr)
        assert done.stderr.startswith(message), (arguments, done.stderr)


def test_ingest_takes_what_changed_and_leaves_the_rest(
    run: Run, empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty)
    content = tmp_path / "content" / "guide"
    content.mkdir(parents=True)
    for name in ("a", "b", "c"):
        (content / f"{name}.md").write_text(f"# Page {name}\n\nText of {name}.\n")
    ingest = ("content", "ingest", "--workspace", str(tmp_path), "--json")
    first = result(run(*ingest))
    assert first == IsPartialDict(added=3, changed=0, removed=0, unchanged=0, chunks=3, problems=[])
    assert result(run(*ingest)) == IsPartialDict(added=0, changed=0, removed=0, unchanged=3, chunks=0)
    (content / "a.md").write_text("# Page a\n\nOther text.\n")
    (content / "b.md").unlink()
    (content / "c.md").write_text("---\nurgent: 7\n---\n# Page c\n\nText.\n")
    broken = run(*ingest)
    assert broken.exit_code == 1
    report = json.loads(broken.stdout)
    assert report == IsPartialDict(added=0, changed=1, removed=1, unchanged=0)
    assert report["problems"] == [
        {"file": "content/guide/c.md", "line": 2, "message": IsStr(regex="urgent: must be a list.*")}
    ]
    validated = run("content", "validate", "--workspace", str(tmp_path))
    assert validated.exit_code == 1
    assert validated.stdout.startswith("content/guide/c.md:2: urgent: must be a list of phrases")
    assert json.loads(run("content", "validate", "--workspace", str(tmp_path), "--json").stdout) == report["problems"]
    fine = run("content", "validate")
    assert (fine.exit_code, fine.stdout.split(" pages ")[1]) == (0, "are in order\n")


def test_benchmark_measures_search_against_judged_questions(stocked: Run, tmp_path: Path) -> None:
    judged = [
        {"question": "How long do I wait before flying?", "documents": ["safety/flying-after-diving.md"]},
        {"question": "What is nitrox?", "documents": ["not/there.md"]},
    ]
    (tmp_path / "judged.yaml").write_text(yaml.safe_dump(judged))
    (tmp_path / "judged.jsonl").write_text("".join(json.dumps(one) + "\n" for one in judged))
    for name in ("judged.yaml", "judged.jsonl"):
        measured = result(stocked("content", "benchmark", name, "--json"))
        assert measured == {"questions": 2, "first": 0.5, "in_5": 0.5, "mrr": 0.5, "missed": ["What is nitrox?"]}
    assert "not found: What is nitrox?" in stocked("content", "benchmark", "judged.yaml").stdout
    (tmp_path / "bad.yaml").write_text("- documents: [a.md]\n")
    (tmp_path / "pattern.yaml").write_text("- {question: x, documents: [a.md], must: ['(']}\n")
    for name in ("bad.yaml", "pattern.yaml", "absent.yaml"):
        refused = stocked("content", "benchmark", name)
        assert (refused.exit_code, refused.stderr.partition(": must be a list of")[0]) == (1, f"invalid_input: {name}")


def test_benchmark_judges_the_answers_where_it_is_told_what_they_hold(stocked: Run, tmp_path: Path) -> None:
    page = "safety/flying-after-diving.md"
    judged = [
        {
            "question": "How long do I wait before flying?",
            "documents": [page],
            "must": ["18 hours"],
            "must_not": ["!!"],
        },
        {"question": "How long must I wait before I fly?", "documents": [page], "must": ["in two lifetimes"]},
        {"question": "Who won the football world cup in 1990?"},
    ]
    (tmp_path / "judged.yaml").write_text(yaml.safe_dump(judged))
    answers = result(stocked("content", "benchmark", "judged.yaml", "--json"))["answers"]
    assert (answers["answerable"], answers["answered"], answers["first"], answers["declined"]) == (2, 1, 2, 0)
    assert (answers["unanswerable"], answers["refused"]) == (1, 1)
    assert answers["failed"] == ["How long must I wait before I fly?"]
    told = stocked("content", "benchmark", "judged.yaml").stdout
    assert "without a language model: answered 1 of 2, in " in told
    assert "not well: How long must I wait before I fly?" in told
    (tmp_path / "none.yaml").write_text("- question: Who won the football world cup in 1990?\n")
    assert "no question has documents that answer it" in stocked("content", "benchmark", "none.yaml").stderr


def test_the_database_goes_down_and_up_and_says_where_it_is(stocked: Run) -> None:
    at = result(stocked("db", "current", "--json"))
    assert at["pending"] == []
    assert stocked("db", "check").stdout == "The tables are as tools/ and the engine declare them\n"
    down = stocked("db", "downgrade", "workspace@base")
    assert down.exit_code == 0, down.stderr
    lower = result(stocked("db", "current", "--json"))
    assert lower["pending"] == [
        "workspace_0001",
        "workspace_0002",
        "workspace_0003",
        "workspace_0004",
        "workspace_0005",
    ]
    behind = stocked("db", "check")
    assert behind.exit_code == 1
    assert behind.stdout.splitlines() == [f"pending migration {revision}" for revision in lower["pending"]]
    assert stocked("db", "upgrade").exit_code == 0
    assert result(stocked("db", "current", "--json")) == at
    nowhere = stocked("db", "downgrade", "engine@nothing")
    assert (nowhere.exit_code, nowhere.stderr.partition(": ")[0]) == (1, "invalid_input")
    assert "Traceback" not in nowhere.stderr


def test_a_prompt_is_rendered_as_a_model_gets_it(run: Run) -> None:
    done = run("prompt", "render", "safety")
    assert done.exit_code == 0
    assert "{{" not in done.stdout
    assert "DAN" in done.stdout


def test_chat_streams_a_turn_and_goes_on_with_a_conversation(stocked: Run) -> None:
    first = lines(stocked("chat", "Add fins to my list", "--json"))
    assert {event["kind"] for event in first} >= {"agent", "tool", "tool_done", "text", "done"}
    assert [event["seq"] for event in first] == list(range(1, len(first) + 1))
    assert first[0] == IsPartialDict(conversation=IsStr, turn=IsStr, seq=IsInt)
    conversation = first[0]["conversation"]
    second = lines(stocked("chat", "What is on my to-do list?", "--conversation", conversation, "--json"))
    assert {event["conversation"] for event in second} == {conversation}
    assert "fins" in "".join(event["text"] for event in second if event["kind"] == "text")
    spoken = stocked("chat", "How long do I wait before flying?", "--agent", "safety")
    assert spoken.exit_code == 0
    assert "18 hours" in spoken.stdout
    assert "safety/flying-after-diving.md" in " ".join(spoken.stderr.split())
    for arguments, message in {
        ("x", "--conversation", "yesterday"): "not_found: There is no conversation with this id",
        ("x", "--conversation", str(UUID(int=7))): "not_found: ",
        ("hi", "--agent", "nobody"): "invalid_input: agent: there is no agent 'nobody'; there are ",
        ("  ",): "invalid_input: message: ",
        ("x" * 2001,): "invalid_input: message: ",
    }.items():
        refused = stocked("chat", *arguments)
        assert (refused.exit_code, refused.stdout) == (1, ""), refused.stderr
        assert refused.stderr.startswith(message), refused.stderr


def test_a_conversation_on_the_terminal_ends_with_exit(stocked: Run) -> None:
    done = stocked("chat", stdin="Add fins to my list\n\nWhat is on my to-do list?\nexit\nnever read\n")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("fins") >= 2
    assert len({line for line in done.stderr.splitlines() if line.startswith("conversation ")}) == 1


def test_empty_lines_in_a_conversation_are_passed_over_however_many(stocked: Run) -> None:
    done = stocked("chat", stdin="\n" * 5_000 + "What is on my to-do list?\n" + "\n" * 5_000)
    assert done.exit_code == 0, done.stderr[-500:]
    assert done.stderr.count("conversation ") == 1


def test_a_conversation_in_json_prints_nothing_else(stocked: Run) -> None:
    done = lines(stocked("chat", "--json", stdin="\nWhat is on my to-do list?\nexit\n"))
    assert done[-1]["kind"] == "done"


def test_a_result_is_told_in_words_on_a_terminal_and_is_json_elsewhere(stocked: Run, stocked_url: str) -> None:
    def on_a_terminal(*arguments: str) -> str:
        ours, theirs = pty.openpty()
        written = b""
        with subprocess.Popen(
            zygote.command("agent_server", *arguments),
            cwd=ROOT,
            env=environment({"DATABASE_URL": stocked_url, "TERM": "dumb"}),
            stdout=theirs,
        ) as command:
            os.close(theirs)
            # Linux ends the reading with an error when the other side is closed.
            with contextlib.suppress(OSError):
                while read := os.read(ours, 65_536):
                    written += read
        os.close(ours)
        assert command.returncode == 0
        return written.decode()

    call = ("tool", "call", "list_destinations")
    for told in (
        on_a_terminal(*call, "--month", "february"),
        on_a_terminal("chat", "Where should I dive in February?"),
    ):
        assert "Maldives" in told
        assert "November" in told
        assert not set(told) & set("{}[]*|")
    assert json.loads(on_a_terminal(*call, "--json", '{"month": 2}'))["items"][0]["slug"]
    assert result(stocked("tool", "call", "list_destinations", "--month", "february"))["items"][0]["slug"]


def test_what_is_confirmed_on_the_terminal_is_done_and_said_on_standard_output(stocked: Run, stocked_url: str) -> None:
    task = result(stocked("tool", "call", "create_task", "--title", "Sell the fins"))
    before = len(result(stocked("tool", "call", "list_tasks"))["items"])
    steps: list[Step] = [
        Call("delete_task", {"task": task["id"]}),
        Say("Please confirm.", thought="I ask.", finish="length"),
    ]

    async def talk() -> subprocess.CompletedProcess[str]:
        async with scripted_openai(steps) as model:
            return await asyncio.to_thread(on_a_terminal, model.url)

    def on_a_terminal(url: str) -> subprocess.CompletedProcess[str]:
        ours, theirs = pty.openpty()
        os.write(ours, b"perhaps\ny\n")
        variables = {"DATABASE_URL": stocked_url, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "x"}
        try:
            return subprocess.run(
                zygote.command("agent_server", "chat", "Delete it", "--agent", "tasks"),
                cwd=ROOT,
                env=environment(variables),
                stdin=theirs,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        finally:
            os.close(ours)
            os.close(theirs)

    done = asyncio.run(talk())
    assert done.returncode == 0, done.stderr
    assert "Answer y or n" in done.stderr
    assert "Deleted" not in done.stderr
    assert done.stdout.splitlines() == ["Please confirm.", "Deleted: **Sell the fins**"]
    said = " ".join(done.stderr.split())
    assert "I ask." in said
    assert "The answer ends here because the model has reached its longest answer." in said
    assert len(result(stocked("tool", "call", "list_tasks"))["items"]) == before - 1


def test_the_doctor_says_what_is_there_and_what_is_lacking(stocked: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SERVER_PORT", "0")
    healthy = stocked("doctor")
    assert healthy.exit_code == 0, healthy.stdout
    assert "model: offline" in healthy.stdout
    assert f"the folder {ROOT} can be written to" in healthy.stdout
    assert f".env: none; it would be read from {ROOT}/.env and .env" in healthy.stdout
    Path(".env").write_text("AGENT_SERVER_TITLE=Divers")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("AGENT_SERVER_PORT", str(port))
        taken = stocked("doctor")
    assert taken.exit_code == 1
    assert f"lacking port {port} of 127.0.0.1 is taken: stop the program" in taken.stdout
    assert f"`agent-server serve --port {port + 1}`" in taken.stdout
    assert "ok      .env: .env\n" in taken.stdout
    nowhere = stocked("doctor", "--workspace", "nowhere")
    assert nowhere.exit_code == 1
    assert "nowhere is no folder: name another with --workspace, or make one: `agent-server init" in nowhere.stdout
    monkeypatch.setenv("DATABASE_URL", NO_DATABASE)
    ill = stocked("doctor")
    assert ill.exit_code == 1
    assert "lacking the database does not answer" in ill.stdout
    assert PASSWORD not in ill.output


async def test_the_doctor_asks_the_model_for_a_word_and_repeats_what_its_provider_says(
    stocked_url: str, tmp_path: Path
) -> None:
    key = "an-unusual-key-0123456789"

    async def doctor(url: str, **variables: str) -> subprocess.CompletedProcess[str]:
        given = {"DATABASE_URL": stocked_url, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": key, "AGENT_SERVER_PORT": "0"}
        arguments = ("doctor", "--workspace", str(ROOT))
        return await asyncio.to_thread(agent_server, *arguments, cwd=tmp_path, **given, **variables)

    async with scripted_openai(
        [Say("OK and a lot that nobody listens to"), Say("OK"), Refuse(401, message=f"Wrong key {key}")]
    ) as model:
        fine = await doctor(model.url, AGENT_SERVER_MODEL_FALLBACK="second")
        assert fine.returncode == 0, fine.stdout + fine.stderr
        assert "model: openai/scripted began to answer after" in fine.stdout
        assert "model: openai/second began to answer after" in fine.stdout
        refused = await doctor(model.url, AGENT_SERVER_MODEL="best")
    assert refused.returncode == 1
    assert "lacking the model openai/best does not answer. The model's provider refused the key" in refused.stdout
    assert "Wrong key [secret]" in refused.stdout
    assert "look at its key, at AGENT_SERVER_MODEL" in refused.stdout
    assert key not in refused.stdout + refused.stderr
    away = await doctor("http://127.0.0.1:1/v1", AGENT_SERVER_MODEL="best")
    assert "The model's provider cannot be reached" in away.stdout


def test_resources_are_listed_and_read(stocked: Run) -> None:
    listed = result(stocked("resource", "list", "--json"))
    page = listed["resources"][0]["uri"]
    assert page.startswith("content://")
    assert "conversation://{id}" in [each["uri"] for each in listed["templates"]]
    assert page in stocked("resource", "list").stdout
    read = result(stocked("resource", "read", page, "--json"))
    assert (read["uri"], read["mime_type"]) == (page, "text/markdown")
    assert stocked("resource", "read", page).stdout.strip() == read["text"].strip()
    missing = stocked("resource", "read", "content://nowhere.md")
    assert missing.exit_code == 1
    assert missing.stderr.startswith("not_found: ")
