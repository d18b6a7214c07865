"""Files of cases: what may stand in them, where a mistake is, and how a case is added."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent_server.errors import InvalidInput
from agent_server.evals.answer import Answer, Citation, ToolCall
from agent_server.evals.ask import Reply
from agent_server.evals.cases import append_case, list_files, load_cases, read_cases
from agent_server.evals.expect import list_differences
from agent_server.evals.format import CaseBody, Expected, case_schema
from agent_server.workspace import Workspace
from tests.conftest import ROOT

CASE = """\
name: first
cases:
- name: A task is written down
  inputs: Add a task
  metadata:
    caller: {kind: user, scopes: [tasks:write]}
    profile: {name: Ann}
    agent: tasks
    stubs:
    - tool: create_task
      arguments: {title: Buy fins}
      returns: {id: 1}
    expect:
      agent: tasks
      calls:
      - tool: create_task
        arguments: {title: Buy fins}
      order: in_order
      citations: [safety/emergency.md]
      contains: [fins]
      matches: fin
      max_tokens: 100
"""
KEYS = [(n, line) for n, line in enumerate(CASE.split("\n")) if line.strip(" -").partition(":")[0].isidentifier()]
FREE = {"name: Ann", "arguments", "returns", "profile"}
"""What may hold any key."""


@pytest.fixture(scope="module")
def reference(agent_workspace: Workspace) -> Workspace:
    return agent_workspace


def mistakes(file: Path, text: str, workspace: Workspace) -> list[tuple[int | None, str]]:
    file.write_text(text)
    return [(mistake.line, mistake.message) for mistake in read_cases(file, workspace)[1]]


def test_a_file_of_cases_is_a_dataset_of_pydantic_evals(reference: Workspace) -> None:
    from pydantic_evals import Dataset  # a second, in each process that collects the tests

    for file in list_files(ROOT):
        cases = load_cases([file], reference)
        dataset = Dataset[Any, Any, Any].from_file(file)
        assert [case.name for case in dataset.cases] == [case.name for case in cases]
        assert [case.metadata for case in dataset.cases] == [
            case["metadata"] for case in yaml.safe_load(file.read_text())["cases"]
        ]


@pytest.mark.parametrize(("place", "line"), KEYS, ids=[line.strip() for _, line in KEYS])
def test_a_misspelt_key_is_named_with_its_line(place: int, line: str, tmp_path: Path, reference: Workspace) -> None:
    key = line.strip(" -").partition(":")[0]
    lines = CASE.split("\n")
    lines[place] = line.replace(f"{key}:", f"{key}x:", 1)
    found = mistakes(tmp_path / "x.yaml", "\n".join(lines), reference)
    assert (place + 1, True) in [
        (number, f"{key}x: is no key here; did you mean '{key}'?" in text) for number, text in found
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("  inputs: Add a task\n", "", 3, "cases.inputs: is missing"),
        ("inputs: Add a task", "inputs: ''", 4, "is empty"),
        ("inputs: Add a task", "inputs: 3", 4, "should be a valid string"),
        ("kind: user", "kind: ghost", 6, "'user' or 'guest'"),
        ("agent: tasks\n    stubs", "agent: task\n    stubs", 8, "there is no agent 'task'; did you mean 'tasks'?"),
        ("      agent: tasks\n", "      agent: task\n", 14, "there is no agent 'task'"),
        (
            "- tool: create_task\n      arguments",
            "- tool: add_task\n      arguments",
            10,
            "there is no tool 'add_task'",
        ),
        ("matches: fin", "matches: '(('", 21, "is no regular expression"),
        ("order: in_order", "order: some", 18, "'exact', 'in_order' or 'any_order'"),
        ("safety/emergency.md", "safety/none.md", 19, "there is no page content/safety/none.md"),
        ("max_tokens: 100", "max_tokens: -1", 22, "greater than or equal to 0"),
        ("inputs: Add a task", "inputs: [a: b", 5, "is not YAML"),
    ],
)
def test_a_mistake_is_named_with_its_line(
    old: str, new: str, line: int, says: str, tmp_path: Path, reference: Workspace
) -> None:
    assert old in CASE
    (number, message), *_ = mistakes(tmp_path / "x.yaml", CASE.replace(old, new), reference)
    assert says in message
    assert number == line


def test_a_case_that_expects_nothing_and_one_of_a_known_name_are_mistakes(tmp_path: Path, reference: Workspace) -> None:
    text = "cases:\n- name: a\n  inputs: x\n  metadata: {expect: {agent: tasks}}\n- name: a\n  inputs: x\n"
    found = mistakes(tmp_path / "x.yaml", text, reference)
    assert [line for line, _ in found] == [5, 5]
    assert "there is a case 'a' above" in found[0][1]
    assert "expects nothing" in found[1][1]


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30).filter(
    str.strip
)
BREAKS = st.text("\n\r\t\x0b\x85\u2028\u2029\ufeff a:#-'\"|>%&*!{[", min_size=1, max_size=12)
TEXTS = (BREAKS | st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)).filter(str.strip)
CASES = st.fixed_dictionaries(
    {
        "name": NAMES.map(lambda text: text.replace("::", ":")),
        "inputs": TEXTS | st.lists(TEXTS, min_size=1, max_size=3),
        "metadata": st.fixed_dictionaries(
            {"expect": st.fixed_dictionaries({"contains": st.lists(TEXTS, max_size=2), "no_tool": st.booleans()})},
            optional={
                "caller": st.sampled_from(["guest", "user"]),
                "profile": st.dictionaries(TEXTS, TEXTS, max_size=2),
            },
        ),
    }
)
FILES = st.sampled_from(
    [
        "",
        "name: x\ncases: []\n",
        "# kept\ncases:\n- name: \u0000\n  inputs: y\n",
        "cases:\n  - name: \u0000\n    inputs: y",
    ]
)


@given(case=CASES, before=FILES, comment=st.sampled_from(["", "turn 1\nof two"]))
def test_a_case_that_is_added_is_read_as_it_was_and_changes_nothing_above(
    case: dict[str, Any], before: str, comment: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("added") / "x.yaml"
    before = before.replace("\u0000", "b" if case["name"] == "a" else "a")
    if before:
        file.write_text(before)
    if before.endswith("[]\n"):
        with pytest.raises(InvalidInput):
            append_case(file, case, comment=comment)
        assert file.read_text() == before
        return
    append_case(file, case, comment=comment)
    text = file.read_text(encoding="utf-8")
    assert text.startswith(before)
    assert CaseBody.model_validate(yaml.safe_load(text)["cases"][-1]) == CaseBody.model_validate(case)
    with pytest.raises(InvalidInput, match="already"):
        append_case(file, case)


def test_a_case_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file, link = tmp_path / "evals.yaml", tmp_path / "link.yaml"
    file.write_text(CASE + "# more\n" * 2_000)
    file.chmod(0o640)
    link.symlink_to(file)
    before = file.read_bytes()
    added = {"name": "Another", "inputs": "x", "metadata": {"expect": {"no_tool": True}}}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))  # as on a disk that is full
    try:
        with pytest.raises(OSError, match="File too large"):
            append_case(link, added)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == before
    append_case(link, added)
    assert file.read_bytes().startswith(before) and b"Another" in file.read_bytes()
    assert link.is_symlink() and file.stat().st_mode & 0o777 == 0o640
    assert sorted(tmp_path.iterdir()) == [file, link]


def test_the_schema_for_editors_has_every_key_with_what_it_is_for() -> None:
    schema = case_schema()
    assert json.loads(json.dumps(schema)) == schema
    for part in (schema, *schema["$defs"].values()):
        for name, key in part.get("properties", {}).items():
            assert key.get("description") or "$ref" in key, name
    assert "anyOf" in schema["$defs"]["Expected"]["properties"]["contains"]


def reply(text: str = "", calls: tuple[ToolCall, ...] = (), cited: tuple[str, ...] = (), **more: Any) -> Reply:
    citations = tuple(Citation(n, document, "", "") for n, document in enumerate(cited, 1))
    return Reply(message="", answer=Answer(text, "a", citations, calls, None, ()), **more)  # type: ignore[arg-type]  # no conversation


def differs(expected: dict[str, Any], of: Reply) -> list[str]:
    return list(list_differences(Expected.model_validate(expected), of, lambda _: 0.5))


CALLS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=5)


@given(wanted=CALLS, made=CALLS)
def test_calls_in_order_are_a_part_in_order_and_in_any_order_a_part(wanted: list[str], made: list[str]) -> None:
    of = reply(calls=tuple(ToolCall(name, {"x": 1}) for name in made))

    def fits(order: str) -> bool:
        return not differs({"calls": wanted, "order": order}, of)

    rest = iter(made)
    assert fits("exact") == (wanted == made)
    if wanted:
        assert fits("in_order") == all(name in rest for name in wanted)
        assert fits("any_order") == all(wanted.count(name) <= made.count(name) for name in wanted)
    else:
        assert fits("in_order") == fits("any_order") == (not made)


@pytest.mark.parametrize(
    ("expected", "right", "wrong"),
    [
        ({"agent": "a"}, reply(), Reply(message="", answer=Answer("", "b", (), (), None, ()))),  # type: ignore[arg-type]  # no conversation
        ({"no_tool": True}, reply(), reply(calls=(ToolCall("t", {}),))),
        ({"no_tool": False}, reply(calls=(ToolCall("t", {}),)), reply()),
        (
            {"calls": [{"tool": "t", "arguments": {"x": 1}}]},
            reply(calls=(ToolCall("t", {"x": 1}),)),
            reply(calls=(ToolCall("t", {"x": 1, "y": 2}),)),
        ),
        (
            {"calls": [{"tool": "t", "some_arguments": {"x": 1}}]},
            reply(calls=(ToolCall("t", {"x": 1, "y": 2}),)),
            reply(calls=(ToolCall("t", {"y": 2}),)),
        ),
        ({"citations": "x.md"}, reply(cited=("y.md", "x.md")), reply(cited=("y.md",))),
        ({"citations": []}, reply(), reply(cited=("y.md",))),
        ({"contains": "Fins"}, reply("buy fins"), reply("buy masks")),
        ({"not_contains": "Fins"}, reply("buy masks"), reply("buy fins")),
        ({"matches": r"\d+ hours"}, reply("12 hours"), reply("some hours")),
        ({"not_matches": r"\d+ hours"}, reply("some hours"), reply("12 hours")),
        ({"refusal": True}, reply("I can't help with that. Ask a doctor."), reply("Yes. I can't say when.")),
        ({"refusal": True}, reply("...", finish="content_filter"), reply("...")),
        ({"declined": True}, reply("Nothing about this."), reply("12 hours [1]", cited=("x.md",))),
        (
            {"declined": False},
            reply(calls=(ToolCall("t", {}, output=1),)),
            reply(calls=(ToolCall("t", {}, error="x: y"),)),
        ),
        ({"max_tokens": 9}, reply(usage={"total_tokens": 9}), reply(usage={"total_tokens": 10})),
        ({"max_seconds": 1}, reply(seconds=1.0), reply(seconds=1.1)),
        ({"max_cost": 0.5}, reply(), reply(failure="model_failed: x")),
        ({"max_cost": 0.6}, reply(), reply(failure="model_failed: x")),
    ],
)
def test_what_is_expected_passes_and_anything_else_is_said_in_one_line(
    expected: dict[str, Any], right: Reply, wrong: Reply
) -> None:
    assert differs(expected, right) == []
    (line,) = differs(expected, wrong)
    assert "\n" not in line


def test_a_turn_that_costs_more_than_it_may_differs() -> None:
    assert differs({"max_cost": 0.4}, reply()) == ["max_cost: $0.5, expected at most $0.4"]
