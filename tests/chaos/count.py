"""The count: what clients saw, what the database holds and what happened outside, compared.

Every check is one of `CHECKS`, and every breach of it a `Finding`. It knows nothing of how the evidence was gathered.

Recovery is measured from the moment the harness killed the process that a turn belonged to, to the moment a trigger saw
another process claim the turn (the first write of the next epoch); where the database was restarted, from the command
to restart it to the first event that any turn wrote into the new server. All of it is read from one machine's clock.
"""

import math
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.chaos.jobs import Job, answer, plan
from tests.chaos.record import Record, Said, Turn
from tests.sse import Frame

CHECKS = (
    "promised turns lost",
    "turns without an end",
    "turns failed",
    "turns cancelled by nobody",
    "keys with two turns",
    "messages stored twice",
    "answers wrong",
    "turns out of order",
    "logs with gaps",
    "stream gaps",
    "stream repeats",
    "stream differences",
    "streams of other bytes",
    "AI SDK streams that differ",
    "texts that differ",
    "effects doubled",
    "effects without a record",
    "effects lost",
    "calls never made",
    "calls failed",
    "unknown outcomes never started",
    "responses stored twice",
    "stored responses asked for again",
    "requests that a provider refuses",
    "answers that no client should get",
    "replicas that ended by themselves",
    "turns of a crowd with more than one attempt",
    "model calls of a crowd made twice",
    "crowds answered more slowly than a few",
)
LEAST_OF_FEW = 0.8
"""The least share of the rate at which a few clients are answered that a crowd must be answered at."""
_FAILURES = {"faults": frozenset({"model_failed"})}
"""The codes with which turns may fail, by phase."""


@dataclass(frozen=True)
class Rates:
    """Turns that were ended a second, for a few clients and for a crowd; what became of the crowd's requests.

    `refusals` counts by status; `first_texts` are the seconds from a request that was accepted to its first word, in order.
    """

    few: float
    crowd: float
    refusals: Mapping[int, int]
    first_texts: Sequence[float]


@dataclass
class Evidence:
    """All that is known of one phase. `effects` are those outside, per label; `asked` is when each model call of each
    job was asked for; `killed` is when each process was killed, `restarts` when the database was told to restart
    and when it did."""

    phase: str
    jobs: Sequence[Job] = ()
    record: Record = field(default_factory=Record)
    effects: Mapping[str, int] = field(default_factory=dict)
    asked: Mapping[tuple[int, int], Sequence[float]] = field(default_factory=dict)
    refused: Sequence[str] = ()
    troubles: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    killed: Mapping[str, float] = field(default_factory=dict)
    restarts: Sequence[tuple[float, float]] = ()
    deserted: Sequence[str] = ()
    connections: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    rates: Rates | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: which check it breaks, and what exactly."""

    check: str
    what: str


@dataclass(frozen=True)
class Tally:
    """What a phase came to. `recoveries` are in seconds, in order."""

    evidence: Evidence
    findings: Sequence[Finding]
    statuses: Counter[str]
    failures: Counter[str]
    taken_over: int
    most_attempts: int
    asked_again: int
    unknown: int
    recoveries: Sequence[float]

    def broken(self, check: str) -> int:
        return sum(finding.check == check for finding in self.findings)


def count(evidence: Evidence) -> Tally:
    record = evidence.record
    checks = (
        _turns,
        _messages,
        _order,
        _logs,
        _streams,
        _answers,
        _texts,
        _effects,
        _calls,
        _responses,
        _surroundings,
        _crowd,
    )
    return Tally(
        evidence=evidence,
        findings=[finding for check in checks for finding in check(evidence)],
        statuses=Counter(turn.status for turn in record.turns),
        failures=Counter(turn.error or "none" for turn in record.turns if turn.status == "failed"),
        taken_over=sum(times > 1 for times in Counter(move.turn_id for move in record.moves if move.process).values()),
        most_attempts=max((turn.attempts for turn in record.turns), default=0),
        asked_again=sum(len(evidence.asked.get((job.number, n), ())) > 1 for job in evidence.jobs for n in (1, 2, 3)),
        unknown=sum((call.error or "").startswith("outcome_unknown") for call in record.calls),
        recoveries=sorted(_recoveries(evidence)),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the `values` (in order) that so large a share of them does not exceed."""
    return values[max(0, math.ceil(len(values) * share) - 1)]


