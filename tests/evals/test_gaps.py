"""What was asked and not answered, grouped for the people who write the content."""

import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from agent_server.caller import Caller
from agent_server.cli import app
from agent_server.db import new_id
from agent_server.evals.gaps import ALIKE
from agent_server.evals.stored import read_unanswered
from agent_server.folding import fold
from agent_server.knowledge.embedders.wordllama import WordLlama
from tests.conftest import everything
from tests.evals.test_commands import empty, folder, run
from tests.server import Start

__all__ = ["empty", "folder", "run"]

REWORDINGS = [
    ("Can I dive with braces?", "Is diving with braces allowed?"),
    ("How far is the moon?", "What is the distance to the moon?"),
    ("Do you rent underwater cameras?", "Can I hire an underwater camera from you?"),
    ("What does a course cost?", "How much is the course?"),
    ("Can my dog come on the boat?", "Are dogs allowed on board?"),
    ("Do you have vegetarian food?", "Is there a vegetarian meal on the liveaboard?"),
    ("Can I pay with bitcoin?", "Do you accept cryptocurrency?"),
    ("What time do you open on Sundays?", "When are you open on Sunday?"),
    ("Can I dive while pregnant?", "Is it safe to dive during pregnancy?"),
    ("Is there parking at the centre?", "Where can I park my car?"),
    ("Do I need travel insurance for Egypt?", "Is insurance needed for a trip to Egypt?"),
    ("Where can I dive with hammerheads?", "Which places have hammerhead sharks?"),
    ("How do I become an instructor?", "What do I need to be a diving instructor?"),
    ("Can I cancel my booking?", "How do I cancel a reservation?"),
    ("Do you offer courses in German?", "Is there a course in German?"),
    ("Which wetsuit is warmest?", "What is the warmest wetsuit?"),
    ("Can I bring my drone?", "Are drones permitted?"),
    ("Is the water cold in March?", "How cold is the sea in March?"),
    ("Can children snorkel with you?", "Do you take kids snorkelling?"),
    ("What is the wifi password?", "How do I get on the wifi?"),
    ("Do you sell gift vouchers?", "Can I buy a gift card?"),
    ("How deep can a submarine go?", "What depth does a submarine reach?"),
    ("Who won the football yesterday?", "What was the football result yesterday?"),
    ("Can I use contact lenses under my mask?", "Are contact lenses fine under a mask?"),
    ("how do i get a refund", "I want my money back"),
    ("Do you ship fins to Norway?", "Can fins be sent to Norway?"),
    ("What is the tax on rental gear?", "How much tax is on rented equipment?"),
    ("Is smoking allowed on the boat?", "May I smoke on board?"),
    ("Can I dive with asthma?", "Is diving possible if I have asthma?"),
    ("Do you dive at Christmas?", "Are there dives on Christmas day?"),
]


async def test_rewordings_are_one_gap_and_different_questions_are_not() -> None:
    questions = [question for pair in REWORDINGS for question in pair]
    vectors = await WordLlama().embed([fold(question) for question in questions])
    likeness = vectors @ vectors.T
    alike = [pair for pair in itertools.combinations(range(len(questions)), 2) if likeness[pair] >= ALIKE]
    assert not [(questions[a], questions[b]) for a, b in alike if a // 2 != b // 2]
    assert len(alike) >= 20


def chat(message: str) -> None:
    said = CliRunner().invoke(app, ["chat", message, "--json"], catch_exceptions=False)
    assert said.exit_code == 0, said.stderr


def gaps(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["content", "gaps", *arguments], catch_exceptions=False)


@pytest.mark.usefixtures("run")
def test_what_was_not_answered_is_listed_with_the_most_asked_first() -> None:
    assert "has answered all" in gaps().stdout
    for message in (
        "How long should dough rise?",  # the content answers it
        "Does dough contain hazelnuts? My key is sk-abcdefghijklmnopqrstuvwxyz123456",
        "How far is the moon?",
        "hello",  # asks nothing
        "how far is the MOON?",
        "What is the distance to the moon?",
    ):
        chat(message)
    found = json.loads(gaps("--json").stdout)
    assert [(gap["count"], len(gap["questions"])) for gap in found] == [(3, 2), (1, 1)]
    assert found[1]["nearest"]["document"] == "baking/dough.md"
    assert "sk-abc" not in json.dumps(found)
    lines = gaps().stdout.splitlines()
    assert (lines[0].split()[0], "moon" in lines[0], "hazelnuts" in lines[-2]) == ("3", True, True)
    assert "has answered all" in gaps("--since", "2999-01-01").stdout
    assert gaps("--since", "soon").exit_code == 2


async def test_a_message_that_was_handed_over_and_not_answered_is_among_them(start: Start) -> None:
    since = datetime.now(UTC) - timedelta(hours=1)
    async with start() as client:
        for message in ("Do you sell kayaks made of bamboo?", "Add a task: Service the regulator"):
            await client.ask(message)
        database = client.server.database
        async with everything(database) as session:
            handed = text("select count(*) from item where body ->> 'type' = 'function_call_output'")
            assert (await session.execute(handed)).scalar_one()
        found = await read_unanswered(database, since, Caller(id=new_id(), kind="user"))
    assert [message for message, _ in found] == ["Do you sell kayaks made of bamboo?"]
