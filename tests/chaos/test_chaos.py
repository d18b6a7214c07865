"""A short run through kills, and the count itself, which must see everything that it is there to see."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.chaos.__main__ import choose_scenes, markdown, run, run_crowd
from tests.chaos.count import CHECKS, Evidence, Rates, count
from tests.chaos.crowd import Scene
from tests.chaos.jobs import Job, answer, plan
from tests.chaos.record import Called, Logged, Move, Record, Said, Turn
from tests.sse import Frame

TURN, OTHER, TALK = (str(uuid4()) for _ in range(3))
NUMBER = 8


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the database's system user may enter, as it may not enter pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="chaos"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.needs("pgbouncer")
async def test_replicas_that_are_killed_lose_no_turn_and_do_nothing_twice(folder: Path) -> None:
    (tally,) = await run(["kill"], 36, 4, folder, lambda *_: None, pooler=True)
    assert [(finding.check, finding.what) for finding in tally.findings] == []
    assert tally.evidence.faults == 4
    assert tally.statuses.total() == 36


async def test_a_crowd_is_answered_in_one_attempt_each_or_told_to_come_again(folder: Path) -> None:
    bounds = {"AGENT_SERVER_TURNS_PER_PROCESS": "3", "AGENT_SERVER_WAITING_PER_PROCESS": "3"}
    (tally,) = await run_crowd([Scene(1, 1.0)], 24, folder, lambda *_: None, crowd=24, few=2, **bounds)
    # How fast it was is for the command to say, on a machine that is quiet.
    wrong = [finding for finding in tally.findings if finding.check != "crowds answered more slowly than a few"]
    assert [(finding.check, finding.what) for finding in wrong] == []
    assert tally.statuses == {"done": 32}
    assert tally.evidence.rates and set(tally.evidence.rates.refusals) == {503}


def test_a_scene_of_a_crowd_is_chosen_by_its_name_or_with_all_of_them() -> None:
    assert choose_scenes(["kill", "crowd-1x0.5"]) == [Scene(1, 0.5)]
    assert choose_scenes(["crowd"]) == [Scene(workers, share) for workers in (1, 2) for share in (1.0, 0.5)]
    assert choose_scenes(["kill"]) == []


def frame(seq: int, kind: str, data: Any, raw: str = "") -> Frame:
    return Frame(raw or f"{seq} {kind} {data}", f"{TURN}:{seq}", kind, data)


def evidence() -> Evidence:
    """Of a phase of one turn in which all is well: taken over once, read by two clients."""
    (first, second), (third,) = plan(NUMBER, "once")  # `second` is what this number has beside: a stored one
    logged = [
        Logged(1, "agent", {"name": "worker"}, 1.0),
        Logged(2, "text", {"call": 3, "text": "Jo"}, 2.0),
        Logged(3, "reset", {"call": 3}, 3.0),
        Logged(4, "text", {"call": 3, "text": answer(NUMBER)}, 4.0),
        Logged(5, "done", {}, 5.0),
    ]
    frames = [frame(event.seq, event.kind, event.body) for event in logged]
    calls = [Called(TURN, ask.id, ask.tool, "done") for ask in (first, second, third)]
    return Evidence(
        phase="kill",
        jobs=[
            Job(
                NUMBER,
                "once",
                "kill",
                promised=[TURN, TURN],
                streams=[list(frames), list(frames)],
                answers=[(list(frames), list(frames))],
            )
        ],
        record=Record(
            turns=[Turn(TURN, TALK, 1, f"kill-{NUMBER}", f"job {NUMBER} kind=once", "done", 2, 5)],
            events={TURN: logged},
            items={
                TURN: [
                    Said("user", f"job {NUMBER} kind=once"),
                    Said(None, None, first.id),
                    Said(None, None, third.id),
                    Said("assistant", answer(NUMBER)),
                ]
            },
            calls=calls,
            notes=Counter({second.label: 1}),
            moves=[Move(TURN, 1, "replica-1-1", 10.0), Move(TURN, 2, "replica-2-1", 11.5)],
            starts=frozenset({(TURN, first.id), (TURN, third.id)}),
            responses={(TURN, 1): 1.5},
        ),
        effects={first.label: 1, third.label: 1},
        asked={(NUMBER, 1): [1.0], (NUMBER, 3): [2.0, 3.0]},
        killed={"replica-1-1": 11.0},
    )


def test_a_phase_in_which_all_is_well_has_no_findings_and_its_figures() -> None:
    tally = count(evidence())
    assert tally.findings == []
    assert (tally.taken_over, tally.most_attempts, tally.asked_again, tally.recoveries) == (1, 2, 1, [0.5])
    assert "| recovery p50 / p95 / max, seconds | 0.50 / 0.50 / 0.50 |\n" in markdown([tally])
    counted = replace(evidence(), killed={}, restarts=[(1.5, 2.5)])
    assert count(counted).recoveries == [1.5], "to the first event of the new server"
    assert all(f"| {check} | 0 |\n" in markdown([tally]) for check in CHECKS)


def turn(e: Evidence, **changes: Any) -> None:
    e.record.turns = [replace(e.record.turns[0], **changes)]


def call(e: Evidence, i: int, **changes: Any) -> None:
    e.record.calls = [replace(called, **changes) if k == i else called for k, called in enumerate(e.record.calls)]


def lose_the_turn(e: Evidence) -> None:
    e.jobs[0].promised.append(OTHER)


def lose_all(e: Evidence) -> None:
    e.record = Record()


def leave_it_running(e: Evidence) -> None:
    turn(e, status="running")


def fail_it(e: Evidence) -> None:
    turn(e, status="failed", error="internal")


def cancel_it(e: Evidence) -> None:
    turn(e, status="cancelled")


def store_it_under_two_keys(e: Evidence) -> None:
    e.record.turns = [*e.record.turns, replace(e.record.turns[0], id=OTHER)]


def store_the_message_twice(e: Evidence) -> None:
    e.record.items = {TURN: [e.record.items[TURN][0], *e.record.items[TURN]]}


def store_the_answer_twice(e: Evidence) -> None:
    e.record.items = {TURN: [*e.record.items[TURN], e.record.items[TURN][-1]]}


def begin_before_the_turn_before(e: Evidence) -> None:
    e.jobs = [*e.jobs, Job(9, "read", "kill", promised=[OTHER])]
    e.record.turns = [*e.record.turns, Turn(OTHER, TALK, 2, "kill-9", "job 9 kind=read", "failed", 1, 1, "internal")]
    e.record.items = {**e.record.items, OTHER: [Said("user", "job 9 kind=read")]}
    e.record.events = {**e.record.events, OTHER: [Logged(1, "failed", {}, 4.5)]}


def number_another_before_it(e: Evidence) -> None:
    begin_before_the_turn_before(e)
    e.record.turns = [e.record.turns[0], replace(e.record.turns[1], turn_no=0)]
    e.record.events = {**e.record.events, OTHER: [Logged(1, "failed", {}, 0.5)]}


def skip_a_number_in_the_log(e: Evidence) -> None:
    e.record.events = {TURN: [logged for logged in e.record.events[TURN] if logged.seq != 3]}


def go_on_after_the_end(e: Evidence) -> None:
    e.record.events = {TURN: [*e.record.events[TURN], Logged(6, "text", {"call": 3, "text": "!"}, 6.0)]}
    turn(e, last_event=6)


def skip_a_frame(e: Evidence) -> None:
    del e.jobs[0].streams[1][2]


def break_a_stream_off(e: Evidence) -> None:
    del e.jobs[0].streams[0][3:]


def repeat_a_frame(e: Evidence) -> None:
    e.jobs[0].streams[0].insert(2, e.jobs[0].streams[0][1])


def swap_two_frames(e: Evidence) -> None:
    frames = e.jobs[0].streams[0]
    frames[1], frames[2] = frames[2], frames[1]


def change_a_frame(e: Evidence) -> None:
    e.jobs[0].streams[0][3] = frame(4, "text", {"call": 3, "text": "something else"})


def render_a_frame_otherwise(e: Evidence) -> None:
    e.jobs[0].streams[0][0] = frame(1, "agent", {"name": "worker"}, raw="the same in other bytes")


def end_the_resumed_answer_early(e: Evidence) -> None:
    e.jobs[0].answers[0][0].pop()


def resume_with_another_frame(e: Evidence) -> None:
    e.jobs[0].answers[0][0][2] = frame(3, "text", {"call": 3, "text": "J"})


def forget_a_reset(e: Evidence) -> None:
    kept = [logged for logged in e.record.events[TURN] if logged.kind != "reset"]
    e.record.events = {TURN: [replace(logged, seq=seq) for seq, logged in enumerate(kept, 1)]}
    turn(e, last_event=4)
    e.jobs[0].streams = [[frame(logged.seq, logged.kind, logged.body) for logged in e.record.events[TURN]]]


def have_an_effect_twice(e: Evidence) -> None:
    e.effects = dict.fromkeys(e.effects, 2)


def store_twice(e: Evidence) -> None:
    e.record.notes = Counter(dict.fromkeys(e.record.notes, 2))


def have_none(e: Evidence) -> None:
    e.effects = {}


def forget_a_call(e: Evidence) -> None:
    e.record.calls = e.record.calls[:2]


def leave_a_call_started(e: Evidence) -> None:
    call(e, 2, state="started")


def store_without_a_record(e: Evidence) -> None:
    e.record.notes["9.1.0"] += 1


def fail_a_call(e: Evidence) -> None:
    call(e, 0, error="internal: a bug")


def not_know_of_a_call_that_was_never_started(e: Evidence) -> None:
    call(e, 0, error="outcome_unknown: it was cut off")
    e.record.starts = frozenset()


def not_know_of_a_stored_call(e: Evidence) -> None:
    call(e, 1, error="outcome_unknown: it was cut off")


def store_a_response_twice(e: Evidence) -> None:
    e.record.items = {TURN: [*e.record.items[TURN], e.record.items[TURN][1]]}


def ask_for_a_stored_response(e: Evidence) -> None:
    e.asked = {(NUMBER, 1): [1.0, 1.6]}


def send_what_is_refused(e: Evidence) -> None:
    e.refused = ["a tool call has no output"]


def answer_with_an_error(e: Evidence) -> None:
    e.jobs[0].complaints.append("POST chat: 500")


def make_a_crowd(e: Evidence, *, rate: float = 0.8, attempts: int = 1, asked: int = 1) -> None:
    turn(e, attempts=attempts)
    e.rates = Rates(few=1.0, crowd=rate, refusals={503: 1}, first_texts=[0.1])
    e.asked = {(NUMBER, n): [1.0] * asked for n in (1, 2, 3)}
    e.record.responses = {}


def try_twice_in_a_crowd(e: Evidence) -> None:
    make_a_crowd(e, attempts=2)


def ask_twice_in_a_crowd(e: Evidence) -> None:
    make_a_crowd(e, asked=2)


def slow_down_in_a_crowd(e: Evidence) -> None:
    make_a_crowd(e, rate=0.79)


def end_by_itself(e: Evidence) -> None:
    e.deserted = ["replica-1-1 ended by itself with 1"]


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (lose_the_turn, {"promised turns lost", "keys with two turns"}),
        (lose_all, {"promised turns lost", "stream differences", "effects without a record"}),
        (leave_it_running, {"turns without an end"}),
        (fail_it, {"turns failed", "logs with gaps"}),
        (cancel_it, {"turns cancelled by nobody", "logs with gaps"}),
        (store_it_under_two_keys, {"keys with two turns", "messages stored twice", "answers wrong", "logs with gaps"}),
        (store_the_message_twice, {"messages stored twice"}),
        (store_the_answer_twice, {"answers wrong", "texts that differ"}),
        (begin_before_the_turn_before, {"turns out of order", "turns failed"}),
        (number_another_before_it, {"turns out of order", "turns failed"}),
        (skip_a_number_in_the_log, {"logs with gaps", "stream differences"}),
        (go_on_after_the_end, {"logs with gaps", "stream gaps"}),
        (skip_a_frame, {"stream gaps", "texts that differ"}),
        (break_a_stream_off, {"stream gaps", "texts that differ"}),
        (repeat_a_frame, {"stream repeats"}),
        (swap_two_frames, {"stream differences", "texts that differ"}),
        (change_a_frame, {"stream differences", "streams of other bytes", "texts that differ"}),
        (render_a_frame_otherwise, {"streams of other bytes"}),
        (end_the_resumed_answer_early, {"AI SDK streams that differ"}),
        (resume_with_another_frame, {"AI SDK streams that differ"}),
        (forget_a_reset, {"texts that differ"}),
        (have_an_effect_twice, {"effects doubled"}),
        (store_twice, {"effects doubled"}),
        (have_none, {"effects lost"}),
        (forget_a_call, {"calls never made", "effects without a record"}),
        (leave_a_call_started, {"calls never made"}),
        (store_without_a_record, {"effects without a record"}),
        (fail_a_call, {"calls failed"}),
        (not_know_of_a_call_that_was_never_started, {"unknown outcomes never started"}),
        (not_know_of_a_stored_call, {"unknown outcomes never started", "effects without a record"}),
        (store_a_response_twice, {"responses stored twice"}),
        (ask_for_a_stored_response, {"stored responses asked for again"}),
        (send_what_is_refused, {"requests that a provider refuses"}),
        (answer_with_an_error, {"answers that no client should get"}),
        (end_by_itself, {"replicas that ended by themselves"}),
        (make_a_crowd, set()),
        (try_twice_in_a_crowd, {"turns of a crowd with more than one attempt"}),
        (ask_twice_in_a_crowd, {"model calls of a crowd made twice"}),
        (slow_down_in_a_crowd, {"crowds answered more slowly than a few"}),
    ],
)
def test_the_count_names_what_is_wrong(wrong: Callable[[Evidence], None], found: set[str]) -> None:
    counted = evidence()
    wrong(counted)
    assert {finding.check for finding in count(counted).findings} == found
    assert found <= set(CHECKS)
