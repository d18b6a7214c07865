"""What is wrong with a workspace: the same for `check` and for every command that needs the workspace, each mistake in
the words of a person, and none of them behind another."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_server import ToolContext, tool
from agent_server.errors import Mistake, WorkspaceInvalid
from agent_server.front_matter import read_head
from agent_server.inspection import Findings, inspect_workspace, open_workspace
from agent_server.models.windows import list_providers
from agent_server.settings import Settings, load_settings, variable_of
from agent_server.settings.spelling import NO_SETTINGS, Variable, find_misspelt
from agent_server.tool import collect_mistakes
from tests.commands import agent_server, serving
from tests.mistakes import BASE, CASES, prompt
from tests.mistakes import tool as tool_file
from tests.test_cli import Run, empty, run

__all__ = ["empty", "run"]  # fixtures
KNOWN = [variable_of(field) for field in Settings.model_fields]


@pytest.fixture
def _own_tools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`tools` is one package in a process: what was imported of another workspace is there again afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "tools"}
    yield
    forget_tools()
    sys.modules.update(before)


def forget_tools() -> None:
    """Be as a new process, which has imported no tools."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "tools"]:
        del sys.modules[name]


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, _own_tools: None) -> Write:
    """Write a workspace of the base and these files, in a folder of its own."""
    for variable in KNOWN:
        monkeypatch.delenv(variable, raising=False)

    def write(*parts: Mapping[str, str], base: Mapping[str, str] = BASE) -> Path:
        root = tmp_path_factory.mktemp("workspace")
        for files in (base, *parts):
            for name, text in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
        return root

    return write


def inspect(root: Path, **values: Any) -> Findings:
    return inspect_workspace(load_settings(workspace=root, **values))


def said(mistakes: Iterable[Mistake]) -> list[str]:
    return [str(mistake) for mistake in mistakes]


def refused(root: Path, **values: Any) -> list[str]:
    """What a command says that needs the workspace."""
    forget_tools()
    try:
        open_workspace(load_settings(workspace=root, **values))
    except WorkspaceInvalid as error:
        return said(error.problems)
    return []


def test_a_workspace_without_a_mistake_has_none(write: Write) -> None:
    found = inspect(write())
    assert (found.mistakes, found.pages, found.remarks) == ([], [], [])


@pytest.mark.parametrize("name", CASES)
def test_one_mistake_is_named_once_with_file_and_line_and_what_would_be_right(name: str, write: Write) -> None:
    files, message = CASES[name]
    found = inspect(write(files))
    assert said([*found.mistakes, *found.pages]) == [message]


# Which names there are differs with what else is in the workspace.
def _without_names(message: str) -> str:
    return message.partition("here are ")[0].partition("here is ")[0]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.sampled_from(sorted(CASES)), min_size=1, max_size=12, unique=True))
def test_no_mistake_hides_another_and_every_command_says_what_check_says(names: list[str], write: Write) -> None:
    root = write(*(CASES[name][0] for name in names))
    found = inspect(root)
    named = said([*found.mistakes, *found.pages])
    assert sorted(map(_without_names, named)) == sorted(_without_names(CASES[name][1]) for name in names)
    assert refused(root) == (named if found.mistakes else [])


def test_a_file_may_have_several_mistakes(write: Write) -> None:
    lines = "tols: [a]\nmodel: [b]\ntools: [serch_knowledge]\nknowledge: [giude]\nexamples: [a]\nexamples: [b]\n"
    found = said(inspect(write(prompt("baker", lines, "{{ user }}\n"))).mistakes)
    assert [line.split(":")[1:3] for line in found] == [
        ["4", " tols"],
        ["5", " model"],
        ["6", " tools"],
        ["7", " knowledge"],
        ["9", " examples"],
        ["11", " template"],
    ]
    declared = tool_file("count", "@tool", "def count(size):", "").popitem()
    found = said(inspect(write({declared[0]: declared[1]})).mistakes)
    assert len(found) == 6
    assert all(line.startswith("tools/count.py:4: tool count: ") for line in found)


