"""`agent-server eval run` with language models: several at once, what they cost, and what is recorded of them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from anyio.from_thread import start_blocking_portal
from typer.testing import Result

from agent_server.testing import Refuse, Say, ScriptedOpenAI, Step, scripted_openai
from tests.evals.test_commands import CASES, PROMPT, empty, folder, run

__all__ = ["empty", "folder", "run"]  # fixtures

Run = Callable[..., Result]
CHEAP, DEAR, OWN = "gpt-4o-mini", "gpt-4o", "made-at-home"
SAID = {CHEAP: "Let it rise for two hours.", DEAR: "Two hours.", OWN: "A while."}
RISES = "evals/bread.yaml::Dough rises for two hours"
KEY = "sk-canary-opens-everything-0123456789abcdefghij"  # pragma: allowlist secret


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedOpenAI]:
    """A provider whose models answer what SAID says. The commands are told where it is, and a key for it."""

    def answer(request: dict[str, Any]) -> Step:
        return Say(SAID[request["model"]]) if request["model"] in SAID else Refuse(404)

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(scripted_openai(answer)) as model:
        monkeypatch.setenv("OPENAI_BASE_URL", model.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield model


@contextmanager
def without_provider() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OPENAI_BASE_URL")
        patch.delenv("OPENAI_API_KEY")
        yield


def write_cases(folder: Path, expect: str) -> None:
    (folder / "evals" / "bread.yaml").write_text(
        "name: bread\ncases:\n- name: Dough rises for two hours\n  inputs: How long should dough rise?\n"
        f"  metadata: {{agent: baker, expect: {{{expect}}}}}\n"
    )


def price_of(model: str, *, read: int, wrote: int) -> float:
    """US dollars for so many tokens, by litellm's table."""
    places = (spec := find_spec("litellm")) and spec.submodule_search_locations
    assert places
    entry = json.loads((Path(places[0]) / "model_prices_and_context_window_backup.json").read_text())[model]
    return float(read * entry["input_cost_per_token"] + wrote * entry["output_cost_per_token"])


def reasons_of(report: dict[str, Any]) -> dict[str, list[str]]:
    return {case["variant"]: case["reasons"] for case in report["cases"]}


def test_each_model_is_asked_and_has_a_column_of_its_own(run: Run, folder: Path, served: ScriptedOpenAI) -> None:
    write_cases(folder, "contains: two hours")
    models = [option for name in (CHEAP, f"openai/{DEAR}", OWN) for option in ("--model", name)]
    done = run("run", *models, "--json")
    assert done.exit_code == 1, done.output
    report = json.loads(done.stdout)
    assert [request["model"] for request in served.requests] == [CHEAP, DEAR, OWN]
    assert reasons_of(report) == {
        f"openai/{CHEAP}": [],
        f"openai/{DEAR}": [],
        f"openai/{OWN}": ["contains: 'two hours' is not in 'A while.'"],
    }
    assert report["differs"] == [
        f"{RISES}: passed with openai/{CHEAP}, passed with openai/{DEAR}, failed with openai/{OWN}"
    ]
    shown = run("run", *models).stdout
    assert shown.splitlines()[0].split() == ["case", f"openai/{CHEAP}", f"openai/{DEAR}", f"openai/{OWN}"]
    assert "2 of 3 cases passed" in shown
    assert run("run", "--model", CHEAP, "--model", DEAR).exit_code == 0
    asked = len(served.requests)
    with without_provider():
        wrong = run("run", "--model", CHEAP, "--model", "opnai/gpt")
    assert (wrong.exit_code, len(served.requests)) == (2, asked)
    assert "there is no provider 'opnai'; did you mean 'openai/gpt'?" in wrong.stderr


