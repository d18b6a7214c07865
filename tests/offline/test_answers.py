"""Answers without a language model stay as good as they were measured on the judged questions."""

import json

import pytest

from agent_server.db import Database
from bench.judged_answers import CONTENT, SETS, measure

MARGIN = 3
"""So many questions may go wrong that went well when the figures were written."""


@pytest.mark.parametrize("name", CONTENT)
async def test_judged_questions_are_answered_and_declined_as_well_as_before(database: Database, name: str) -> None:
    before = json.loads((SETS / name / "figures.json").read_text())
    figures = await measure(database, name)
    assert figures.answerable >= 100
    assert figures.unanswerable >= 40
    lost = {key: before[key] - getattr(figures, key) for key in ("first", "three", "answered", "refused")}
    lost["declined"] = figures.declined - before["declined"]
    assert {key: n for key, n in lost.items() if n > MARGIN} == {}, figures.failed
