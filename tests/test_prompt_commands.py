"""agent-server prompt list, diff and schema."""

import asyncio
import json
from pathlib import Path

import pytest

from agent_server.prompts.schema import front_matter_schema
from tests.conftest import execute
from tests.test_cli import Run, empty, lines, result, run

__all__ = ["empty", "run"]  # fixtures

GUIDE = (
    "---\nname: guide\ndescription: Answers.\ntools: [search_knowledge]\n---\nHelp.\n{% include 'parts/tone.md' %}\n"
)
V2 = "---\nshare: 12.5\ntools: [list_documents]\ntemperature: 0.2\n---\nHelp more.\n{% include 'parts/tone.md' %}\n"


def write(root: Path) -> Path:
    (root / "prompts" / "parts").mkdir(parents=True)
    (root / "prompts" / "guide.md").write_text(GUIDE)
    (root / "prompts" / "guide.v2.md").write_text(V2)
    (root / "prompts" / "parts" / "tone.md").write_text("Be kind.\n")
    return root


def test_what_is_only_a_prompt_is_rendered_with_its_own_inputs(run: Run, tmp_path: Path) -> None:
    plan = (
        "---\nname: plan\ndescription: Plans.\nmcp: only\ninputs: {days: {type: integer}}\n---\nPlan {{ days }} days.\n"
    )
    (write(tmp_path) / "prompts" / "plan.md").write_text(plan)
    where = ("--workspace", str(tmp_path))
    rendered = run("prompt", "render", "plan", "--input", "days=3", *where)
    assert (rendered.exit_code, rendered.stdout.strip()) == (0, "Plan 3 days.")
    assert "days" in run("prompt", "render", "plan", *where).stderr
    asked = run("prompt", "render", "plan", "--message", "Hello", *where)
    assert (asked.exit_code, "is a prompt of MCP clients alone" in asked.stderr) == (1, True)
    assert run("prompt", "render", "nobody", *where).stderr.strip().endswith("there are guide, plan")


def test_agents_and_candidates_are_listed_and_compared(run: Run, tmp_path: Path) -> None:
    where = ("--workspace", str(write(tmp_path)))
    guide, v2 = result(run("prompt", "list", "--json", *where))
    assert (guide["version"], v2["name"], v2["version"], v2["share"]) == (None, "guide", "v2", 12.5)
    assert (v2["parts"], v2["file"]) == (["parts/tone.md"], "prompts/guide.v2.md")
    assert "v2           12.5 %" in run("prompt", "list", *where).stdout
    (tmp_path / "edited.md").write_text(V2)
    for other in ("guide.v2", "v2", v2["sha"][:8], "prompts/guide.v2.md", "edited.md"):
        if other == "edited.md":
            (tmp_path / "edited.md").write_text(GUIDE.replace("Help.", "Help more."))
        found = result(run("prompt", "diff", "guide", other, "--json", *where))
        assert found["text"][3:6] == ["-Help.", "+Help more.", " Be kind."]
        keys = [each["key"] for each in found["keys"]]
        assert keys == ([] if other == "edited.md" else ["tools", "version", "temperature", "share"])
    shown = run("prompt", "diff", "guide", "guide.v2", *where).stdout
    assert "tools:\n  - search_knowledge\n  + list_documents\n" in shown
    assert "share:\n  - (not said)\n  + 12.5\n" in shown
    assert "-Help.\n+Help more.\n Be kind.\n" in shown
    assert "\x1b" not in shown
    assert "They say the same." in run("prompt", "diff", "guide", "guide", *where).stdout
    without = run("prompt", "diff", "guide", "guide.v2", "--cases", *where)
    assert without.exit_code in (0, 1)


def test_a_stored_hash_stands_for_its_text_for_as_long_as_that_is_kept(
    run: Run, empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty)
    where = ("--workspace", str(write(tmp_path)))
    (tmp_path / "prompts" / "guide.v2.md").unlink()
    (old,) = result(run("prompt", "list", "--json", *where))
    said = lines(run("chat", "Where to?", "--json", *where))
    assert said[-1]["kind"] == "done"
    (tmp_path / "prompts" / "parts" / "tone.md").write_text("Be short.\n")
    (new,) = result(run("prompt", "list", "--json", *where))
    assert new["sha"] != old["sha"]
    found = result(run("prompt", "diff", old["sha"][:8], "guide", "--json", *where))
    assert [line for line in found["text"] if line[1:3] == "Be"] == ["-Be kind.", "+Be short."]
    assert (found["before"]["sha"], found["keys"], found["same"]) == (old["sha"], None, False)
    shown = run("prompt", "diff", old["sha"], "guide", *where).stdout
    assert f"The front matter of {old['sha']} is not stored" in shown
    assert "tools" not in shown
    assert "They say the same." in run("prompt", "diff", old["sha"], old["sha"], *where).stdout
    assert "--cases: only the text" in run("prompt", "diff", old["sha"], "guide", "--cases", *where).stderr

    asyncio.run(execute(empty, "update turn set calls_kept = false, requests = null"))
    refused = run("prompt", "diff", "guide", old["sha"], *where)
    assert refused.exit_code == 1
    assert f"{old['sha']} made 1 message of guide until" in refused.stderr
    assert "Only the hash of that prompt is stored by now" in refused.stderr
    nothing = run("prompt", "diff", "guide", "nobody", *where)
    assert "There is no agent, file, version or stored hash 'nobody'" in nothing.stderr


def test_the_schema_is_printed_as_json(run: Run) -> None:
    assert json.loads(run("prompt", "schema").stdout) == front_matter_schema()
