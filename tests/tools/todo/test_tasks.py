"""The to-do list: whose tasks, which task, in what order, and what is refused."""

import asyncio
from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from agent_server import Conflict, Forbidden, InvalidInput, NotFound, Tool
from agent_server.phrases import match, template_problems
from tests.tools.conftest import Tools
from tools.todo.tasks import complete_task, create_task, delete_task, get_task, list_tasks, update_task

TASKS: tuple[Tool[..., Any], ...] = (create_task, list_tasks, get_task, update_task, complete_task, delete_task)
ON_ONE: tuple[tuple[Tool[..., Any], dict[str, Any]], ...] = (
    (get_task, {}),
    (update_task, {"title": "Mine now"}),
    (complete_task, {}),
    (delete_task, {}),
)


async def titles(tools: Tools, **arguments: Any) -> list[str]:
    return [task["title"] for task in (await tools(list_tasks, **arguments))["items"]]


@pytest.mark.parametrize(("tool", "change"), ON_ONE)
async def test_another_callers_task_is_as_absent_as_none(
    mine: Tools, theirs: Tools, tool: Tool[..., Any], change: dict[str, Any]
) -> None:
    task = await theirs(create_task, title="Buy fins")
    for named in (task["id"], "Buy fins"):
        absent = named.replace("Buy fins", "Buy a mask") if named == "Buy fins" else str(uuid4())
        with pytest.raises(NotFound) as refused:
            await mine(tool, task=named, **change)
        with pytest.raises(NotFound) as missing:
            await mine(tool, task=absent, **change)
        assert refused.value.message.replace(named, "?") == missing.value.message.replace(absent, "?")
    assert await theirs(get_task, task="Buy fins") == task


async def test_another_callers_tasks_are_not_listed(mine: Tools, theirs: Tools) -> None:
    await theirs(create_task, title="Buy fins")
    assert await mine(list_tasks) == {"items": [], "next_cursor": None}


async def test_the_same_title_of_another_caller_makes_nothing_ambiguous(mine: Tools, theirs: Tools) -> None:
    task = await mine(create_task, title="Buy fins")
    await theirs(create_task, title="Buy fins")
    assert await mine(get_task, task="Buy fins") == task


