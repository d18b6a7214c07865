"""What else a file of prompts/ may say: inputs, parts, candidates and the shape of answers; and its JSON Schema."""

import importlib
import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_server.errors import InvalidInput, WorkspaceInvalid
from agent_server.inspection import list_remarks
from agent_server.prompts import AgentPrompt, load_prompts, read_prompt
from agent_server.prompts.comparison import compare
from agent_server.prompts.schema import front_matter_schema
from agent_server.workspace import load_workspace
from tests.test_prompt_quoting import CHANGED, HOSTILE, STATEMENTS, UNQUOTING, nested

HEAD = "---\nname: guide\ndescription: Answers questions.\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "prompts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def load(root: Path, files: dict[str, str]) -> dict[str, AgentPrompt]:
    prompts, mistakes = load_prompts(write(root, files) / "prompts", root)
    assert mistakes == []
    return prompts


def said(root: Path, files: dict[str, str]) -> list[str]:
    return [str(mistake) for mistake in load_prompts(write(root, files) / "prompts", root)[1]]


# ---- inputs


DECLARED = "inputs:\n  language: {default: English}\n  level: {type: integer}\n  city:\n---\n"


def test_a_value_comes_from_the_request_then_from_the_profile_then_from_the_default(tmp_path: Path) -> None:
    guide = load(tmp_path, {"guide.md": f"{HEAD}{DECLARED}{{{{ language }}}} {{{{ level }}}} {{{{ city }}}}\n"})[
        "guide"
    ]
    profile = {"level": 2, "city": "Rome"}
    assert guide.render(profile=profile) == '"English" 2 "Rome"\n'
    assert guide.render(profile=profile, inputs={"city": "Bari", "language": "it"}) == '"it" 2 "Bari"\n'
    assert guide.render(profile={**profile, "city": None}, inputs={"city": "Bari"}) == '"English" 2 "Bari"\n'


def test_all_inputs_that_are_missing_or_of_another_type_are_named_at_once(tmp_path: Path) -> None:
    guide = load(tmp_path, {"guide.md": f"{HEAD}{DECLARED}Hello.\n"})["guide"]
    with pytest.raises(InvalidInput) as refused:
        guide.render(inputs={"language": 7})
    assert [str(field) for field in refused.value.fields] == [
        "language: must be a text, not 7",
        "level: is missing; it is a whole number",
        "city: is missing; it is a text",
    ]


def test_all_variables_that_nobody_declares_are_named_at_once_each_on_its_line(tmp_path: Path) -> None:
    body = "{{ city }}\n{% if user %}{{ user.name }}{% endif %}\n{{ language }} {{ range(2) | list }}\n"
    assert [mistake.partition("template: ")[::2] for mistake in said(tmp_path, {"guide.md": f"{HEAD}---\n{body}"})] == [
        (
            f"prompts/guide.md:{line}: ",
            f"{name!r} is undefined (a body may use profile, today); declare it under `inputs:`",
        )
        for line, name in ((5, "city"), (7, "language"), (6, "user"))
    ]


def test_two_agents_that_share_an_input_give_it_one_type(tmp_path: Path) -> None:
    other = "---\nname: other\ndescription: x\ninputs: {level: {type: string}}\n---\nHi.\n"
    write(tmp_path, {"guide.md": f"{HEAD}inputs: {{level: {{type: integer}}}}\n---\nHi.\n", "other.md": other})
    with pytest.raises(
        WorkspaceInvalid, match=r"prompts/other\.md:4: inputs: level is of type string, and integer in prompts/gui"
    ):
        load_workspace(tmp_path)


# ---- parts


