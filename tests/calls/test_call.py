"""call_tool: one way in, one audit row, and what a tool wrote is kept or not as a whole."""

import asyncio
from typing import Annotated, Any

import asyncpg
import pytest
from dirty_equals import IsPartialDict
from pydantic import Field
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from agent_server.caller import Caller
from agent_server.calls.call import Runtime, call_tool
from agent_server.conversations.models import Conversation
from agent_server.conversations.repository import ConversationRepository
from agent_server.db import Database, new_id
from agent_server.errors import AgentServerError, Conflict, Internal, NotFound, TimedOut, Unavailable
from agent_server.settings import load_settings
from agent_server.tool import Tool, ToolContext, tool
from tests.conftest import everything, execute


async def _write(context: ToolContext, title: str = "written") -> None:
    await context.repository(ConversationRepository).add(Conversation(title=title))


@tool(scope="notes:write", effect="stored")
async def works(context: ToolContext, title: Annotated[str, Field(max_length=9)] = "written") -> dict[str, str]:
    """Write a row and return."""
    await _write(context, title)
    return {"title": title}


@tool(scope="notes:write", effect="stored")
async def finds_nothing(context: ToolContext) -> str:
    """Write a row, then find that something else is missing."""
    await _write(context)
    raise NotFound("There is no such note")


@tool(scope="notes:write", effect="stored")
async def collides(context: ToolContext) -> str:
    """Write a row, then refuse."""
    await _write(context)
    raise Conflict("Somebody was faster")


@tool(scope="notes:write", effect="stored")
async def has_a_bug(context: ToolContext) -> str:
    """Write a row, then break."""
    await _write(context)
    raise KeyError("internal detail")


@tool(scope="notes:write", effect="stored")
async def hangs(context: ToolContext) -> str:
    """Write a row, then never return."""
    await _write(context)
    await asyncio.Event().wait()
    return "never"


@tool(scope="notes:write", effect="stored")
async def hangs_in_the_database(context: ToolContext) -> str:
    """Write a row, then never return from a statement."""
    await _write(context)
    await context.session.execute(text("select pg_sleep(60)"))
    return "never"


@tool(scope="notes:write", effect="stored")
async def loses_patience_itself(context: ToolContext) -> str:
    """Write a row, then run into a time limit of its own."""
    await _write(context)
    async with asyncio.timeout(0):
        await asyncio.Event().wait()
    return "never"


@tool(scope="notes:write", effect="stored")
async def reads_no_file(context: ToolContext) -> str:
    """Write a row, then fail to read a file: no failure of the database's."""
    await _write(context)
    raise FileNotFoundError("/etc/secret/path")


@tool(scope="notes:write", effect="stored")
async def reaches_no_server(context: ToolContext) -> str:
    """Write a row, then fail to reach a server: no failure of the database's."""
    await _write(context)
    raise ConnectionRefusedError("internal detail")


@tool(scope="notes:write", effect="stored")
async def reaches_no_database_of_its_own(context: ToolContext) -> str:
    """Write a row, then find a database of the tool's own away."""
    await _write(context)
    raise asyncpg.CannotConnectNowError("internal detail")


@tool(scope="notes:write", effect="stored")
async def returns_nonsense(context: ToolContext) -> Any:
    """Write a row, then return what is no JSON."""
    await _write(context)
    return object()


@tool(scope="notes:write", effect="stored")
async def returns_no_number(context: ToolContext) -> float:
    """Write a row, then return what JSON has no word for."""
    await _write(context)
    return float("nan")


@tool(scope="notes:write", effect="stored")
async def writes_twice(context: ToolContext) -> str:
    """Leave rows to be flushed at the end that the database refuses."""
    id = new_id()
    for title in ("one", "two"):
        context.session.add(Conversation(owner_id=context.caller.id, id=id, title=title))
    return "flushed later"


@tool(scope="notes:write", effect="stored")
async def hides_a_failed_statement(context: ToolContext) -> str:
    """Break the transaction and say nothing."""
    await _write(context)
    try:
        await context.session.execute(
            text("insert into conversation (owner_id) values (:me)"), {"me": context.caller.id}
        )
    except IntegrityError:
        return "as if nothing had happened"
    return "impossible"


@tool(scope="notes:read", effect="read")
async def counts(context: ToolContext) -> int:
    """Read rows."""
    return int((await context.session.execute(text("select count(*) from conversation"))).scalar_one())


@tool(scope="notes:send", effect="keyed")
async def charges(context: ToolContext) -> str:
    """Do something outside that knows a key."""
    SENT.append(context.idempotency_key)
    return context.idempotency_key


@tool(scope="notes:send", effect="keyed")
async def refunds(context: ToolContext) -> str:
    """Do something else outside that knows a key."""
    return context.idempotency_key


@tool(scope="notes:send", effect="once")
async def sends(context: ToolContext) -> str:
    """Do something outside that knows no key."""
    SENT.append("sent")
    return "sent"


