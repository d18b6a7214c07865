"""`make bench` in its smallest form: that it measures, not what."""

import json
from pathlib import Path

import pytest

from bench.__main__ import main, write_line
from bench.figures import Figure
from bench.ledger import CONTROL, PLAIN, kinds_of
from tests.conftest import ROOT

MACHINE = {"date": "2026-01-02", "cores": 2, "processor": "a slow one", "load_before": 0.1}


def test_the_smallest_form_measures_both_servers_and_what_a_turn_asks_of_postgres(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--smallest", "--only", "cpu,idle,crowd,soak,search,reload", "--json", str(tmp_path / "figures.json")])
    measured = json.loads((tmp_path / "figures.json").read_text())
    assert {"date", "cores", "processor", "load_before"} <= measured["machine"].keys()
    figures = {(figure["part"], figure["what"]): figure for figure in measured["figures"]}
    assert {part for part, _ in figures} == {"cpu", "first text", "ledger", "idle", "crowd", "soak", "search", "reload"}
    for figure in figures.values():
        assert figure.keys() == {"part", "what", "value", "unit", "against", "base", "ratio"}
        assert figure["unit"] and figure["against"]
    assert figures["cpu", "errors with 1 client"]["value"] == 0
    assert figures["ledger", "rows inserted"]["value"] > 0
    assert figures["ledger", "statements"]["value"] > 0
    assert "| a turn with 1 client |" in capsys.readouterr().out


def test_a_part_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(SystemExit, match="no part memory; there are cpu, "):
        main(["--only", "cpu,memory"])


def test_statements_that_only_control_a_transaction_are_counted_apart() -> None:
    log = (
        "7|bench|LOG:  statement: BEGIN; select set_config('role', 'x', true)\n"
        "7|bench|LOG:  execute __asyncpg_1__: \n\tselect 1;\n"
        "7|postgres|LOG:  statement: select 2\n"
        "7|bench|LOG:  statement: COMMIT;\n"
    )
    assert kinds_of(log) == [CONTROL, CONTROL, PLAIN, CONTROL]


def test_the_line_of_figures_in_the_readme_is_written_anew() -> None:
    parts = {"cpu": ("a turn with 1 client", "a turn with 16 clients"), "first text": ("p50 with 1 client",)}
    parts |= {"start": ("up to the first 200", "memory after the first turn")}
    figures = [Figure(part, what, 3.0, "s", "it", 2.0) for part, names in parts.items() for what in names]
    before = (ROOT / "README.md").read_text()
    after = write_line(before, MACHINE, figures)
    (changed,) = set(after.splitlines()) - set(before.splitlines())
    assert changed.startswith("Measured on 2026-01-02 on 2 cores (a slow one), against the bare Agents SDK")
    assert changed.count("1.50 times") == 5
    assert write_line(after, MACHINE, figures) == after
    assert "which had other work to do" in write_line(before, {**MACHINE, "load_before": 5}, figures)
    with pytest.raises(ValueError, match="Not measured: memory after the first turn"):
        write_line(before, MACHINE, figures[:-1])
