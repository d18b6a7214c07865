"""agent-server eval replay and eval add"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import typer
import yaml
from rich.console import Console

from agent_server.caller import Caller
from agent_server.commands.context import CommandContext
from agent_server.commands.dates import read_since
from agent_server.commands.evals import answers_mistakes
from agent_server.commands.terminal import say, show
from agent_server.db import Database
from agent_server.errors import InvalidInput
from agent_server.evals.adding import make_case, word_rating
from agent_server.evals.cases import FOLDER, append_case
from agent_server.evals.edited import read_edited
from agent_server.evals.expect import declines
from agent_server.evals.prepared import scratch_database
from agent_server.evals.recordings import Recordings
from agent_server.evals.replay import difference_json, replay, tell_difference
from agent_server.evals.run import Variant, run_variant
from agent_server.evals.stored import StoredTurn, read_conversation, read_turn, read_turn_of, read_turns_since
from agent_server.feedback.models import READ_SCOPE, Feedback
from agent_server.feedback.repository import FeedbackRepository
from agent_server.models.choice import OFFLINE, choose_model, find_problem_of_name, full_name
from agent_server.wording import count

DECLINED_DAYS = 30
"""How far back questions are looked for that nothing was known about."""


@answers_mistakes
async def replay_turns(
    context: CommandContext,
    conversation: str | None,
    since: str | None,
    prompt: Path | None,
    model: str | None,
    as_json: bool,
) -> int:
    if (conversation is None) == (since is None):
        raise typer.BadParameter("give one of --conversation ID and --since DATE, as in --since 2026-11-01")
    workspace, settings = context.workspace, context.settings
    if prompt is not None:
        workspace = workspace.with_prompt(read_edited(prompt, workspace))
    if model is not None and model != OFFLINE and (problem := find_problem_of_name(model, settings)):
        raise InvalidInput(f"--model: {problem}")
    chosen = choose_model(settings).name if model is None else full_name(model, settings)
    database, caller = await context.database(), await context.caller()
    stored = (
        await read_conversation(database, _id(conversation, "--conversation"), caller)
        if conversation is not None
        else await read_turns_since(database, read_since(since or ""), caller)
    )
    console, differ = Console(), 0
    variant = Variant(model=chosen, workspace=workspace, only=model is not None)
    async with (
        scratch_database(settings, workspace, database) as scratch,
        run_variant(settings, variant, scratch, Recordings(workspace.root, "off")) as runner,
    ):
        for turn in stored:
            difference = await replay(runner, turn)
            differ += bool(difference.changed)
            if as_json:
                show(difference_json(difference))
            else:
                console.print(tell_difference(difference), soft_wrap=True, end="")
    if not as_json:
        say(f"{differ} of {count(len(stored), 'turn')} {'differs' if differ == 1 else 'differ'}")
    return 0


@answers_mistakes
async def add(
    context: CommandContext,
    turn: str | None,
    conversation: str | None,
    feedback: str | None,
    declined: bool,
    since: str | None,
    to: Path | None,
    profile: bool,
) -> int:
    if sum((turn is not None, conversation is not None, feedback is not None, declined)) != 1:
        raise typer.BadParameter("give one of --turn ID, --conversation ID, --feedback ID and --declined")
    workspace = context.workspace
    file = to or workspace.root / FOLDER / "added.yaml"
    database, caller = await context.database(), await context.caller()
    stored: list[StoredTurn]
    rated: Feedback | None = None
    if feedback is not None:
        rated = await _read_feedback(database, _id(feedback, "--feedback", "feedback list"), caller)
        stored = [await read_turn_of(database, rated.owner_id, rated.turn_id)]
    elif turn is not None:
        stored = [await read_turn(database, _id(turn, "--turn"), caller)]
    elif conversation is not None:
        # The last turn has all messages before it.
        stored = list(await read_conversation(database, _id(conversation, "--conversation"), caller))[-1:]
    else:
        begin = read_since(since) if since else datetime.now(UTC) - timedelta(days=DECLINED_DAYS)
        stored = [one for one in await read_turns_since(database, begin, caller) if declines(one.reply)]
    there = _read_there(file)
    known = [inputs for _, inputs in there]
    added = 0
    for one in stored:
        names = [name for name, _ in there]
        is_bad = rated is not None and rated.rating == "bad"
        want_answer = declined or (is_bad and declines(one.reply))
        case = make_case(one, workspace, names, with_profile=profile, want_answer=want_answer)
        if rated is not None:
            case["metadata"] |= word_rating(rated)
        if declined and case["inputs"] in known:
            continue
        append_case(file, case, comment=f"turn {one.turn.id}")
        there.append((case["name"], case["inputs"]))
        known.append(case["inputs"])
        added += 1
        say(f"{file}: {case['name']}")
    if not added:
        say("There is nothing to add.")
    return 0


def _read_there(file: Path) -> list[tuple[str, object]]:
    """Name and messages of the cases in a file."""
    if not file.exists():
        return []
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InvalidInput(f"{file}: is not YAML; correct it first") from error
    cases = read.get("cases") if isinstance(read, dict) else None
    return [(str(one.get("name")), one.get("inputs")) for one in cases or () if isinstance(one, dict)]


async def _read_feedback(database: Database, id: UUID, caller: Caller) -> Feedback:
    """What somebody gave. Raises NotFound."""
    async with database.transaction(caller.id, scopes=[READ_SCOPE]) as session:
        return await FeedbackRepository(session, caller).get_of_any_caller(id)


def _id(given: str, option: str, prints: str = "chat --json") -> UUID:
    try:
        return UUID(given)
    except ValueError:
        raise typer.BadParameter(f"{option}: {given!r} is no id; `agent-server {prints}` prints them") from None
