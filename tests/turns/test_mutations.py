"""Each safeguard of the ledger is needed: with any one of them switched off, a test of this folder fails.

A safeguard is switched off in a copy of the sources, and the tests run there, in a process of their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import SERVER, TEMPLATE
from tests.sources import copy_sources
from tests.zygote import run_pytest

_KILLED = "test_crash_points.py::test_a_turn_whose_process_is_killed_is_ended_by_another"
_FROZEN = "test_crash_points.py::test_a_process_that_was_frozen_while_another_ended_its_turn_adds_nothing"


@dataclass(frozen=True)
class Mutant:
    """A safeguard, the edit of `file` that switches it off, and a test of this folder that notices."""

    safeguard: str
    file: str
    old: str
    new: str
    noticed_by: str


MUTANTS = [
    Mutant(
        "the fence knows the attempt",
        "agent_server/turns/writer.py",
        " and epoch = :epoch and status = 'running'\"",
        " and status = 'running'\"",
        "test_writer.py::test_an_attempt_that_was_taken_over_writes_nothing",
    ),
    Mutant(
        "the fence knows the end",
        "agent_server/turns/writer.py",
        " and epoch = :epoch and status = 'running'\"",
        ' and epoch = :epoch"',
        "test_writer.py::test_a_turn_ends_once",
    ),
    Mutant(
        "a call outside is fenced before it is made",
        "agent_server/calls/call.py",
        "ledger.start() if ledger else runtime.database.check()",
        "runtime.database.check()",
        f"{_FROZEN}[answered 1-keyed]",
    ),
    Mutant(
        "a response is one transaction with its events and items",
        "agent_server/turns/writer.py",
        "                await self._write_held(whole)\n            case",
        "                await self.append(*events, items=items)\n                await self._write_held(_Held(response=row))"
        "\n            case",
        f"{_KILLED}[answering 1-stored]",
    ),
    Mutant(
        "responses are served from the journal",
        "agent_server/turns/earlier.py",
        "model_calls={row.n: row for row in model_calls.scalars()}",
        "model_calls={}",
        f"{_KILLED}[answered 1-stored]",
    ),
    Mutant(
        "the model is not asked for what is journaled",
        "agent_server/orchestrator/replay.py",
        "self._models.journaled.get(n)",
        "self._models.journaled.get(-n)",
        "test_recovery.py::test_another_replica_asks_for_nothing_again_and_repeats_no_effect",
    ),
    Mutant(
        "text of an unfinished call is taken back",
        "agent_server/turns/attempt.py",
        "if unfinished := earlier.unfinished_calls:",
        "if unfinished := dict[int, str]():",
        f"{_KILLED}[shown 1-stored]",
    ),
    Mutant(
        "an effect and its record are one transaction",
        "agent_server/calls/call.py",
        "            if not self._holds:\n",
        "        if not self._holds:\n          async with self._transaction() as session:\n",
        f"{_KILLED}[returning-stored]",
    ),
    Mutant(
        "a call outside is noted before it is made",
        "agent_server/calls/call.py",
        "ledger.start() if ledger else runtime.database.check()",
        "runtime.database.check()",
        f"{_KILLED}[acted-once]",
    ),
    Mutant(
        "a call that is made again has the same key",
        "agent_server/turns/calls.py",
        'return f"{self.writer.turn_id}:{self.call_id}"',
        'return f"{self.writer.turn_id}:{self.call_id}:{self.writer.epoch}"',
        f"{_KILLED}[acted-keyed]",
    ),
    Mutant(
        "a call that has a result is not made again",
        "agent_server/calls/call.py",
        "(outcome := ledger.outcome)",
        "(outcome := None)",
        f"{_KILLED}[returned-keyed]",
    ),
    Mutant(
        "a request that was accepted is found again",
        "agent_server/turns/accept.py",
        "if sent := await _find_sent(session, caller, version, sha):\n            return",
        "if (sent := await _find_sent(session, caller, version, sha)) and False:\n            return",
        "test_accept.py::test_copies_of_one_request_are_one_turn",
    ),
    Mutant(
        "copies of a request wait for each other",
        "agent_server/turns/accept.py",
        "pg_advisory_xact_lock(hashtextextended(:key, 0))",
        "hashtextextended(:key, 0)",
        "test_accept.py::test_copies_of_one_request_are_one_turn",
    ),
    Mutant(
        "a request's key is unique",
        "migrations/engine/0001_tables.py",
        'sa.UniqueConstraint("owner_id", "client_key"),',
        "",
        "test_accept.py::test_a_key_is_unique_in_the_database_also_without_the_lock",
    ),
    Mutant(
        "one turn of a conversation runs",
        "migrations/engine/0001_tables.py",
        '"uq_turn_one_running",\n        "turn",\n        ["owner_id", "conversation_id"],\n        unique=True,',
        '"uq_turn_one_running",\n        "turn",\n        ["owner_id", "conversation_id"],\n        unique=False,',
        "test_writer.py::test_the_index_allows_one_running_turn_in_a_conversation",
    ),
    Mutant(
        "one of those that claim a turn gets it",
        "agent_server/turns/claims.py",
        "and id = :id and epoch = :epoch and status in ('queued', 'running')",
        "and id = :id and status in ('queued', 'running')",
        "test_crash_points.py::test_of_two_that_take_up_a_turn_one_gets_it",
    ),
    Mutant(
        "only a turn that has not ended is claimed",
        "agent_server/turns/claims.py",
        "and id = :id and epoch = :epoch and status in ('queued', 'running')",
        "and id = :id and epoch = :epoch",
        "test_crash_points.py::test_a_turn_that_ends_while_it_is_taken_up_is_not_begun",
    ),
    Mutant(
        "the silent stop themselves",
        "agent_server/turns/runner.py",
        "if self.replica.is_silent and (running",
        "if False and (running",
        "test_crash_points.py::test_a_process_that_cannot_say_that_it_lives_stops_before_another_goes_on",
    ),
    Mutant(
        "a free lock says that its process is dead",
        "migrations/engine/0006_rights.py",
        "(r.lock_key is null or",
        "(true or",
        "test_crash_points.py::test_the_lock_of_a_dead_process_says_so_whatever_its_heartbeat_says",
    ),
    Mutant(
        "a follower's events have no gap",
        "agent_server/turns/hub.py",
        "if new and new[0].seq != self.last + 1:",
        "if new and new[0].seq <= self.last:",
        "test_hub.py::test_what_this_process_writes_does_not_overtake_what_another_wrote_before",
    ),
    Mutant(
        "what is followed is committed",
        "agent_server/db/quick.py",
        "self._after_commit.append(call)",
        "call()",
        "test_hub.py::test_what_was_not_committed_is_not_followed",
    ),
    Mutant(
        "no message is lost with the turn it was put into",
        "agent_server/turns/writer.py",
        "self.steers == len(self._taken):",
        "self.steers >= len(self._taken):",
        "test_steering.py::test_a_message_that_no_model_call_was_given_is_a_turn_of_its_own",
    ),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources in which each test switches one safeguard off, and on again."""
    return copy_sources(tmp_path_factory.mktemp("sources"))