def test_a_tool_with_a_mistake_is_known_to_the_agents_that_list_it(write: Write) -> None:
    agent = prompt("baker", "tools: [bare_tool, lost_tool, count_thinsg]\n")
    lost = {"tools/lost.py": "import no_such_module\n\n\nasync def lost_tool(context): ...\n"}
    found = said(inspect(write(CASES["bare_tool"][0], lost, agent)).mistakes)
    assert [line for line in found if line.startswith("prompts/")] == [
        line for line in found if "there is no tool 'count_thinsg'" in line
    ]
    assert len(found) == 3


def test_a_folder_that_no_agent_answers_from_is_a_remark(write: Write) -> None:
    page = "---\ntitle: Mine\n---\nMine."
    root = write({"content/mine/page.md": page}, prompt("guide", "knowledge: [guide]\n"))
    (remark,) = said(inspect(root).remarks)
    assert remark.startswith("content/mine/: no agent answers from it; add it to one, as in `knowledge: [mine]`")
    assert said(inspect(write({"content/mine/page.md": page})).remarks) == []


def test_a_setting_that_is_wrong_hides_no_mistake_of_the_workspace(write: Write, run: Run) -> None:
    root = write(prompt("guide", "tools: [nothing]\n"))
    (root / ".env").write_text("AGENT_SERVER_PORT=many\n")
    told = run("check", "--workspace", str(root))
    setting, tool_of_prompt, counted = told.stdout.splitlines()
    assert setting.startswith(f"AGENT_SERVER_PORT in {root}/.env: ") and "AGENT_SERVER_PORT=8000" in setting
    assert "there is no tool 'nothing'" in tool_of_prompt
    assert (told.exit_code, counted) == (1, "2 mistakes")
    assert run("doctor", "--workspace", str(root)).exit_code == 1


@pytest.mark.parametrize(("name", "does"), [("ask_agent", "asks an agent"), ("find_tools", "finds the others")])
def test_a_tool_that_takes_the_place_of_one_of_mcps_is_a_remark(write: Write, name: str, does: str) -> None:
    remarks = said(inspect(write(tool_file(name))).remarks)
    expected = (
        f"tools/{name}.py:4: tool {name}: takes the place of the {name} of MCP, which {does}; to offer both, rename it"
    )
    assert expected in remarks
    assert all("takes the place" not in each for each in said(inspect(write(tool_file("ask_agents"))).remarks))


def test_what_is_worth_knowing_is_a_remark_and_stops_nothing(write: Write) -> None:
    files = {
        **tool_file("count_things"),
        **tool_file("list_leads", '@tool(scope="leads:read", effect="read", staff=True)'),
        "content/guide/a.odt": "x",
        "content/guide/b.ODT": "x",
        "content/c.docm": "x",
        "content/.hidden.txt": "x",
    }
    root = write(files)
    assert said(inspect(root).remarks) == [
        "content/: 1 file of type .docm is not read (c.docm); .md is, as in c.md",
        "content/: 2 files of type .odt are not read (guide/a.odt, guide/b.ODT); .md is, as in guide/a.md",
        "tools/count_things.py:4: tool count_things: no agent lists it; for the chat add it to one, as in "
        "`tools: [count_things]`",
    ]
    assert refused(root) == []
    alone = inspect(write(files, base={})).remarks
    assert [remark.file for remark in alone] == ["content/", "content/", "prompts/"]
    assert "write prompts/baker.md: `---`, `name: baker`, " in str(alone[-1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "opnai/gpt-5"}, "AGENT_SERVER_MODEL: there is no provider 'opnai'; did you mean 'openai/gpt-5'? "),
        ({"model_fallback": "x/y"}, "AGENT_SERVER_MODEL_FALLBACK: there is no provider 'x'; write provider/model, as "),
        ({"embedder": "wordlama"}, "AGENT_SERVER_EMBEDDER: there is no embedder 'wordlama'; did you mean 'wordllama'?"),
        ({"embedder": "no_such:factory"}, "AGENT_SERVER_EMBEDDER: no_such cannot be imported: there is no such module"),
        ({"model": "gpt-5"}, None),
        ({"model": "offline"}, None),
        ({"model": "ollama/llama3.3"}, None),
        ({"model": "openrouter/meta-llama/llama-3.3"}, None),
        ({"model": "meta-llama/Llama-3.3", "openai_base_url": "http://127.0.0.1:1/v1"}, None),
    ],
)
def test_a_model_and_an_embedder_that_nobody_has_are_mistakes(
    values: dict[str, str], message: str | None, write: Write
) -> None:
    root = write()
    found = said(inspect(root, **values).mistakes)
    assert found == refused(root, **values)
    assert [line[: len(message or "")] for line in found] == ([message] if message else [])


