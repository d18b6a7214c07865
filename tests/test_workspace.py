"""A workspace: three folders, of which none must be there, and every mistake in them named at once.

What has tools is loaded in a process of its own: `tools` of two workspaces cannot live in one.
"""

import json
import re
import sys
from pathlib import Path

import pytest

from agent_server.declaration import ENGINE_ROUTES
from agent_server.errors import WorkspaceInvalid
from agent_server.identity.roles import define_roles
from agent_server.knowledge.tools import Passages, search_knowledge
from agent_server.tool import ToolContext, tool
from agent_server.workspace import Workspace, load_workspace
from tests.commands import agent_server
from tests.conftest import ROOT
from tests.test_prompts import only, write

TOOL = '''
from agent_server import ToolContext, tool


@tool(scope="things:read", effect="read")
async def {name}(context: ToolContext) -> int:
    """Count the things."""
    return 0
'''
DECLARATIONS = """
import functools
from agent_server import ToolContext, tool
read = functools.partial(tool, scope="things:read", effect="read")

@read()
async def no_docstring(context: ToolContext) -> int:
    return 0

@read()
async def no_type(context: ToolContext, size) -> int:
    "Count."
    return 0

@read()
async def no_return(context: ToolContext):
    "Count."

@read()
async def BadName2(context: ToolContext) -> int:
    "Count."
    return 0

@tool(scope="things", effect="read")
async def bad_scope(context: ToolContext) -> int:
    "Count."
    return 0

@tool(scope="things:read", effect="sometimes")
async def bad_effect(context: ToolContext) -> int:
    "Count."
    return 0

@read()
def not_async(context: ToolContext) -> int:
    "Count."
    return 0

@read()
async def no_context(size: int) -> int:
    "Count."
    return 0

@read()
async def no_names(context: ToolContext, *sizes: int) -> int:
    "Count."
    return 0

@read()
async def no_schema(context: ToolContext, size: object()) -> int:
    "Count."
    return 0

@read(phrases=("count {size",))
async def bad_phrase(context: ToolContext, size: int) -> int:
    "Count."
    return 0

@tool(scope="things:read")
async def no_effect(context: ToolContext) -> int:
    "Count."
    return 0
"""


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def line_of(text: str, what: str) -> int:
    return text[: text.index(what)].count("\n") + 1


def checked(root: Path) -> list[str]:
    """Every mistake that `agent-server check` finds, as `file:line: message`."""
    done = agent_server("check", "--json", cwd=root)
    found = [one for one in json.loads(done.stdout) if one["severity"] == "mistake"]
    assert done.returncode == (1 if found else 0), done.stderr
    assert done.stderr == ""
    return [f"{mistake['file']}:{mistake['line']}: {mistake['message']}" for mistake in found]


def test_every_mistake_in_the_three_folders_is_named_at_once_with_file_and_line(tmp_path: Path) -> None:
    root = lay_out(
        tmp_path,
        {
            "tools/first.py": TOOL.format(name="count_things"),
            "tools/deep/second.py": TOOL.format(name="count_things"),
            "tools/search.py": TOOL.format(name="search_knowledge"),
            "tools/syntax.py": "import os\n\ndef count(:\n",
            "tools/missing.py": '"""Ours."""\n\nfrom agent_server import nothing\n',
            "tools/indirect.py": "from tools.helper import divide\n\ndivide(1)\n",
            "tools/helper.py": "def divide(by):\n    return by / 0\n",
            "tools/_draft.py": "this is not read(",
            "prompts/guide.md": "---\nname: guide\ndescription: x\ntols: [a]\n---\nHelp.\n",
            "content/guide/front.md": "---\ntitle: [a\n---\n# A\n\nText.\n",
            "content/guide/fine.md": "# Fine\n\nText.\n",
        },
    )
    found = checked(root)
    expected = [
        "prompts/guide.md:4: tols: not a key of an agent",
        "tools/helper.py:2: does not import: ZeroDivisionError: division by zero",
        "tools/missing.py:3: does not import: ImportError: cannot import name 'nothing' from 'agent_server'",
        "tools/syntax.py:3: does not import: SyntaxError: invalid syntax",
        "content/guide/front.md:2: front matter is not YAML: the list of `title:` begins here and is not closed",
    ]
    for mistake in expected:
        assert any(line.startswith(mistake) for line in found), (mistake, found)
    twice = [line for line in found if "there is one already" in line]
    assert [line.partition(": tool ")[0] for line in twice] == ["tools/first.py:5", "tools/search.py:5"]
    assert "there is one already, tools/deep/second.py:5; rename one" in twice[0]
    assert "agent_server/knowledge/tools.py:" in twice[1]
    assert len(found) == len(expected) + len(twice), found


