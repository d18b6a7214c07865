"""Slices: what belongs to one, what is left out with it, and what a mistake in its file is called."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from agent_server import NotFound
from agent_server.db.leftovers import list_leftovers
from agent_server.errors import WorkspaceInvalid
from agent_server.evals.cases import list_files, read_cases
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.routing.report import report_routing
from agent_server.routing.workspaces import create_router
from agent_server.settings import load_settings
from agent_server.slices import leave_out, read_slices
from agent_server.testing import mcp_client, run_agent_server
from agent_server.testing.server import fill
from agent_server.workspace import Workspace, load_workspace, read_workspace
from tests.commands import agent_server
from tests.conftest import ROOT, everything

MESSAGES = ROOT / "tests" / "slice_messages.yaml"
TOOL = """\
from agent_server import ToolContext, tool
from pydantic import BaseModel

class Answer(BaseModel):
    text: str

@tool(scope="{name}:read", effect="read")
async def {name}(context: ToolContext) -> Answer:
    "Say something of {name}."
    return Answer(text="{name}")
"""
AGENT = "---\nname: {name}\ndescription: Takes {name}.\n{more}---\nYou answer about {name}.\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two slices, and agents, content and evals that are shared and name both."""
    files = {
        "toolsets.yaml": "desk:\n  tools: [bake, ride]\n  prompts: [rider]\n",
        "prompts/host.md": AGENT.format(
            name="host", more="tools: [bake, ride]\nknowledge: [ovens, bikes, house]\nhandoffs: [baker, rider]\n"
        ),
        "content/house/door.md": "# The door\n\nIt is open from eight.\n",
        "evals/host.yaml": "cases:\n- {name: a, inputs: Hi, metadata: {expect: {agent: baker}}}\n"
        "- {name: b, inputs: Hi, metadata: {expect: {citations: ovens/page.md}}}\n"
        "- {name: c, inputs: Hi, metadata: {expect: {calls: [ride]}}}\n"
        "- {name: d, inputs: Hi, metadata: {expect: {agent: host}}}\n",
    }
    for slice, tool, agent, content in (("bakery", "bake", "baker", "ovens"), ("cycling", "ride", "rider", "bikes")):
        files |= {
            f"tools/{slice}/slice.yaml": f"title: T\nagents: [{agent}]\ncontent: [{content}]\nevals: [{agent}]\n",
            f"tools/{slice}/{tool}.py": TOOL.format(name=tool),
            f"prompts/{agent}.md": AGENT.format(
                name=agent, more=f"tools: [{tool}]\nknowledge: [{content}]\nmcp: true\n"
            ),
            f"content/{content}/page.md": f"# Of {content}\n\nThey are warm.\n",
            f"evals/{agent}.yaml": f"cases:\n- {{name: a, inputs: Hi, metadata: {{expect: {{agent: {agent}}}}}}}\n",
        }
    return write(tmp_path, files)


def test_what_is_shared_may_name_what_is_left_out(root: Path) -> None:
    whole, mistakes = read_workspace(root)
    assert mistakes == [] and {"bake", "ride"} <= whole.tools.keys() and {"baker", "rider"} <= whole.agents.keys()

    workspace, mistakes = read_workspace(root, ["bakery"])

    assert mistakes == []
    assert set(workspace.agents) == {"baker", "host", "triage"} and workspace.tools.keys() - whole.tools.keys() == set()
    assert whole.tools.keys() - workspace.tools.keys() == {"ride"}
    host = workspace.agents["host"]
    assert (host.tools, host.knowledge, host.handoffs) == (("bake",), ("ovens", "house"), ("baker",))
    assert workspace.toolsets["desk"].narrow(workspace.tools, workspace.prompts, ()).tools.keys() == {"bake"}
    assert [file.stem for file in list_files(root, workspace.left_out.evals)] == ["baker", "host"]
    assert [case.name for case in read_cases(root / "evals" / "host.yaml", workspace)[0]] == ["a", "b", "d"]
    checked = agent_server("check", "--json", cwd=root, AGENT_SERVER_SLICES="bakery")
    assert (checked.returncode, json.loads(checked.stdout)) == (0, [])


def test_a_name_of_nothing_is_a_mistake_also_where_a_slice_is_left_out(root: Path) -> None:
    write(root, {"prompts/host.md": AGENT.format(name="host", more="tools: [bake, xyz]\n")})
    (mistake,) = read_workspace(root, ["bakery"])[1]
    assert str(mistake).startswith(
        "prompts/host.md:4: tools: there is no tool 'xyz'; there are add_my_document, bake, "
    )
    with pytest.raises(
        WorkspaceInvalid, match=r"^AGENT_SERVER_SLICES: there is no slice 'bakry'; did you mean 'bakery'"
    ):
        load_workspace(root, ["cycling", "bakry"])


