"""prompts/*.md: what a file may say, and every mistake named with its line."""

from pathlib import Path

import pytest

from agent_server.errors import ModelFailed, WorkspaceInvalid
from agent_server.prompts import AgentPrompt, load_prompts
from agent_server.workspace import load_workspace

HEAD = "---\nname: guide\ndescription: Answers questions.\n"


def write(root: Path, **prompts: str) -> Path:
    """A workspace of prompts alone."""
    (root / "prompts").mkdir(exist_ok=True)
    for name, text in prompts.items():
        (root / "prompts" / f"{name}.md").write_text(text)
    return root


def problems(root: Path) -> list[str]:
    return [str(problem) for problem in load_prompts(root / "prompts", root)[1]]


def only(root: Path) -> AgentPrompt:
    prompts, mistakes = load_prompts(root / "prompts", root)
    assert mistakes == []
    (prompt,) = prompts.values()
    return prompt


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        (
            f"{HEAD}tols: [x]\n---\nHelp.\n",
            ["4: tols: not a key of an agent; did you mean 'tools'? There are description, "],
        ),
        (f"{HEAD}tools: 7\nmodel: [a]\n---\nHelp.\n", ["4: tools: must be a list of texts", "5: model: must be text"]),
        (f"{HEAD}examples: {{}}\n---\nHelp.\n", ["4: examples: "]),
        ("---\nname: guide\n---\nHelp.\n", ["2: description: is missing"]),
        ("---\nname: guide\ndescription: ''\n---\nHelp.\n", ["3: description: "]),
        ("---\ndescription: x\n---\nHelp.\n", ["2: name: is missing"]),
        ("---\nname: Guide!\ndescription: x\n---\nHelp.\n", ["2: name: must be 1 to 40 of a-z, 0-9, - and _"]),
        ("---\ndescription: x\nname: other\n---\nHelp.\n", ["3: name: is 'other', the file is guide.md"]),
        (
            "---\nname: guide\ndescription: a: b\n---\nHelp.\n",
            ["3: front matter is not YAML: there is a colon in the value"],
        ),
        ("---\nname: guide\n tools: [\n---\nHelp.\n", ["3: front matter is not YAML"]),
        ("---\n- name\n---\nHelp.\n", ["2: front matter is not `key: value` lines"]),
        ("---\n---\nHelp.\n", ["2: name: is missing", "2: description: is missing"]),
        ("---\nname: guide\ndescription: a\x00b\n---\nHelp.\n", ["3: front matter is not YAML"]),
        (
            "---\nname: guide\ndescription: x\nname: guide\n---\nHelp.\n",
            ["4: name: is on line 2 too; keep one"],
        ),
        ("Help.\n", ["1: starts with front matter"]),
        ("", ["1: starts with front matter"]),
        ("---\nname: guide\ndescription: x\n", ["1: its front matter does not end: write a line `---` below it"]),
        (f"{HEAD}---\n\n", ["5: has no body"]),
        (f"{HEAD}---\nHelp.\n\n{{% if x %}}\n", ["7: template: "]),
        (f"{HEAD}---\n\nHello {{{{ user }}}}.\n", ["6: template: 'user' is undefined (a body may use profile, today)"]),
        (f"{HEAD}---\nHello\n{{{{ today.now() }}}}.\n", ["6: template: "]),
        (f"{HEAD}---\nHello\n{{{{ 1 / 0 }}}}.\n", ["6: template: "]),
        (f"{HEAD}---\nHello\n{{{{ today | shout }}}}.\n", ["6: template: No filter named 'shout'"]),
        (f"{HEAD}---\nHello\n{{% include 'other' %}}.\n", ["6: template: "]),
    ],
)
def test_a_mistake_is_named_with_file_and_line(text: str, mistakes: list[str], tmp_path: Path) -> None:
    found = problems(write(tmp_path, guide=text))
    assert len(found) == len(mistakes), found
    for is_, should in zip(found, mistakes, strict=True):
        assert is_.startswith(f"prompts/guide.md:{should}"), is_


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "prompts" / "guide.md").write_bytes(b"---\nname: guide\n---\nR\xe9sum\xe9\n")
    assert problems(tmp_path) == ["prompts/guide.md:4: is not UTF-8 text (byte 21); save it as UTF-8"]


def test_the_mistakes_of_all_files_come_together_with_unknown_names_on_their_lines(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        guide=f"{HEAD}tools: [search_knowledge, nothing]\nhandoffs:\n  - clerk\n  - nobody\n---\nHelp.\n",
        clerk="---\nname: clerk\n---\nHelp.\n",
        third="No front matter.\n",
    )
    with pytest.raises(WorkspaceInvalid) as refused:
        load_workspace(root)
    assert [str(problem).partition("; ")[0] for problem in refused.value.problems] == [
        "prompts/clerk.md:2: description: is missing",
        "prompts/guide.md:4: tools: there is no tool 'nothing'",
        "prompts/guide.md:5: handoffs: there is no agent 'nobody'",
        "prompts/third.md:1: starts with front matter: `---`, `name: ...`, `description: ...`, `---`, and the instructions go below, as in "
        "`You answer questions about bread.`",
    ]