def _turns(evidence: Evidence) -> Iterator[Finding]:
    turns = {turn.id: turn for turn in evidence.record.turns}
    cancelled = {job.key for job in evidence.jobs if job.cancel}
    by_message: defaultdict[str, set[str]] = defaultdict(set)
    for turn in turns.values():
        by_message[turn.message].add(turn.id)
        if turn.status in ("queued", "running"):
            yield Finding("turns without an end", f"{turn.key} {turn.id} is {turn.status}, attempt {turn.attempts}")
        if turn.status == "failed" and turn.error not in _FAILURES.get(evidence.phase, ()):
            yield Finding("turns failed", f"{turn.key} {turn.id}: {turn.error}, attempt {turn.attempts}")
        if turn.status == "cancelled" and turn.key not in cancelled:
            yield Finding("turns cancelled by nobody", f"{turn.key} {turn.id}")
    for job in evidence.jobs:
        ids = set(job.promised) | by_message[job.message]
        if len(ids) > 1:
            yield Finding("keys with two turns", f"{job.key}: {', '.join(sorted(ids))}")
        for id in set(job.promised) - turns.keys():
            yield Finding("promised turns lost", f"{job.key}: {id}")


def _messages(evidence: Evidence) -> Iterator[Finding]:
    jobs = {job.key: job for job in evidence.jobs}
    for turn in evidence.record.turns:
        items = evidence.record.items.get(turn.id, ())
        said = [item.text for item in items if item.role == "user"]
        if said != [turn.message]:
            yield Finding("messages stored twice", f"{turn.key} {turn.id}: {said}")
        answers = [item.text for item in items if item.role == "assistant"]
        if turn.status == "done" and answers != [answer(jobs[turn.key].number)]:
            yield Finding("answers wrong", f"{turn.key} {turn.id}: {answers}")


def _order(evidence: Evidence) -> Iterator[Finding]:
    """A turn writes its first event after the last of the turn before it, and they are numbered as they were sent."""
    numbers = {job.key: job.number for job in evidence.jobs}
    talks: defaultdict[str, list[Turn]] = defaultdict(list)
    for turn in sorted(evidence.record.turns, key=lambda turn: turn.turn_no):
        talks[turn.conversation_id].append(turn)
    for before, after in (pair for turns in talks.values() for pair in pairwise(turns)):
        ended, began = evidence.record.events.get(before.id, ())[-1:], evidence.record.events.get(after.id, ())[:1]
        overlap = after.status != "cancelled" and any(b.at < e.at for b in began for e in ended)
        if numbers[before.key] > numbers[after.key] or overlap:
            yield Finding("turns out of order", f"{before.key} {before.id}, then {after.key} {after.id}")


def _logs(evidence: Evidence) -> Iterator[Finding]:
    for turn in evidence.record.turns:
        events = evidence.record.events.get(turn.id, ())
        numbers = [event.seq for event in events]
        if numbers != list(range(1, turn.last_event + 1)):
            yield Finding("logs with gaps", f"{turn.key} {turn.id}: {numbers}, the last is {turn.last_event}")
        last = [i for i, event in enumerate(events, 1) if event.kind in ("done", "failed", "cancelled")]
        if turn.status in ("done", "failed", "cancelled") and (last != [len(events)] or events[-1].kind != turn.status):
            yield Finding("logs with gaps", f"{turn.key} {turn.id} is {turn.status}, but ends at {last}")


