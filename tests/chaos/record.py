"""What the database holds after a phase, read for the count; and the triggers that note what it does not keep.

The server's tables say how things are. When a turn changed hands and whose it became, that a tool call was started
before it was done, and when a model's response was stored is noted by triggers of the harness's own.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_server.turns.events import body_of, unfold
from agent_server.turns.references import SAID
from tests.chaos.postgres import Postgres

_TRIGGERS = """
    create table chaos_move (turn_id uuid, epoch int, process text, at timestamptz);
    create table chaos_start (turn_id uuid, call_id text, epoch int);
    create table chaos_response (turn_id uuid, n int, at timestamptz);

    create function chaos_moved() returns trigger language plpgsql security definer as $$ begin
        if tg_op = 'INSERT' or new.owner is distinct from old.owner or new.epoch <> old.epoch then
            insert into chaos_move values (new.id, new.epoch,
                case when new.owner is null then '' else current_setting('application_name') end, clock_timestamp());
        end if;
        return new;
    end $$;
    create trigger chaos_moved after insert or update on turn for each row execute function chaos_moved();

    create function chaos_started() returns trigger language plpgsql security definer as $$ begin
        if new.state = 'started' then insert into chaos_start values (new.turn_id, new.call_id, new.epoch); end if;
        return new;
    end $$;
    create trigger chaos_started after insert or update on tool_call for each row execute function chaos_started();

    create function chaos_responded() returns trigger language plpgsql security definer as $$ begin
        insert into chaos_response values (new.turn_id, new.n, clock_timestamp());
        return new;
    end $$;
    create trigger chaos_responded after insert on model_call for each row execute function chaos_responded();
"""

_OF_PHASE = "in (select id from turn where client_key like $1)"


@dataclass(frozen=True)
class Turn:
    id: str
    conversation_id: str
    turn_no: int
    key: str
    message: str
    status: str
    attempts: int
    last_event: int
    error: str | None = None


@dataclass(frozen=True)
class Logged:
    """An event as it is stored; `at` is when its transaction began, seconds since 1970."""

    seq: int
    kind: str
    body: dict[str, Any]
    at: float = 0.0


@dataclass(frozen=True)
class Said:
    """An item of a conversation: a message, or a tool call of this id."""

    role: str | None
    text: str | None
    call_id: str | None = None


@dataclass(frozen=True)
class Called:
    """A tool call on record; `error` is None or `code: message`."""

    turn_id: str
    id: str
    tool: str
    state: str
    error: str | None = None


@dataclass(frozen=True)
class Move:
    """A turn became the process's; nobody's where `process` is empty."""

    turn_id: str
    epoch: int
    process: str
    at: float


@dataclass
class Record:
    """All of one phase. `notes` counts the rows of the stored tool per label, `starts` are the calls that were noted
    as started, `responses` is when each model response was stored."""

    turns: Sequence[Turn] = ()
    events: Mapping[str, Sequence[Logged]] = field(default_factory=dict)
    items: Mapping[str, Sequence[Said]] = field(default_factory=dict)
    calls: Sequence[Called] = ()
    notes: Counter[str] = field(default_factory=Counter)
    moves: Sequence[Move] = ()
    starts: frozenset[tuple[str, str]] = frozenset()
    responses: Mapping[tuple[str, int], float] = field(default_factory=dict)


async def install_triggers(database: Postgres) -> None:
    connection = await database.connect()
    try:
        await connection.execute(_TRIGGERS)
    finally:
        await connection.close()


async def count_unfinished(database: Postgres, phase: str) -> int:
    connection = await database.connect()
    try:
        return int(
            await connection.fetchval(
                "select count(*) from turn where client_key like $1 and status in ('queued', 'running')", f"{phase}-%"
            )
        )
    finally:
        await connection.close()


async def read_record(database: Postgres, phase: str) -> Record:
    """What is stored of the turns of a phase."""
    connection = await database.connect()
    keys = f"{phase}-%"

    async def rows(select: str, order: str) -> Sequence[Any]:
        found: Sequence[Any] = await connection.fetch(f"{select} where turn_id {_OF_PHASE} order by {order}", keys)
        return found

    try:
        turns = await connection.fetch(
            """select id, conversation_id, turn_no, client_key, input ->> 'message' as message, status, attempts,
               last_event, error ->> 'code' as error from turn where client_key like $1 order by id""",
            keys,
        )
        events = await rows(
            f"select turn_id, seq, kind, body, extract(epoch from at) as at, {SAID} from event e", "turn_id, seq"
        )
        items = await rows(
            """select turn_id, role, text,
               case when body ->> 'type' = 'function_call' then body ->> 'call_id' end as call_id from item""",
            "turn_id, k",
        )
        calls = await rows(
            "select turn_id, call_id, name, state, result ->> 'error' as error from tool_call", "turn_id, call_id"
        )
        notes = await rows("select label from chaos_note", "label")
        moves = await rows(
            "select turn_id, epoch, process, extract(epoch from at) as at from chaos_move", "turn_id, chaos_move.at"
        )
        starts = await rows("select distinct turn_id, call_id from chaos_start", "turn_id")
        responses = await rows("select turn_id, n, extract(epoch from at) as at from chaos_response", "turn_id, n")
    finally:
        await connection.close()
    by_turn: dict[str, list[Logged]] = {}
    for row in events:
        for numbered in unfold(row["seq"], row["kind"], json.loads(row["body"]), json.loads(row["said"] or "null")):
            event = Logged(numbered.seq, numbered.event.kind, body_of(numbered.event), float(row["at"]))
            by_turn.setdefault(str(row["turn_id"]), []).append(event)
    said: dict[str, list[Said]] = {}
    for row in items:
        said.setdefault(str(row["turn_id"]), []).append(Said(row["role"], row["text"], row["call_id"]))
    return Record(
        turns=[
            Turn(
                str(row["id"]),
                str(row["conversation_id"]),
                row["turn_no"],
                row["client_key"],
                row["message"],
                row["status"],
                row["attempts"],
                row["last_event"],
                row["error"],
            )
            for row in turns
        ],
        events=by_turn,
        items=said,
        calls=[
            *(Called(str(row["turn_id"]), row["call_id"], row["name"], row["state"], row["error"]) for row in calls),
            *_read_calls(by_turn, {(str(row["turn_id"]), row["call_id"]) for row in calls}),
        ],
        notes=Counter(row["label"] for row in notes),
        moves=[Move(str(row["turn_id"]), row["epoch"], row["process"], float(row["at"])) for row in moves],
        starts=frozenset((str(row["turn_id"]), row["call_id"]) for row in starts),
        responses={(str(row["turn_id"]), row["n"]): float(row["at"]) for row in responses},
    )


def _read_calls(events: Mapping[str, Sequence[Logged]], known: set[tuple[str, str]]) -> Iterator[Called]:
    """The calls that have no row, since they have no effect: what they returned is in the log."""
    for turn, logged in events.items():
        for event in logged:
            if event.kind == "tool_done" and (turn, event.body["call_id"]) not in known:
                yield Called(turn, event.body["call_id"], event.body["name"], "done", event.body["error"])