@tool(scope="notes:send", effect="once")
async def sends_slowly(context: ToolContext) -> str:
    """Do something outside that never answers."""
    SENT.append("sent")
    await asyncio.Event().wait()
    return "never"


@tool(scope="notes:send", effect="once")
async def sends_and_notes(context: ToolContext) -> str:
    """Do something outside, and write down that it was done."""
    await _write(context)
    return "sent"


SENT: list[str] = []
"""What was done outside."""


@pytest.fixture(autouse=True)
def nothing_sent() -> None:
    SENT.clear()


@pytest.fixture
def runtime(database: Database) -> Runtime:
    return Runtime(settings=load_settings(environment="test", tool_timeout=0.5), database=database)


async def _rows(runtime: Runtime) -> tuple[list[str], list[tuple[str, str]]]:
    """The titles that are stored, and the audit's actions and outcomes."""
    async with everything(runtime.database) as session:
        titles = (await session.execute(text("select title from conversation"))).scalars().all()
        audit = (await session.execute(text("select action, outcome from audit"))).all()
        return list(titles), [tuple(row) for row in audit]


async def test_a_call_that_works_is_kept_and_recorded(runtime: Runtime, me: Caller) -> None:
    result = await call_tool(runtime, works, '{"title": "a"}', caller=me, surface="rest")
    assert result == {"title": "a"}
    assert await _rows(runtime) == (["a"], [("works", "ok")])
    async with everything(runtime.database) as session:
        row = (await session.execute(text("select * from audit"))).mappings().one()
    assert dict(row) == IsPartialDict(
        owner_id=me.id, caller_kind="user", surface="rest", conversation_id=None, turn_id=None, request_id=None
    )
    assert row["latency_ms"] > 0


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        (works, {"title": "a", "more": 1}, "invalid_input"),
        (works, {"title": "a" * 10}, "invalid_input"),
        (works, '{"title": "a', "invalid_input"),
        (works, "[" * 100_000, "invalid_input"),
        (works, {"title": "a\0"}, "invalid_input"),
        (finds_nothing, {}, "not_found"),
        (collides, {}, "conflict"),
        (has_a_bug, {}, "internal"),
        (hangs, {}, "timed_out"),
        (hangs_in_the_database, {}, "timed_out"),
        (loses_patience_itself, {}, "internal"),
        (reads_no_file, {}, "internal"),
        (reaches_no_server, {}, "internal"),
        (reaches_no_database_of_its_own, {}, "internal"),
        (returns_nonsense, {}, "internal"),
        (returns_no_number, {}, "internal"),
        (writes_twice, {}, "internal"),
        (hides_a_failed_statement, {}, "internal"),
        (sends_slowly, {}, "timed_out"),
    ],
    ids=lambda value: value.name if isinstance(value, Tool) else "",
)
async def test_a_call_that_fails_leaves_one_audit_row_and_nothing_else(
    runtime: Runtime, me: Caller, tool: Tool[..., Any], arguments: Any, code: str
) -> None:
    with pytest.raises(AgentServerError) as failed:
        await call_tool(runtime, tool, arguments, caller=me, surface="rest")
    assert failed.value.code == code
    assert await _rows(runtime) == ([], [(tool.name, code)])
    for inside in ("internal detail", "/etc", "insert", "KeyError", "conversation_pkey"):
        assert inside not in failed.value.message


@pytest.mark.parametrize("scopes", [(), ("notes:read",), ("note:write",), ("tasks:*",)])
async def test_a_call_without_the_scope_is_refused_before_anything_is_looked_at(
    runtime: Runtime, scopes: tuple[str, ...]
) -> None:
    caller = Caller(id=new_id(), kind="service", scopes=frozenset(scopes))
    with pytest.raises(AgentServerError, match="needs the scope notes:write"):
        await call_tool(runtime, works, {"wrong": 1}, caller=caller, surface="mcp")
    assert await _rows(runtime) == ([], [("works", "forbidden")])


@pytest.mark.parametrize("scope", ["notes:write", "notes:*", "*"])
async def test_a_scope_is_held_by_name_by_resource_or_wholly(runtime: Runtime, scope: str) -> None:
    caller = Caller(id=new_id(), kind="user", scopes=frozenset({scope}))
    assert await call_tool(runtime, works, {}, caller=caller, surface="cli") == {"title": "written"}


async def test_a_bug_has_a_reference_that_is_in_the_log_with_its_traceback(runtime: Runtime, me: Caller) -> None:
    with capture_logs() as logs, pytest.raises(Internal) as failed:
        await call_tool(runtime, has_a_bug, {}, caller=me, surface="rest")
    (line,) = [line for line in logs if line["event"] == "tool.failed"]
    assert line == IsPartialDict(tool="has_a_bug", reference=failed.value.reference)
    assert line["exc_info"]
    assert failed.value.message.endswith(failed.value.reference)