def _streams(evidence: Evidence) -> Iterator[Finding]:
    for job in evidence.jobs:
        rendered: dict[str, str] = {}
        for frames in job.streams:
            yield from _stream(job, frames, evidence.record)
            for frame in frames:
                if rendered.setdefault(str(frame.id), frame.raw) != frame.raw:
                    what = f"{job.key}: {rendered[str(frame.id)]!r} and {frame.raw!r}"
                    yield Finding("streams of other bytes", what)


def _stream(job: Job, frames: Sequence[Frame], record: Record) -> Iterator[Finding]:
    stored = {
        f"{turn}:{event.seq}": event for turn in dict.fromkeys(job.promised) for event in record.events.get(turn, ())
    }
    ids = [str(frame.id) for frame in frames]
    expected = list(stored)
    if repeated := [id for id, times in Counter(ids).items() if times > 1]:
        yield Finding("stream repeats", f"{job.key}: {repeated}")
    if missing := [id for id in expected if id not in ids]:
        yield Finding("stream gaps", f"{job.key}: {missing} of {len(expected)}")
    if list(dict.fromkeys(ids)) != [id for id in expected if id in ids]:
        yield Finding("stream differences", f"{job.key}: order {ids}")
    for frame in frames:
        event = stored.get(str(frame.id))
        if event is None or (frame.event, frame.data) != (event.kind, event.body):
            yield Finding("stream differences", f"{job.key}: {frame.raw!r} for {event}")


def _answers(evidence: Evidence) -> Iterator[Finding]:
    for job in evidence.jobs:
        for pieces, whole in job.answers:
            for piece, frame in zip(pieces, whole, strict=False):
                if piece.raw != frame.raw:
                    yield Finding("AI SDK streams that differ", f"{job.key}: {piece.raw!r} for {frame.raw!r}")
                    break
            if len(pieces) != len(whole):
                what = f"{job.key}: {len(pieces)} frames in pieces, {len(whole)} in whole"
                yield Finding("AI SDK streams that differ", what)


def _texts(evidence: Evidence) -> Iterator[Finding]:
    """What a client has when it drops what `reset` voids is what is stored, also of an answer that was stopped."""
    statuses = {turn.id: turn.status for turn in evidence.record.turns}
    for job in evidence.jobs:
        if not job.promised or statuses.get(job.promised[0]) not in ("done", "cancelled"):
            continue
        items: Sequence[Said] = evidence.record.items.get(job.promised[0], ())
        stored = "".join(item.text or "" for item in items if item.role == "assistant")
        for frames in job.streams:
            texts: dict[int, str] = {}
            for frame in frames:
                if frame.event == "text":
                    texts[frame.data["call"]] = texts.get(frame.data["call"], "") + frame.data["text"]
                elif frame.event == "reset":
                    texts.pop(frame.data["call"], None)
            if (shown := "".join(texts.values())) != stored:
                yield Finding("texts that differ", f"{job.key} {job.promised[0]}: {shown!r}, stored {stored!r}")


def _effects(evidence: Evidence) -> Iterator[Finding]:
    """By label, which says what a call is about whichever call id and idempotency key it came with."""
    record = evidence.record
    made: Counter[str] = Counter()
    for job in evidence.jobs:
        calls = {call.id: call for call in record.calls if call.turn_id in job.promised}
        for ask in (ask for asks in plan(job.number, job.kind) for ask in asks):
            times = (record.notes if ask.tool == "store" else evidence.effects).get(ask.label, 0)
            made[ask.label] += 1
            call = calls.get(ask.id)
            if times > 1:
                yield Finding("effects doubled", f"{job.key}: {ask} {times} times")
            if ask.tool == "store" and times and (call is None or call.state != "done" or call.error is not None):
                yield Finding("effects without a record", f"{job.key}: {ask}, recorded {call}")
            if ask.tool in ("charge", "send") and times and call is None:
                yield Finding("effects without a record", f"{job.key}: {ask}")
            if ask.tool != "look" and not times and call and call.state == "done" and call.error is None:
                yield Finding("effects lost", f"{job.key}: {ask}")
    for label in record.notes.keys() - made.keys():
        yield Finding("effects without a record", f"{label}, which no job asked for")