def test_every_mistake_in_the_file_of_a_slice_is_named_with_its_line(root: Path) -> None:
    write(
        root,
        {
            "tools/bakery/slice.yaml": "title: Bakery\nagents: [baker, rider, backer]\ncontent: [ovens, oven]\nevals: [x]\n",
            "tools/empty/slice.yaml": "",
            "tools/form/slice.yaml": "titel: A\ndescription: [a]\nagents: baker\nagents: rider\n",
            "tools/odd/slice.yaml": "title: [a\n",
        },
    )
    assert [str(mistake) for mistake in read_workspace(root)[1]] == [
        "tools/bakery/slice.yaml:2: agents: there is no agent 'backer'; did you mean 'baker'? There are baker, host, rider",
        "tools/bakery/slice.yaml:3: content: there is no folder content/oven; did you mean 'ovens'? There are bikes, house, ovens",
        "tools/bakery/slice.yaml:4: evals: there is no file evals/x; there are baker, host, rider",
        "tools/cycling/slice.yaml:2: agents: the agent 'rider' is that of tools/bakery/slice.yaml already; keep it in one, or in none to share it",
        "tools/empty/slice.yaml:1: title: is missing; write one, as in `title: To-do list`",
        "tools/form/slice.yaml:1: titel: no key of a slice; did you mean 'title'? There are agents, content, description, evals, title",
        "tools/form/slice.yaml:1: title: is missing; write one, as in `title: To-do list`",
        "tools/form/slice.yaml:2: description: must be text, as in `description: To-do list`",
        "tools/form/slice.yaml:3: agents: must be a list of names, as in `agents: [one, two]`",
        "tools/form/slice.yaml:4: agents: is on line 3 too; keep one",
        "tools/odd/slice.yaml:1: is not YAML: the list of `title:` begins here and is not closed; end it with ], as in title: [one, two]",
    ]


@given(st.sets(st.sampled_from(sorted(read_slices(ROOT)[0]))), st.booleans())
def test_what_is_left_out_is_all_that_the_other_slices_name(chosen: set[str], spaced: bool) -> None:
    slices, mistakes = read_slices(ROOT)
    assert mistakes == []
    named = load_settings(slices=(" , " if spaced else ",").join(sorted(chosen)), environment="test").slices
    out = leave_out(slices, named)
    others = [slice for name, slice in slices.items() if chosen and name not in chosen]
    assert set(named) == chosen and out.slices == {slice.name for slice in others}
    assert out.agents == {name for slice in others for name in slice.body.agents}
    assert out.collections == {name for slice in others for name in slice.body.content}


async def test_messages_find_their_agent_among_those_of_all_slices(agent_workspace: Workspace) -> None:
    """The figures are those of decision 39, less what a small change of a prompt may cost."""
    entries = [e for e in yaml.safe_load(MESSAGES.read_text()) if not e.get("fresh") and not e.get("last")]
    router = await create_router(agent_workspace, WordLlama())
    rows = [(e["message"], e["agent"], await router.decide(e["message"], None)) for e in entries]
    report = report_routing(rows)
    assert (report.messages, report.out_of_scope) == (120, 10)
    assert (report.accuracy or 0) > 0.78 and (report.precision or 0) > 0.88 and report.sure_out_of_scope == 0
    slices, _ = read_slices(ROOT)
    named = [(e["slice"], decision.ranked[0].name) for e, (_, _, decision) in zip(entries, rows, strict=True)]
    for slice, floor in (("diving", 0.9), ("study", 0.9), ("retail", 0.75), ("todo", 0.5)):
        found = [agent in slices[slice].body.agents for one, agent in named if one == slice]
        assert sum(found) / len(found) > floor, slice


async def test_a_slice_that_is_left_out_is_on_no_surface_and_keeps_its_rows(agent_database: str) -> None:
    workspace = load_workspace(ROOT, ["todo"])
    async with run_agent_server(workspace, agent_database) as server:
        await fill(server.server)
        me = server.as_caller("*")
        with pytest.raises(NotFound):
            await me.call("list_destinations")
        assert (await me.call("search_knowledge", query="How long must I wait before flying?"))["hits"] == []
        assert (await me.call("list_documents"))["items"] == []
        answer = await me.chat("Which certification do I need for wreck diving?")
        assert (answer.agent, answer.citations) == ("tasks", ())
        answer = await me.chat("Add buy fins to my list")
        assert (answer.agent, [call.name for call in answer.calls]) == ("tasks", ["create_task"])
        async with me.http() as http:
            names = {tool["name"] for tool in (await http.get("/api/tools")).json()}
            refused = [(await http.post(path, json={})).status_code for path in ("/api/lead", "/api/tools/get_site")]
        async with mcp_client(me) as client:
            offered = {tool.name for tool in (await client.list_tools()).tools}
        assert "create_task" in names & offered and not (names | offered) & workspace.left_out.tools
        assert refused == [404, 404]
        assert await list_leftovers(server.database) == []
        async with everything(server.database) as session:
            assert (await session.execute(text("select count(*) from destination"))).scalar_one() >= 12
            assert (await session.execute(text("select count(*) from chunk"))).scalar_one() == 0


def test_the_commands_leave_out_what_the_setting_leaves_out(tmp_path: Path, agent_database: str) -> None:
    for name in ("tools", "prompts", "content", "evals", "migrations"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    variables = {"AGENT_SERVER_SLICES": "todo", "DATABASE_URL": agent_database}
    for words, said in (
        (("db", "check"), "The tables are as tools/ and the engine declare them\n"),
        (("db", "leftovers"), "Nothing is left over\n"),
        (("content", "validate"), "0 pages are in order\n"),
    ):
        done = agent_server(*words, cwd=tmp_path, **variables)
        assert (done.returncode, done.stdout) == (0, said), done.stderr
    searched = agent_server("content", "search", "flying after diving", "--json", cwd=tmp_path, **variables)
    assert json.loads(searched.stdout)["hits"] == []
    run = agent_server("eval", "run", "evals/safety.yaml", cwd=tmp_path, **variables)
    assert (run.returncode, "is of a slice that AGENT_SERVER_SLICES leaves out" in run.stderr) == (2, True)
    wrong = agent_server("tool", "list", cwd=tmp_path, AGENT_SERVER_SLICES="tdo")
    assert (
        wrong.returncode,
        "there is no slice 'tdo'; did you mean 'todo'? There are diving, " in wrong.stderr,
    ) == (
        1,
        True,
    )