@pytest.mark.parametrize("tool", TASKS)
async def test_a_caller_without_the_scope_is_refused(mine: Tools, tool: Tool[..., Any]) -> None:
    reading = {list_tasks.name, get_task.name}
    held, lacked = ("write", "read") if tool.name in reading else ("read", "write")
    with pytest.raises(Forbidden) as refused:
        await mine.limited_to(f"tasks:{held}", "notes:*")(tool, task="Buy fins")
    assert refused.value.scope == f"tasks:{lacked}"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "title"),
        ({"title": ""}, "title"),
        ({"title": " \n"}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"title": "Buy\x00fins"}, "title"),
        ({"title": "Buy \ud83d fins"}, "title"),
        ({"title": 7}, "title"),
        ({"title": "Buy fins", "description": "x" * 2001}, "description"),
        ({"title": "Buy fins", "due": "Friday"}, "due"),
        ({"title": "Buy fins", "owner_id": str(uuid4())}, "owner_id"),
        ({"title": "Buy fins", "status": "done"}, "status"),
    ],
)
async def test_a_task_that_is_not_right_is_refused_and_not_added(
    mine: Tools, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await mine(create_task, **arguments)
    assert [f.field for f in refused.value.fields] == [field]
    assert await titles(mine) == []


@pytest.mark.parametrize(
    "arguments", [{"limit": 0}, {"limit": 101}, {"status": "late"}, {"cursor": "open"}, {"cursor": "open~7"}]
)
async def test_a_listing_that_is_not_right_is_refused(mine: Tools, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await mine(list_tasks, **arguments)


@pytest.mark.parametrize("change", [{}, {"due": "2027-01-05", "clear_due": True}, {"title": " "}, {"status": "late"}])
async def test_a_change_that_is_not_right_is_refused(mine: Tools, change: dict[str, Any]) -> None:
    task = await mine(create_task, title="Buy fins")
    with pytest.raises(InvalidInput):
        await mine(update_task, task="Buy fins", **change)
    assert await mine(get_task, task=task["id"]) == task


async def test_a_title_that_two_tasks_have_is_a_conflict_that_names_their_ids(mine: Tools) -> None:
    ids = {(await mine(create_task, title=title))["id"] for title in ("Buy fins", "BUY FINS")}
    for tool, change in ON_ONE:
        with pytest.raises(Conflict) as refused:
            await mine(tool, task="buy fins", **change)
        assert all(id in refused.value.message for id in ids)
    for id in ids:
        await mine(delete_task, task=id)
    assert await titles(mine) == []


async def test_completing_by_title_means_the_open_task_where_an_earlier_one_is_done(mine: Tools) -> None:
    first = await mine(create_task, title="Rinse the gear")
    await mine(complete_task, task="Rinse the gear")
    second = await mine(create_task, title="Rinse the gear")
    done = await mine(complete_task, task="Rinse the gear")
    assert (done["id"], done["status"]) == (second["id"], "done")
    with pytest.raises(Conflict, match=first["id"]):
        await mine(delete_task, task="Rinse the gear")


async def test_a_new_task_is_open_and_read_back_as_it_was_made(mine: Tools) -> None:
    task = await mine(create_task, title="  Buy fins ", description="Blue ones", due="2027-01-05")
    assert task == {
        "id": task["id"],
        "title": "Buy fins",
        "description": "Blue ones",
        "due": "2027-01-05",
        "status": "open",
        "created_at": task["created_at"],
        "updated_at": task["updated_at"],
    }
    assert UUID(task["id"]) and datetime.fromisoformat(task["created_at"]).tzinfo
    assert await mine(get_task, task=task["id"]) == task
    assert await mine(get_task, task=" buy FINS ") == task


async def test_a_change_leaves_what_it_does_not_name(mine: Tools) -> None:
    task = await mine(create_task, title="Buy fins", description="Blue ones", due="2027-01-05")
    changed = await mine(update_task, task=task["id"], title="Buy a mask")
    assert changed == {**task, "title": "Buy a mask", "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > task["updated_at"]
    cleared = await mine(update_task, task=task["id"], description="", clear_due=True)
    assert (cleared["title"], cleared["description"], cleared["due"]) == ("Buy a mask", "", None)


async def test_a_done_task_stays_done_until_it_is_opened_again(mine: Tools) -> None:
    await mine(create_task, title="Buy fins")
    for _ in range(2):
        assert (await mine(complete_task, task="Buy fins"))["status"] == "done"
    assert (await mine(update_task, task="Buy fins", status="open"))["status"] == "open"


async def test_a_deleted_task_is_gone(mine: Tools) -> None:
    task = await mine(create_task, title="Buy fins")
    assert await mine(delete_task, task="buy fins") == {"id": task["id"], "title": "Buy fins"}
    with pytest.raises(NotFound):
        await mine(get_task, task=task["id"])


async def test_open_tasks_come_before_done_ones_and_newer_before_older(mine: Tools) -> None:
    for title in "abcd":
        await mine(create_task, title=title)
    for title in "bd":
        await mine(complete_task, task=title)
    assert await titles(mine, status="all") == ["c", "a", "d", "b"]
    assert await titles(mine) == await titles(mine, status="open") == ["c", "a"]
    assert await titles(mine, status="done") == ["d", "b"]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
async def test_pages_hold_every_task_once_also_while_tasks_come_and_go(mine: Tools, limit: int) -> None:
    for number in range(5):
        await mine(create_task, title=str(number))
    for number in (1, 3):
        await mine(complete_task, task=str(number))
    whole = await titles(mine, status="all")
    page = await mine(list_tasks, status="all", limit=limit)
    seen = [task["title"] for task in page["items"]]
    await mine(delete_task, task=seen[-1])
    await mine(create_task, title="new")
    while page["next_cursor"]:
        page = await mine(list_tasks, status="all", limit=limit, cursor=page["next_cursor"])
        assert 0 < len(page["items"]) <= limit
        seen += [task["title"] for task in page["items"]]
        assert seen == whole[: len(seen)]
    assert seen == whole


async def test_a_due_date_may_be_far_away_but_not_outside_of_the_calendar(mine: Tools) -> None:
    task = await mine(create_task, title="Dive on Europa", due=str(date.max))
    assert UUID(task["id"]) and task["due"] == "9999-12-31"
    with pytest.raises(InvalidInput):
        await mine(create_task, title="Dive on Europa", due="2027-02-30")


@pytest.mark.parametrize("tool", TASKS)
def test_every_phrase_can_be_used(tool: Tool[..., Any]) -> None:
    assert tool.phrases
    assert template_problems(tool) == []


@pytest.mark.parametrize(
    ("message", "name", "arguments"),
    [
        ("Add buy fins to my to-do list", "create_task", {"title": "buy fins"}),
        ("add a task to buy fins", "create_task", {"title": "buy fins"}),
        ("Add a new task to buy fins to my list", "create_task", {"title": "buy fins"}),
        ("Remind me to call the dive centre", "create_task", {"title": "call the dive centre"}),
        ("remind me to book on 2027-01-05", "create_task", {"title": "book", "due": "2027-01-05"}),
        ("New task: buy fins", "create_task", {"title": "buy fins"}),
        ("Please show my tasks", "list_tasks", {}),
        ("List my open tasks", "list_tasks", {"status": "open"}),
        ("What is on my to-do list?", "list_tasks", {}),
        ("What are my tasks?", "list_tasks", {}),
        ("Show the task buy fins", "get_task", {"task": "buy fins"}),
        ('Rename buy fins to "buy a mask"', "update_task", {"task": "buy fins", "title": "buy a mask"}),
        ("Mark buy fins as done", "complete_task", {"task": "buy fins"}),
        ("Complete buy fins", "complete_task", {"task": "buy fins"}),
        ("I have done buy fins", "complete_task", {"task": "buy fins"}),
        ("Buy fins is done", "complete_task", {"task": "Buy fins"}),
        ("Delete the task buy fins", "delete_task", {"task": "buy fins"}),
        ("Which fins should I buy?", None, None),
        ("My tasks are hard", None, None),
    ],
)
def test_a_plain_request_is_recognised(message: str, name: str | None, arguments: dict[str, str] | None) -> None:
    found = match(message, TASKS)
    assert (found and found.tool.name, found and found.arguments) == (name, arguments)


async def test_two_calls_that_complete_one_task_at_once_both_see_it_done(mine: Tools) -> None:
    task = await mine(create_task, title="Buy fins")
    both = await asyncio.gather(*(mine(complete_task, task=task["id"]) for _ in range(2)))
    assert [done["status"] for done in both] == ["done", "done"]


async def test_of_many_tasks_of_one_title_few_are_read_and_named(mine: Tools) -> None:
    for _ in range(9):
        await mine(create_task, title="Buy fins")
    for tool, change in ON_ONE:
        with pytest.raises(Conflict, match=r"^More than 5 tasks are called 'Buy fins'") as refused:
            await mine(tool, task="Buy fins", **change)
        assert refused.value.message.count("(open)") == 5