def _calls(evidence: Evidence) -> Iterator[Finding]:
    record = evidence.record
    statuses = {turn.id: turn.status for turn in record.turns}
    calls = {(call.turn_id, call.id): call for call in record.calls}
    for job in evidence.jobs:
        for ask in (ask for asks in plan(job.number, job.kind) for ask in asks):
            id = job.promised[0] if job.promised else ""
            call = calls.get((id, ask.id))
            if statuses.get(id) == "done" and (call is None or call.state != "done"):
                yield Finding("calls never made", f"{job.key} {id}: {ask}, recorded {call}")
    for call in calls.values():
        code = (call.error or "").partition(":")[0]
        if code == "outcome_unknown":
            if call.tool != "send" or (call.turn_id, call.id) not in record.starts:
                yield Finding("unknown outcomes never started", str(call))
        elif code and not (code == "invalid_input" and call.id.endswith("_malformed")):
            yield Finding("calls failed", str(call))


def _responses(evidence: Evidence) -> Iterator[Finding]:
    record = evidence.record
    for turn in record.turns:
        ids = Counter(item.call_id for item in record.items.get(turn.id, ()) if item.call_id)
        if doubled := [id for id, times in ids.items() if times > 1]:
            yield Finding("responses stored twice", f"{turn.key} {turn.id}: {doubled}")
    if evidence.phase in ("frozen", "faults"):
        # A process that was frozen may ask once more before its next write is refused, and a model that wrote nonsense
        # is asked for the same step again in another call.
        return
    for job in evidence.jobs:
        for n, times in ((n, evidence.asked.get((job.number, n), ())) for n in (1, 2, 3)):
            stored = min((record.responses.get((id, n), float("inf")) for id in job.promised), default=float("inf"))
            if late := [at - stored for at in times if at > stored]:
                yield Finding("stored responses asked for again", f"{job.key}: call {n}, {late} s after it was stored")


def _surroundings(evidence: Evidence) -> Iterator[Finding]:
    for request in evidence.refused:
        yield Finding("requests that a provider refuses", request)
    for job in evidence.jobs:
        for complaint in job.complaints:
            yield Finding("answers that no client should get", f"{job.key}: {complaint}")
    for what in evidence.deserted:
        yield Finding("replicas that ended by themselves", what)


def _crowd(evidence: Evidence) -> Iterator[Finding]:
    if (rates := evidence.rates) is None:
        return
    for turn in evidence.record.turns:
        if turn.attempts != 1:
            yield Finding("turns of a crowd with more than one attempt", f"{turn.key} {turn.id}: {turn.attempts}")
    for job in evidence.jobs:
        for n in (1, 2, 3):
            if (times := len(evidence.asked.get((job.number, n), ()))) > 1:
                yield Finding("model calls of a crowd made twice", f"{job.key}: call {n}, {times} times")
    if rates.crowd < LEAST_OF_FEW * rates.few:
        what = f"{rates.crowd:.2f} turns a second, {rates.few:.2f} with a few clients"
        yield Finding("crowds answered more slowly than a few", what)


def _recoveries(evidence: Evidence) -> Iterator[float]:
    by_turn: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
    for move in evidence.record.moves:
        by_turn[move.turn_id].append((move.process, move.at))
    for moves in by_turn.values():
        for (process, _), (_, at) in pairwise(moves):
            if process in evidence.killed and at > evidence.killed[process]:
                yield at - evidence.killed[process]
    written = sorted(event.at for events in evidence.record.events.values() for event in events)
    for asked, began in evidence.restarts:
        yield from (at - asked for at in written[bisect(written, began) :][:1])