def test_a_body_includes_and_imports_what_stands_in_folders_of_prompts(tmp_path: Path) -> None:
    files = {
        "guide.md": f"{HEAD}inputs: {{city: {{default: Rome}}}}\n---\n"
        "{% import 'parts/macros.md' as m %}{% set who = 'you' %}{% include 'parts/deep/tone.md' %}|{{ m.shout('x') }}\n",
        "parts/deep/tone.md": "Be kind to {{ who }} in {{ city }}.{% include 'parts/end.md' %}",
        "parts/end.md": " Today is {{ today }}.",
        "parts/macros.md": "{% macro shout(word) %}{{ word }}!{% endmacro %}",
        "parts/README.md": "Not an agent, {{ nobody }} reads it.",
    }
    guide = load(tmp_path, files)["guide"]
    assert guide.render(today="2026-02-03") == 'Be kind to you in "Rome". Today is 2026-02-03.|x!\n'
    assert sorted(guide.parts) == ["parts/deep/tone.md", "parts/end.md", "parts/macros.md"]


def test_the_hash_covers_what_is_included_and_nothing_else(tmp_path: Path) -> None:
    files = {
        "guide.md": f"{HEAD}---\n{{% include 'parts/a.md' %}}\n",
        "parts/a.md": "{% include 'parts/b.md' %}",
        "parts/b.md": "B.",
        "parts/c.md": "C.",
    }
    first = load(tmp_path, files)["guide"].sha
    assert load(tmp_path, files | {"parts/c.md": "Another."})["guide"].sha == first
    assert load(tmp_path, files | {"parts/b.md": "Another."})["guide"].sha != first


def test_a_circle_is_named_in_each_of_its_files(tmp_path: Path) -> None:
    files = {
        "guide.md": f"{HEAD}---\n{{% include 'parts/a.md' %}}\n",
        "parts/a.md": "A.\n{% include 'parts/b.md' %}",
        "parts/b.md": "B.\n\n{% import 'parts/a.md' as a with context %}",
    }
    way = "(parts/a.md > parts/b.md > parts/a.md); take one of these out"
    assert said(tmp_path, files) == [
        f"prompts/parts/a.md:2: template: 'parts/b.md' comes back to itself {way}",
        f"prompts/parts/b.md:3: template: 'parts/a.md' comes back to itself {way}",
    ]