@pytest.mark.parametrize(
    ("line", "collections"),
    [
        ("", None),
        ("knowledge:\n", None),
        ("knowledge: true\n", None),
        ("knowledge: all\n", None),
        ("knowledge: [safety, training]\n", ("safety", "training")),
        ("knowledge: safety\n", ("safety",)),
        ("knowledge: []\n", ()),
        ("knowledge: false\n", ()),
    ],
)
def test_knowledge_is_all_some_or_none_of_the_collections(
    line: str, collections: tuple[str, ...] | None, tmp_path: Path
) -> None:
    assert only(write(tmp_path, guide=f"{HEAD}{line}---\nHelp.\n")).knowledge == collections


@pytest.mark.parametrize("value", ["search_knowledge", "[search_knowledge]", "\n  - search_knowledge"])
def test_one_name_may_stand_for_a_list_of_one(value: str, tmp_path: Path) -> None:
    assert only(write(tmp_path, guide=f"{HEAD}tools: {value}\n---\nHelp.\n")).tools == ("search_knowledge",)


def test_a_file_written_on_windows_is_read(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "prompts" / "guide.md").write_bytes(
        b"\xef\xbb\xbf---\r\nname: guide\r\ndescription: x\r\n---\r\nHi.\r\n"
    )
    assert only(tmp_path).render() == "Hi.\n"


def test_a_readme_is_no_agent(tmp_path: Path) -> None:
    root = write(tmp_path, README="# How to write prompts\n", guide=f"{HEAD}---\nHelp.\n")
    assert only(root).name == "guide"


def test_the_body_is_rendered_with_the_date_and_the_profile(tmp_path: Path) -> None:
    body = "Today is {{ today }}.{% if profile.level %} They are {{ profile.level }}.{% endif %}\n"
    prompt = only(write(tmp_path, guide=f"{HEAD}---\n{body}"))
    assert prompt.render(today="2026-05-01", profile={}) == "Today is 2026-05-01.\n"
    assert prompt.render(today="2026-05-01", profile={"level": "a novice"}).endswith('They are "a novice".\n')


def test_a_body_that_fails_with_a_real_profile_is_a_failure_of_the_model_call(tmp_path: Path) -> None:
    prompt = only(write(tmp_path, guide=f"{HEAD}---\n{{% if profile %}}{{{{ profile.name.first }}}}{{% endif %}}\n"))
    with pytest.raises(ModelFailed, match="guide"):
        prompt.render(profile={"name": None})


def test_a_body_cannot_reach_python(tmp_path: Path) -> None:
    escape = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    assert "unsafe" in problems(write(tmp_path, guide=f"{HEAD}---\n{escape}\n"))[0]


def test_the_hash_changes_with_the_text_and_with_nothing_else(tmp_path: Path) -> None:
    first = only(write(tmp_path, guide=f"{HEAD}---\nHelp.\n")).sha
    assert only(write(tmp_path, guide=f"{HEAD}---\nHelp.\n")).sha == first
    assert only(write(tmp_path, guide=f"{HEAD}---\nHelp!\n")).sha != first


def test_what_is_only_a_prompt_is_no_agent(tmp_path: Path) -> None:
    workspace = load_workspace(
        write(
            tmp_path,
            guide=f"{HEAD}mcp: true\n---\nHelp.\n",
            plan="---\nname: plan\ndescription: x\nmcp: only\n---\nGo.\n",
        )
    )
    assert list(workspace.agents) == ["guide"]
    assert sorted(workspace.prompts) == ["guide", "plan"]


@pytest.mark.parametrize(
    ("lines", "mistake"),
    [
        ("mcp: yes please", "4: mcp: must be true, false or only, as in `mcp: true`"),
        ("mcp: only\nmodel: openai/x", "5: model: is for an agent, and `mcp: only` says that this is none"),
        ("inputs: {a: {enum: []}}", "4: inputs: a: enum and examples are lists of values of its type"),
        ("inputs: {a: {enum: [1]}}", "4: inputs: a: enum and examples are lists of values of its type"),
        ("inputs: {a: {examples: x}}", "4: inputs: a: enum and examples are lists of values of its type"),
        ("inputs: {a: {enum: [x], default: y}}", "4: inputs: a: enum and examples are lists of values of its type"),
    ],
)
def test_what_is_wrong_for_mcp_is_named(tmp_path: Path, lines: str, mistake: str) -> None:
    (found,) = problems(write(tmp_path, guide=f"{HEAD}{lines}\n---\nHelp.\n"))
    assert found.removeprefix("prompts/guide.md:").startswith(mistake)


def test_nobody_hands_off_to_what_is_only_a_prompt(tmp_path: Path) -> None:
    plan = "---\nname: plan\ndescription: x\nmcp: only\n---\nGo.\n"
    write(tmp_path, guide=f"{HEAD}handoffs: [plan]\n---\nHelp.\n", plan=plan)
    with pytest.raises(WorkspaceInvalid, match="there is no agent 'plan'"):
        load_workspace(tmp_path)