def test_what_an_answer_costs_is_the_price_of_the_model_that_gave_it(
    run: Run, folder: Path, served: ScriptedOpenAI
) -> None:
    cheap, dear = (price_of(model, read=10, wrote=5) for model in (CHEAP, DEAR))
    assert cheap < dear
    most = f"{(cheap + dear) / 2:.9f}"
    write_cases(folder, f"max_cost: {most}")
    done = run("run", "--model", CHEAP, "--model", DEAR, "--model", OWN, "--json")
    assert done.exit_code == 1, done.output
    found = reasons_of(json.loads(done.stdout))
    assert found[f"openai/{CHEAP}"] == []
    assert found[f"openai/{DEAR}"] == [f"max_cost: ${f'{dear:.9f}'.rstrip('0')}, expected at most ${most.rstrip('0')}"]
    assert found[f"openai/{OWN}"] == [f"max_cost: the price of openai/{OWN} is not known"]
    # An agent's own model is paid for where no other one is asked in its place.
    (folder / "prompts" / "baker.md").write_text(PROMPT.replace("examples:", f"model: {CHEAP}\nexamples:"))
    assert run("run", "--model", DEAR).exit_code == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENT_SERVER_MODEL", DEAR)
        assert run("run").exit_code == 0
    assert [request["model"] for request in served.requests[-2:]] == [DEAR, CHEAP]


def test_recordings_are_made_replayed_missed_and_left_alone_as_the_mode_says(
    run: Run, folder: Path, served: ScriptedOpenAI
) -> None:
    kept = folder / "evals" / "recordings" / "bread.yaml"
    write_cases(folder, "contains: two hours")
    both = ("--model", CHEAP, "--model", DEAR)
    assert run("run", "--recordings", "off", *both).exit_code == 0
    assert not kept.exists()
    missing = run("run", "--recordings", "replay", *both)
    assert (missing.exit_code, len(served.requests)) == (3, 2), missing.output
    assert "0 of 2 cases passed, 2 without a recording" in missing.stdout

    assert run("run", "--recordings", "record", *both).exit_code == 0
    recorded = kept.read_text()
    entries = yaml.safe_load(recorded)["Dough rises for two hours"]
    assert {entry["model"]: entry["output"] for entry in entries} == {
        f"openai/{model}": [{"text": SAID[model]}] for model in (CHEAP, DEAR)
    }
    assert "canary" not in recorded and served.url not in recorded
    with without_provider():
        replayed = run("run", "--json")
    assert replayed.exit_code == 0, replayed.output
    assert reasons_of(json.loads(replayed.stdout)) == {f"openai/{CHEAP}": [], f"openai/{DEAR}": []}
    assert len(served.requests) == 4

    prompt = folder / "prompts" / "baker.md"
    prompt.write_text(PROMPT + "Be brief.\n")
    missed = run("run", "--junit", "junit.xml")
    assert (missed.exit_code, len(served.requests)) == (3, 4), missed.output
    for model in (CHEAP, DEAR):
        said = f"no recording for 'How long should dough rise?' of openai/{model}: prompt changed;"
        assert said in missed.stdout
    assert kept.read_text() == recorded
    # A case that fails is more than one that cannot be told.
    (folder / "evals" / "moon.yaml").write_text(
        CASES.replace("citations: baking/dough.md, contains: two", "contains: ten")
    )
    assert run("run", "--recordings", "auto", "evals/moon.yaml", *both).exit_code == 1

    auto = run("run", "--recordings", "auto", "evals/bread.yaml", *both)
    assert auto.exit_code == 0, auto.output
    asked = len(served.requests)
    assert run("run", "--recordings", "auto", "evals/bread.yaml", *both).exit_code == 0
    assert len(served.requests) == asked
    # What was recorded before the edit is there still, until it is recorded anew.
    prompt.write_text(PROMPT)
    assert run("run", "evals/bread.yaml").exit_code == 0
    assert run("run", "--recordings", "record", "evals/bread.yaml", "--model", CHEAP).exit_code == 0
    models = [entry["model"] for entry in yaml.safe_load(kept.read_text())["Dough rises for two hours"]]
    assert (len(served.requests), sorted(models)) == (asked + 1, [f"openai/{DEAR}"] * 2 + [f"openai/{CHEAP}"])