def test_every_tool_that_cannot_work_is_named_where_it_is_declared(tmp_path: Path) -> None:
    found = checked(lay_out(tmp_path, {"tools/all.py": DECLARATIONS}))
    for name, mistake in {
        "no_docstring": 'needs a docstring, as in """No docstring.""": models choose a tool by it',
        "no_type": "size has no type; write one, as in `size: str`",
        "no_return": "needs a return type, as in `-> str`: it becomes the output schema",
        "BadName2": "a name is 1 to 64 of a-z, 0-9 and _",
        "bad_scope": "scope 'things' is not resource:verb, as in tasks:write",
        "bad_effect": "effect 'sometimes' is not one of read, stored, keyed, once",
        "not_async": "must be `async def`",
        "no_context": "its first parameter must be `context: ToolContext`",
        "no_names": "*args, **kwargs and positional-only parameters have no schema; name each argument",
        "no_schema": "its types have no JSON schema",
    }.items():
        line = line_of(DECLARATIONS, f"def {name}") - 1
        assert any(text.startswith(f"tools/all.py:{line}: tool {name}: {mistake}") for text in found), (name, found)
    no_effect = line_of(DECLARATIONS, '@tool(scope="things:read")')
    assert found[-1].startswith(f"tools/all.py:{no_effect}: tool no_effect: needs effect=..., as in @tool(")
    assert len(found) == 12


FORM = """
from agent_server import ToolContext, tool

@tool(scope="things:write", effect="stored", {options})
async def {name}(context: ToolContext, size: int = 1) -> int:
    "Ask for things."
    return size
"""


def test_a_route_that_no_form_could_have_is_a_mistake_as_is_one_that_two_have(tmp_path: Path) -> None:
    form = "route is the address of a form: declare form, what a person is told above it, beside it"
    cases = {
        "bare": ('route="/api/lead"', form),
        "outside": ('form="Ask.", route="/lead"', "route '/lead' is not /api/ and one word, as in /api/lead"),
        "below": ('form="Ask.", route="/api/a/b"', "route '/api/a/b' is not /api/ and one word, as in /api/lead"),
        "ours": ('form="Ask.", route="/api/chat"', "route '/api/chat' is the server's own; choose another word"),
        "one": ('form="Ask.", route="/api/ask"', None),
        "two": ('form="Ask.", route="/api/ask"', "route '/api/ask' is that of one already, tools/one.py:4"),
    }
    files = {f"tools/{name}.py": FORM.format(name=name, options=options) for name, (options, _) in cases.items()}
    assert checked(lay_out(tmp_path, files)) == sorted(
        f"tools/{name}.py:4: tool {name}: {mistake}" for name, (_, mistake) in cases.items() if mistake
    )


def test_no_route_of_the_server_is_free_for_a_tool() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "agent_server" / "api").rglob("*.py"))
    assert set(re.findall(r'"/api/([a-z]+)', sources)) <= ENGINE_ROUTES


def test_a_scope_is_for_staff_because_its_tool_says_so(tmp_path: Path) -> None:
    @tool(scope="things:write", effect="stored")
    async def ask(context: ToolContext) -> None:
        """Ask for things."""

    @tool(scope="things:read", effect="read", staff=True)
    async def list_asked(context: ToolContext) -> None:
        """List what everybody asked for."""

    prompt = write(tmp_path, guide="---\nname: guide\ndescription: x\ntools: [ask, list_asked]\n---\nHelp.\n")
    workspace = Workspace(
        root=tmp_path,
        name="x",
        tools={t.name: t for t in (ask, list_asked)},
        agents={"guide": only(prompt)},
        entry="guide",
    )
    assert workspace.staff_scopes == {"things:read"}
    roles = define_roles({}, workspace.agent_scopes, workspace.staff_scopes)
    assert "things:read" in roles.of(["staff"]) - roles.of(["user"])
    assert "things:write" in roles.of(["user"])