@contextmanager
def _edited(file: Path, old: str, new: str) -> Iterator[None]:
    """`file` with `old` replaced, for as long as the block."""
    source = file.read_text()
    assert source.count(old) == 1
    # What was compiled of it is known by the size and the second of the source only.
    compiled = Path(cache_from_source(str(file)))
    file.write_text(source.replace(old, new))
    compiled.unlink(missing_ok=True)
    try:
        yield
    finally:
        file.write_text(source)
        compiled.unlink(missing_ok=True)


def _run(copy: Path, *tests: str, **variables: str) -> tuple[int, int, str]:
    """How many of these tests ran and how many failed, and what was printed; of a test that could not be set up or
    collected neither is true."""
    report = copy / "report.xml"
    report.unlink(missing_ok=True)
    # Of a failure, which is expected, nobody reads the sources that pytest would look up.
    options = (f"--junitxml={report}", "--tb=native")
    done = run_pytest(copy, *(f"tests/turns/{test}" for test in tests), *options, **variables)
    assert done.returncode in (0, 1), done.stdout
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None, done.stdout
    cases = suite.findall("testcase")
    return sum(case.find("error") is None for case in cases), len(suite.findall("testcase/failure")), done.stdout


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.safeguard)
def test_a_safeguard_that_is_switched_off_is_noticed(copy: Path, mutant: Mutant, postgres: str, template: str) -> None:
    shared = {SERVER: postgres}
    if not mutant.file.startswith("migrations/"):  # the template has been made without the mutant
        shared[TEMPLATE] = template
    with _edited(copy / mutant.file, mutant.old, mutant.new):
        ran, failed, printed = _run(copy, mutant.noticed_by, **shared)
    assert (ran, failed) == (1, 1), printed


def test_with_all_safeguards_on_the_same_tests_pass(copy: Path, postgres: str, template: str) -> None:
    tests = list(dict.fromkeys(mutant.noticed_by for mutant in MUTANTS))
    ran, failed, printed = _run(copy, *tests, **{SERVER: postgres, TEMPLATE: template})
    assert (ran, failed) == (len(tests), 0), printed