def test_a_link_out_of_prompts_is_not_included(tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("The password.")
    write(tmp_path, {"parts/real.md": "Real."})
    (tmp_path / "prompts" / "parts" / "link.md").symlink_to(tmp_path / "secret.md")
    (found,) = said(tmp_path, {"guide.md": f"{HEAD}---\n{{% include 'parts/link.md' %}}\n"})
    assert found == "prompts/guide.md:5: template: 'parts/link.md': is a link out of this folder; copy the file"


def test_files_that_include_each_other_in_many_ways_are_read_in_no_time(tmp_path: Path) -> None:
    both = "{{% include 'parts/p{0}.md' %}}{{% include 'parts/p{0}.md' %}}"
    files = {f"parts/p{n}.md": both.format(n + 1) for n in range(40)} | {"parts/p40.md": ""}
    prompts, mistakes = load_prompts(
        write(tmp_path, files | {"guide.md": f"{HEAD}---\n{{% if profile %}}{both.format(0)}{{% endif %}}Hi.\n"})
        / "prompts",
        tmp_path,
    )
    assert (mistakes, len(prompts["guide"].parts)) == ([], 41)


INCLUDING = (
    "{{% include 'parts/p.md' %}}",
    "{{% filter replace('\\\\n', '\\n') %}}{{% include 'parts/p.md' %}}{{% endfilter %}}",
    "{{% filter replace('\\\\u003c', '<') %}}{{% include 'parts/p.md' %}}{{% endfilter %}}",
    "{{% set y | replace('\\\\n', '\\n') %}}{{% include 'parts/p.md' %}}{{% endset %}}{{{{ y }}}}",
    "{{% macro m() %}}{{% include 'parts/p.md' %}}{{% endmacro %}}{{{{ m() | replace('\\\\n', '\\n') }}}}",
    "{{% import 'parts/p.md' as p with context %}}{{{{ p }}}}",
    "{{% import 'parts/p.md' as p with context %}}{{{{ p.y }}}}",
    "{{% from 'parts/p.md' import y with context %}}{{{{ y | replace('\\\\n', '\\n') }}}}",
)


@given(
    st.sampled_from(INCLUDING),
    st.sampled_from(STATEMENTS + UNQUOTING + ("{{% set y = {x} %}}",)),
    nested(CHANGED),
    HOSTILE,
)
def test_what_a_caller_stored_stays_quoted_in_what_is_included(
    including: str, statement: str, expression: str, value: str
) -> None:
    agent = AgentPrompt(
        name="a", description="d", tools=(), knowledge=None, model=None, examples=(), handoffs=(), sha="", file="a.md",
        body="First.\n" + including.format() + "\nLast.", parts={"parts/p.md": statement.format(x=expression)},
    )  # fmt: skip
    try:
        rendered = agent.render(profile={"v": value})
    except Exception as error:  # noqa: BLE001  # what fails renders nothing
        assert "does not render" in str(error)  # noqa: PT017
        return
    assert len(rendered.splitlines()) == 3, rendered
    assert "<" not in rendered


# ---- candidates


V2 = "---\nshare: 10\ntemperature: 0.1\ntools: [list_documents]\n---\nHelp more.\n"
V3 = "---\nname: guide\nversion: v3\nshare: 25.5\n---\n"


def test_a_candidate_changes_what_it_says_and_is_routed_as_its_agent(tmp_path: Path) -> None:
    head = f"{HEAD}tools: [search_knowledge]\nknowledge: []\nexamples: [Hello]\nmax_turns: 4\n---\nHelp.\n"
    own = "---\nshare: 5\ndescription: Another.\nexamples: [Bye]\n---\nHi.\n"
    write(tmp_path, {"guide.md": head, "guide.v2.md": V2, "guide.v3.md": V3, "guide.v4.md": own})
    workspace = load_workspace(tmp_path)
    guide = workspace.agents["guide"]
    v2, v3, v4 = guide.candidates
    assert (v2.version, v2.temperature, v2.tools, v2.max_turns, v2.knowledge) == ("v2", 0.1, ("list_documents",), 4, ())
    assert (v3.render(), v3.tools, v3.examples) == ("Help.\n", ("search_knowledge",), ("Hello",))
    assert (v4.description, v4.examples) == (guide.description, guide.examples)
    assert len({each.sha for each in guide.versions}) == 4
    assert "documents:read" in workspace.agent_scopes or "knowledge:read" in workspace.agent_scopes
    assert [str(remark) for remark in list_remarks(workspace) if "guide.v4" in remark.file] == [
        f"prompts/guide.v4.md:{line}: {key}: is not read in a candidate, since messages are routed by prompts/guide.md; take it out"
        for line, key in ((3, "description"), (4, "examples"))
    ]


@given(st.uuids())
@settings(max_examples=30)
def test_a_conversation_has_one_version_wherever_and_whenever_it_is_asked(conversation: UUID) -> None:
    first, again = (
        AgentPrompt(
            name="a", description="d", tools=(), knowledge=None, model=None, examples=(), handoffs=(), sha="m",
            file="a.md", body="x", candidates=candidates(),
        )
        for _ in range(2)
    )  # fmt: skip
    assert first.choose(conversation).sha == again.choose(conversation).sha


def candidates() -> tuple[AgentPrompt, ...]:
    return tuple(
        AgentPrompt(
            name="a", description="d", tools=(), knowledge=None, model=None, examples=(), handoffs=(), sha=sha,
            file="a.md", body="x", share=share,
        )
        for sha, share in (("v2", 10.0), ("v3", 25.5))
    )  # fmt: skip


def test_each_version_gets_its_share(tmp_path: Path) -> None:
    guide = load(tmp_path, {"guide.md": f"{HEAD}---\nHelp.\n", "guide.v2.md": V2, "guide.v3.md": V3})["guide"]
    chosen = [guide.choose(UUID(int=n)).version for n in range(20_000)]
    assert {version: round(chosen.count(version) / 200) for version in (None, "v2", "v3")} == {
        None: pytest.approx(64.5, abs=1.5),
        "v2": pytest.approx(10, abs=1),
        "v3": pytest.approx(25.5, abs=1.5),
    }


def test_all_of_the_conversations_may_be_given_away(tmp_path: Path) -> None:
    whole = "---\nshare: 100\n---\nHelp more.\n"
    guide = load(tmp_path, {"guide.md": f"{HEAD}---\nHelp.\n", "guide.v2.md": whole})["guide"]
    assert {guide.choose(UUID(int=n)).version for n in range(500)} == {"v2"}


# ---- comparison


def test_a_file_anywhere_is_compared_with_an_agent(tmp_path: Path) -> None:
    prompts = load(tmp_path, {"guide.md": f"{HEAD}---\nHelp. {{% include 'parts/a.md' %}}\n", "parts/a.md": "A."})
    (tmp_path / "edited.md").write_text(f"{HEAD}model: openai/m\n---\nHelp more. {{% include 'parts/a.md' %}}\n")
    edited, mistakes = read_prompt(tmp_path / "edited.md", tmp_path / "prompts", tmp_path, prompts)
    assert edited is not None, mistakes
    found = compare(prompts["guide"], edited)
    assert [(each.key, each.before, each.after) for each in found.keys] == [("model", None, "openai/m")]
    assert found.text[2:] == ["@@ -1 +1 @@", "-Help. A.", "+Help more. A."]
    assert compare(edited, edited).is_same


# ---- the schema for editors

SHAPE = {"type": "object", "properties": {"a": {"type": "string"}}}
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, 1, 1.0, 2.5, -1, 201, 100, 100.5, "", "x", "all", "*", "x" * 41, [], ["x"], [1], [""], ["x", None], {}]
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = ODD | st.lists(
    st.sampled_from(["x", "y", 1, 2.0, 2.5, True, None, [], {}]), max_size=2
)
INPUT = st.fixed_dictionaries(
    {},
    optional={
        "type": ODD | st.sampled_from(["string", "integer", "number", "boolean", "array", "object"]),
        "default": ODD,
        "description": ODD,
        "enum": VALUES,
        "examples": VALUES,
        "extra": ODD,
    },
).map(lambda declared: {**declared, "enum": None} if declared.get("default") is not None else declared)
"""Without an enum beside a default: no schema knows that the default has to be in it."""
NAMES = st.sampled_from(["city", "_a1", "B", "profile", "today", "true", "range", "1a", "a-b", "", "x" * 41, "class"])
FRONT = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("guide") | ODD,
        "description": st.just("Answers.") | ODD,
        "tools": ODD,
        "knowledge": ODD,
        "model": ODD,
        "examples": ODD,
        "handoffs": ODD,
        "version": st.just("v2") | ODD,
        "temperature": ODD,
        "max_turns": ODD,
        "inputs": ODD | st.dictionaries(NAMES, INPUT | ODD, max_size=2),
        "output": st.sampled_from([None, SHAPE, {"type": "array"}, {}, 7, [], True, "schemas/a.json"]),
        "rephrase": ODD | st.booleans(),
        "mcp": ODD | st.just("only"),
        "share": ODD,
        "colour": ODD,
    },
)
jsonschema: Any = importlib.import_module("jsonschema")  # it has no types
VALIDATOR = jsonschema.Draft7Validator(front_matter_schema())
_OF_THE_FILE = re.compile(r"name: is '|version: is '|share: the candidates")
"""What the name of the file says, which no schema knows."""


@given(front=FRONT)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_schema_takes_what_the_loader_takes(front: dict[str, Any], tmp_path: Path) -> None:
    candidate = "share" in front
    text = f"---\n{yaml.safe_dump(front, sort_keys=False) if front else ''}---\nHelp.\n"
    for old in (tmp_path / "prompts").glob("*.md"):
        old.unlink()
    files = {"schemas/a.json": json.dumps(SHAPE), "guide.md": f"{HEAD}---\nHelp.\n"}
    found = said(tmp_path, files | {"guide.v2.md" if candidate else "guide.md": text})
    mistakes = [mistake for mistake in found if not _OF_THE_FILE.search(mistake)]
    errors = [error.message for error in VALIDATOR.iter_errors(front)]
    assert bool(mistakes) == bool(errors), (front, mistakes, errors)


def test_the_schema_is_one_and_describes_each_key() -> None:
    schema = front_matter_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    assert all(value["description"] for value in schema["properties"].values())