async def test_a_call_that_took_too_long_says_so_and_its_connection_is_of_use_again(url: str, me: Caller) -> None:
    database = Database(url, pool_size=1, pool_timeout=5)
    runtime = Runtime(settings=load_settings(environment="test", tool_timeout=0.2), database=database)
    for _ in range(3):
        with pytest.raises(TimedOut, match=r"hangs_in_the_database took longer than 0\.2 seconds"):
            await call_tool(runtime, hangs_in_the_database, {}, caller=me, surface="rest")
    assert await call_tool(runtime, works, {}, caller=me, surface="rest") == {"title": "written"}
    assert database.pool_status()["checked_out"] == 0
    await database.close()


async def test_what_cannot_be_recorded_is_not_kept_and_its_connection_is_of_use_again(url: str, me: Caller) -> None:
    await execute(url, "alter table audit add constraint few check (action <> 'works')")
    database = Database(url, pool_size=1, pool_timeout=5)
    runtime = Runtime(settings=load_settings(environment="test"), database=database)
    with pytest.raises(IntegrityError):
        await call_tool(runtime, works, {}, caller=me, surface="rest")
    # With a write of its own, too: the connection is in no transaction that has failed.
    with pytest.raises(NotFound):
        await call_tool(runtime, finds_nothing, {}, caller=me, surface="rest")
    assert await call_tool(runtime, counts, {}, caller=me, surface="rest") == 0
    assert await _rows(runtime) == ([], [("finds_nothing", "not_found"), ("counts", "ok")])
    await database.close()


async def test_calls_at_once_do_not_see_each_others_writes(runtime: Runtime, me: Caller, other: Caller) -> None:
    await asyncio.gather(
        *(
            call_tool(runtime, works, {"title": f"{n}"}, caller=c, surface="rest")
            for n in range(10)
            for c in (me, other)
        )
    )
    titles, audit = await _rows(runtime)
    assert sorted(titles) == sorted([f"{n}" for n in range(10)] * 2)
    assert audit == [("works", "ok")] * 20


@pytest.mark.parametrize("tool", [works, counts, charges, sends], ids=lambda tool: tool.effect)
async def test_a_database_that_is_away_is_no_failure_of_the_tools_and_nothing_is_done_without_it(
    me: Caller, tool: Tool[..., Any]
) -> None:
    database = Database("postgresql://nobody:nothing@127.0.0.1:1/none")
    runtime = Runtime(settings=load_settings(environment="test"), database=database)
    with capture_logs() as logs, pytest.raises(Unavailable):
        await call_tool(runtime, tool, {}, caller=me, surface="rest")
    assert SENT == []
    assert "tool.failed" not in {line["event"] for line in logs}
    await database.close()


async def test_what_a_call_outside_writes_here_is_kept_with_its_record(runtime: Runtime, me: Caller) -> None:
    assert await call_tool(runtime, sends_and_notes, {}, caller=me, surface="rest") == "sent"
    assert await _rows(runtime) == (["written"], [("sends_and_notes", "ok")])


async def test_a_call_outside_that_was_stopped_for_its_time_says_what_that_leaves_open(
    runtime: Runtime, me: Caller
) -> None:
    with pytest.raises(TimedOut, match="was stopped; it may have taken effect all the same"):
        await call_tool(runtime, sends_slowly, {}, caller=me, surface="rest")
    assert SENT == ["sent"]


async def test_the_key_that_is_handed_on_is_the_callers_own_for_each_tool(
    runtime: Runtime, me: Caller, other: Caller
) -> None:
    async def key(tool: Tool[..., Any], caller: Caller, sent: str | None) -> str:
        return str(await call_tool(runtime, tool, {}, caller=caller, surface="rest", idempotency_key=sent))

    assert await key(charges, me, "mine") == await key(charges, me, "mine")
    keys = [
        await key(charges, me, "mine"),
        await key(charges, me, "another"),
        await key(charges, other, "mine"),
        await key(refunds, me, "mine"),
        await key(charges, me, None),
        await key(charges, me, None),
    ]
    assert len(set(keys)) == len(keys)
    assert "mine" not in "".join(keys)


@pytest.mark.parametrize("ticks", range(6))
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_call_outside_is_on_record_however_often_its_waiting_is_cancelled(
    runtime: Runtime, me: Caller, times: int, ticks: int
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    @tool(scope="notes:write", effect="once")
    async def ring(context: ToolContext) -> str:
        """Ring a bell."""
        begun.set()
        await go_on.wait()
        return "rung"

    calling = asyncio.create_task(call_tool(runtime, ring, {}, caller=me, surface="rest"))
    await begun.wait()
    for _ in range(times):
        calling.cancel()
        for _ in range(ticks):
            await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await calling
    async with everything(runtime.database) as session:
        assert (await session.execute(text("select action, outcome from audit"))).all() == [("ring", "ok")]
