"""Tools for the caller's to-do list."""

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from agent_server import InvalidInput, Loss, ToolContext, tool
from tools.todo.models import Status, Task
from tools.todo.repository import TaskRepository

Title = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    Field(description="What is to be done, in a few words."),
]
Description = Annotated[str, Field(max_length=2000, description="Whatever else belongs to it.")]
Due = Annotated[date, Field(description="The last day to do it, ISO 8601, as in 2026-12-31.")]
Which = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    Field(description="The task's id, or its whole title as list_tasks gives it."),
]
Limit = Annotated[int, Field(ge=1, le=100, description="How many, at most.")]
Cursor = Annotated[str | None, Field(max_length=100, description="`next_cursor` of the page before.")]


TASK = """\
**{{ title }}**{% if due %}, by {{ due | date }}{% endif %}{% if status == "done" %} (done){% endif %}
{% if description %}

{{ description }}
{% endif %}
"""
TASKS = """
{% for task in items %}
- **{{ task.title }}**{% if task.due %}, by {{ task.due | date }}{% endif %}{% if task.status == "done" %} (done){% endif %}
{% else %}
There is nothing on this list.
{% endfor %}
{% if next_cursor %}

There are more.
{% endif %}
"""
"""How tasks read."""


class TaskView(BaseModel):
    """A task of the caller's."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    title: str
    description: str
    due: date | None
    status: Status
    created_at: datetime
    updated_at: datetime


class Tasks(BaseModel):
    """Tasks, open ones first, each newest first; `next_cursor` is null on the last page."""

    model_config = ConfigDict(from_attributes=True)

    items: list[TaskView]
    next_cursor: str | None


class DeletedTask(BaseModel):
    """The task that was deleted."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    title: str


@tool(
    scope="tasks:write",
    effect="stored",
    phrases=(
        "add {title} to my [to-do|todo|task] list",
        "add {title} to my tasks",
        "add [a|the] [new] task [to] {title}",
        "add [a|the] [new] task [to] {title} to my [to-do|todo|task] list",
        "put {title} on my [to-do|todo|task] list",
        "create [a] [new] task [to] {title}",
        "create [a] [new] task [to] {title} by {due}",
        "new task {title}",
        "remind me to {title}",
        "remind me to {title} on {due}",
        "remind me to {title} by {due}",
        "note that i [need|have] to {title}",
    ),
    result=f"On your list: {TASK}",
)
async def create_task(
    context: ToolContext, title: Title, description: Description = "", due: Due | None = None
) -> TaskView:
    """Add a task to the caller's to-do list."""
    row = await context.repository(TaskRepository).add(Task(title=title, description=description, due=due))
    return TaskView.model_validate(row)


@tool(
    scope="tasks:read",
    effect="read",
    phrases=(
        "show [me] my [{status}] [to-do|todo] tasks",
        "show [me] {status} [of] my [to-do|todo] tasks",
        "show [me] all [of] my {status} [to-do|todo] tasks",
        "show [me] my [to-do|todo|task] list",
        "list my [{status}] [to-do|todo] tasks",
        "list {status} [of] my [to-do|todo] tasks",
        "list all [of] my {status} [to-do|todo] tasks",
        "what is on my [to-do|todo|task] list",
        "what's on my [to-do|todo|task] list",
        "what are my [{status}] tasks",
        "which [{status}] tasks do i [still] have",
        "what [{status}] tasks do i [still] have",
        "what do i [still] have to do",
    ),
    result=TASKS,
)
async def list_tasks(
    context: ToolContext,
    status: Annotated[Literal["open", "done", "all"], Field(description="Which tasks to list.")] = "open",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Tasks:
    """List the caller's tasks, newest first: those that are open, unless `status` says otherwise."""
    page = await context.repository(TaskRepository).listed(None if status == "all" else status, limit, cursor)
    return Tasks.model_validate(page)


@tool(scope="tasks:read", effect="read", phrases=("show [me] [the|my] task {task}",), result=TASK)
async def get_task(context: ToolContext, task: Which) -> TaskView:
    """Read one of the caller's tasks."""
    return TaskView.model_validate(await context.repository(TaskRepository).named(task))


@tool(
    scope="tasks:write",
    effect="stored",
    phrases=(
        "rename [the|my] task {task} to {title}",
        "rename {task} to {title}",
        "move [the|my] [task] {task} to {due}",
        "move the due date of [the|my] [task] {task} to {due}",
    ),
    result=f"Changed: {TASK}",
)
async def update_task(
    context: ToolContext,
    task: Which,
    title: Title | None = None,
    description: Description | None = None,
    due: Due | None = None,
    clear_due: Annotated[bool, Field(description="True takes the due date away.")] = False,
    status: Annotated[Status | None, Field(description="`open` takes up a task again that was done.")] = None,
) -> TaskView:
    """Change one of the caller's tasks; what is not given stays. An empty description takes the description away."""
    if due is not None and clear_due:
        raise InvalidInput("due: give a date or clear_due, not both")
    changes = {"title": title, "description": description, "due": due, "status": status}
    given: dict[str, object] = {name: value for name, value in changes.items() if value is not None}
    if clear_due:
        given["due"] = None
    if not given:
        raise InvalidInput("There is nothing to change; give a title, description, due, clear_due or status")
    row = await context.repository(TaskRepository).named(task, lock=True)
    for name, value in given.items():
        setattr(row, name, value)
    await context.session.flush()
    return TaskView.model_validate(row)


@tool(
    scope="tasks:write",
    effect="stored",
    phrases=(
        "mark [the|my] [task] {task} as done",
        "mark [the|my] [task] {task} as completed",
        "mark [the|my] [task] {task} as finished",
        "complete [the|my] [task] {task}",
        "finish [the|my] task {task}",
        "tick off [the|my] [task] {task}",
        "tick {task} off",
        "i have done {task}",
        "i've done {task}",
        "i have finished {task}",
        "i've finished {task}",
        "[the|my] [task] {task} is done",
    ),
    result="Done: **{{ title }}**",
)
async def complete_task(context: ToolContext, task: Which) -> TaskView:
    """Mark one of the caller's tasks as done. A task that is done already stays so."""
    row = await context.repository(TaskRepository).named(task, lock=True, open_first=True)
    row.status = "done"
    await context.session.flush()
    return TaskView.model_validate(row)


async def _task_lost(context: ToolContext, task: Which) -> list[Loss]:
    row = await context.repository(TaskRepository).named(task, lock=True)
    return [Loss(row.id, row.title)]


@tool(
    scope="tasks:write",
    effect="stored",
    destructive=True,
    losses=_task_lost,
    phrases=(
        "delete [the|my] task {task}",
        "remove [the|my] task {task}",
        "delete [the|my] [task] {task} from my [to-do|todo|task] list",
        "remove [the|my] [task] {task} from my [to-do|todo|task] list",
    ),
    result="Deleted: **{{ title }}**",
)
async def delete_task(context: ToolContext, task: Which) -> DeletedTask:
    """Delete one of the caller's tasks for good. A task that was carried out is completed instead."""
    tasks = context.repository(TaskRepository)
    row = await tasks.named(task, lock=True)
    await tasks.remove(row)
    return DeletedTask.model_validate(row)