def test_a_result_is_passages_by_its_type(tmp_path: Path) -> None:
    class Cases(Passages):
        """Passages of another source."""

    @tool(scope="cases:read", effect="read")
    async def find_cases(context: ToolContext) -> Cases:
        """Find cases."""
        return Cases(hits=[])

    @tool(scope="cases:read", effect="read")
    async def count_cases(context: ToolContext) -> list[Passages]:
        """Count cases."""
        return []

    assert [t.has_result(Passages) for t in (search_knowledge, find_cases, count_cases)] == [True, True, False]


def test_a_mistake_in_a_phrase_is_refused_by_every_command_in_the_same_words(tmp_path: Path) -> None:
    text = TOOL.format(name="count_things").replace('"read")', '"read", phrases=("count {size}", "count ["))')
    lay_out(tmp_path, {"tools/things.py": text})
    found = checked(tmp_path)
    assert [line.partition(": phrase ")[0] for line in found] == ["tools/things.py:5: tool count_things"] * 2
    for command in (["serve", "--port", "0"], ["tool", "list"]):
        done = agent_server(*command, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr.splitlines()) == (1, "", found)


def test_a_phrase_or_a_handoff_that_names_nothing_is_a_mistake_too(tmp_path: Path) -> None:
    text = TOOL.format(name="count_things").replace('"read")', '"read", phrases=("count {size}", "count ["))')
    found = checked(
        lay_out(
            tmp_path,
            {
                "tools/things.py": text,
                "prompts/guide.md": "---\nname: guide\ndescription: x\ntools: [count_things]\n---\nHelp.\n",
            },
        )
    )
    assert [line.partition(": phrase ")[0] for line in found] == ["tools/things.py:5: tool count_things"] * 2


def test_a_folder_that_is_no_workspace_is_said_to_be_none(tmp_path: Path) -> None:
    for root, mistake in ((tmp_path, "has none of tools/, prompts/ and content/"), (tmp_path / "x", "no such folder")):
        with pytest.raises(WorkspaceInvalid, match=mistake) as refused:
            load_workspace(root)
        assert refused.value.problems[0].file == str(root)


@pytest.mark.parametrize("folder", ["prompts", "content"])
def test_one_of_the_three_folders_is_enough_and_has_one_agent(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    workspace = load_workspace(tmp_path)
    assert (list(workspace.agents), workspace.entry) == (["assistant"], "assistant")
    assert workspace.agents["assistant"].knowledge is None
    assert "search_knowledge" in workspace.tools


def test_several_agents_get_one_that_decides_between_them_unless_they_have_one(tmp_path: Path) -> None:
    head = "---\nname: {0}\ndescription: About {0}.\n---\nHelp.\n"
    one = load_workspace(write(tmp_path, boats=head.format("boats")))
    assert (list(one.agents), one.entry) == (["boats"], "boats")
    two = load_workspace(write(tmp_path, trains=head.format("trains")))
    assert (two.entry, two.agents["triage"].handoffs) == ("triage", ("boats", "trains"))
    assert [agent.name for agent in two.specialists] == ["boats", "trains"]
    own = head.format("triage").replace("---\nHelp", "handoffs: boats\n---\nHelp")
    three = load_workspace(write(tmp_path, triage=own))
    assert three.agents["triage"].handoffs == ("boats",)
    assert three.agents["triage"].description == "About triage."


@pytest.mark.usefixtures("agent_workspace")
def test_a_process_that_comes_back_to_a_workspace_has_the_modules_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    load_workspace(ROOT)
    before = sys.modules["tools.diving.models"]
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "other.py").write_text("")
    load_workspace(tmp_path)
    assert "tools.diving.models" not in sys.modules
    load_workspace(ROOT)
    assert sys.modules["tools.diving.models"] is before
    for name in [name for name in sys.modules if name.partition(".")[0] == "tools"]:
        del sys.modules[name]
    load_workspace(ROOT)
    assert sys.modules["tools.diving.models"] is before