def test_the_providers_are_known_without_the_import_of_their_library() -> None:
    assert {
        "openai",
        "gemini",
        "groq",
        "anthropic",
        "ollama",
        "ollama_chat",
        "azure",
        "hosted_vllm",
    } <= list_providers()


def test_a_misspelt_setting_is_a_mistake_wherever_it_stands(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENT_SERVER_MODLE", "offline")
    monkeypatch.setenv("OPENAI_API_KY", "x")
    (tmp_path / ".env").write_text("# ours\nAGENT_SERVER_TITEL=Bakery\nagent_server_title=Bakery\nOTHER=1\n")
    assert said(inspect(write()).mistakes) == [
        ".env:2: AGENT_SERVER_TITEL: there is no such setting; did you mean AGENT_SERVER_TITLE?",
        "AGENT_SERVER_MODLE: there is no such setting; did you mean AGENT_SERVER_MODEL?",
    ]


@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(KNOWN)),
    place=st.integers(min_value=0, max_value=30),
    letter=st.sampled_from("QX"),
    lower=st.booleans(),
)
def test_a_setting_with_one_wrong_letter_is_told_from_the_right_one(
    name: str, place: int, letter: str, lower: bool
) -> None:
    assert list(find_misspelt([Variable(name.lower() if lower else name)], KNOWN)) == []
    bare = name.removeprefix("AGENT_SERVER_")
    if bare == name or len(bare) < 4:
        return  # a vendor's name, or too short to be told from others
    at = place % len(bare)
    if bare[at] == letter:
        return  # nothing is wrong with it
    (found,) = find_misspelt([Variable(f"AGENT_SERVER_{bare[:at]}{letter}{bare[at + 1 :]}")], KNOWN)
    assert found.message.startswith("there is no such setting; did you mean AGENT_SERVER_")


def test_a_variable_of_others_with_our_beginning_is_told_its_own_name() -> None:
    for name in (name for name in KNOWN if not name.startswith("AGENT_SERVER_")):
        if f"AGENT_SERVER_{name}" not in KNOWN:
            (found,) = find_misspelt([Variable(f"AGENT_SERVER_{name}")], KNOWN)
            assert found.message == f"there is no such setting; did you mean {name}?"


def test_variables_of_others_are_left_alone() -> None:
    others = [
        *NO_SETTINGS,
        *("AGENT_SERVER_SERVICE_HOST", "AGENT_SERVER_SERVICE_PORT_HTTP", "AGENT_SERVER_PORT_8000_TCP_ADDR"),
        *("PATH", "AGENT_SERVERS", "MY_AGENT_SERVER_MODEL", "OPENAI_API_KEY"),
    ]
    assert list(find_misspelt(map(Variable, others), KNOWN)) == []
    (unknown,) = find_misspelt([Variable("AGENT_SERVER_QQQQQQ")], KNOWN)
    assert unknown.message == "there is no such setting; docs/settings.md has all that there are"


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.sampled_from("abk:  \n\t-[]{}\"'#&*!|>%@`?,é\x00\u2028"), max_size=60))
def test_any_front_matter_is_read_or_has_a_mistake_on_one_of_its_lines(text: str) -> None:
    head = read_head(text, 2)
    assert all(2 <= line <= 3 + text.count("\n") and message for line, message in head.mistakes)
    assert not head.mistakes or not head.values


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.lists(st.integers(), max_size=2), st.just(len)
)
OPTIONS = (
    "scope",
    "effect",
    "destructive",
    "staff",
    "title",
    "form",
    "route",
    "phrases",
    "reconcile",
    "losses",
    "per_hour",
)


@settings(max_examples=100, deadline=None)
@given(
    options=st.dictionaries(st.sampled_from([*OPTIONS, "scop", "colour"]), ODD, max_size=5),
    given_=st.lists(ODD.filter(lambda value: not callable(value)), max_size=2),
    bare=st.booleans(),
)
def test_every_wrong_use_of_the_decorator_is_a_mistake_in_the_file_and_line_of_the_tool(
    options: dict[str, Any], given_: list[Any], bare: bool
) -> None:
    async def count(context: ToolContext) -> int:
        """Count."""
        return 0

    anyhow: Any = tool
    with collect_mistakes() as found:
        made = anyhow(count) if bare else anyhow(*given_, **options)(count)
    place = (__file__, count.__code__.co_firstlineno)
    assert {(mistake.file, mistake.line) for mistake in found} <= {place}
    assert all(mistake.message.startswith("tool count: ") for mistake in found)
    assert made.name == "count"
    assert found or not (bare or given_)


def test_check_and_the_commands_that_need_the_workspace_print_the_same_lines(run: Run, write: Write) -> None:
    names = ("bare_tool", "knowledge_misspelt", "page_urgent", "unclosed_list")
    root = write(*(CASES[name][0] for name in names), {"content/guide/a.odt": "x"})
    at = ("--workspace", str(root))
    checked = run("check", *at)
    assert checked.exit_code == 1
    *lines, counted = checked.stdout.splitlines()
    assert counted == "4 mistakes, 1 remark"
    remarks = [line for line in lines if line.endswith(" (a remark)")]
    assert len(remarks) == 1
    mistakes = [line for line in lines if line not in remarks]
    assert sorted(mistakes) == sorted(CASES[name][1] for name in names)
    served = agent_server("serve", "--port", "0", cwd=root)
    assert (served.returncode, served.stdout, served.stderr.splitlines()) == (1, "", mistakes)
    for command in (["mcp"], ["chat", "hi"]):
        forget_tools()
        done = run(*command, *at)
        assert (done.exit_code, done.stdout, done.stderr.splitlines()) == (1, "", mistakes), command
    forget_tools()
    shown = json.loads(run("check", "--json", *at).stdout)
    assert [
        f"{one['file']}:{one['line']}: {one['message']}" for one in shown if one["severity"] == "mistake"
    ] == mistakes
    assert {frozenset(one) for one in shown} == {frozenset({"file", "line", "message", "severity"})}
    one = run("check", "--workspace", str(write(CASES["no_body"][0])))
    assert one.stdout.splitlines()[-1] == "1 mistake"
    fine = run("check", "--workspace", str(write()))
    assert (fine.exit_code, fine.stdout) == (0, "The workspace is in order\n")


def test_a_server_starts_with_what_is_no_mistake_of_its_own_and_says_what_check_says(empty: str, write: Write) -> None:
    root = write(CASES["page_urgent"][0], {"content/guide/a.odt": "x"})
    found = inspect(root)
    assert (len(found.mistakes), len(found.pages), len(found.remarks)) == (0, 1, 1)
    with serving(root, empty) as server:
        assert server.ask("hello")["text"].startswith("Hello.")
        log = server.ended()
    assert [str(one) for one in (*found.pages, *found.remarks) if str(one) not in log] == []
