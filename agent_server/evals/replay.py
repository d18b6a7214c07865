"""Stored turns once more, with what their tools returned then: nothing is called, nothing is written where they are."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.text import Text

from agent_server.caller import Caller
from agent_server.conversations.models import Conversation, Item
from agent_server.db import new_id
from agent_server.evals.answer import ToolCall
from agent_server.evals.ask import Reply, ask
from agent_server.evals.report import reply_json
from agent_server.evals.run import CaseRunner
from agent_server.evals.stored import StoredTurn
from agent_server.evals.stubs import CallerStubs
from agent_server.identity.credentials import issue_guest
from agent_server.identity.profiles import update_profile


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A turn as it was and as it is now. `calls` are of tools that were called otherwise than before."""

    stored: StoredTurn
    now: Reply
    calls: Sequence[str]

    @property
    def before(self) -> Reply:
        return self.stored.reply

    @property
    def changed(self) -> Sequence[str]:
        """What of the answer is another: agent, calls, text, citations, failure."""
        pairs = {
            "failure": (self.before.failure, self.now.failure),
            "agent": (self.before.answer.agent, self.now.answer.agent),
            "calls": tuple(_calls(reply.answer.calls) for reply in (self.before, self.now)),
            "text": (self.before.answer.text, self.now.answer.text),
            "citations": tuple([c.document for c in reply.answer.citations] for reply in (self.before, self.now)),
        }
        return [name for name, (before, now) in pairs.items() if before != now]


async def replay(runner: CaseRunner, stored: StoredTurn) -> Difference:
    """Run a turn again from what it started from. Its tools return what the ledger has."""
    caller = replace(stored.caller, id=new_id(), key_id=None)
    conversation = await _restore(runner, stored, caller)
    stubs = runner.stubs.of[caller.id] = CallerStubs(stored.stubs, only=True)
    try:
        # It may be gone since.
        agent = stored.agent if stored.agent in runner.server.workspace.agents else None
        now = await ask(runner.server, caller, stored.message, conversation=conversation.id, agent=agent)
    finally:
        del runner.stubs.of[caller.id]
    return Difference(stored=stored, now=now, calls=stubs.differences)


async def _restore(runner: CaseRunner, stored: StoredTurn, caller: Caller) -> Conversation:
    """The conversation as it was before the turn, of a caller who may what its sender might."""
    conversation = Conversation(
        owner_id=caller.id,
        id=new_id(),
        title=stored.message[:60],
        next_turn=stored.turn.turn_no,
        agent=stored.answered_last,
        summary=stored.summary,
    )
    async with runner.server.database.transaction(caller.id) as session:
        if caller.kind == "guest":
            await issue_guest(session, caller.id, hours=1)
        if stored.profile:
            await update_profile(session, caller, stored.profile)
        session.add(conversation)
        await session.flush()
        for item in stored.earlier:
            values = item.model_dump(exclude={"owner_id", "conversation_id"})
            session.add(Item(owner_id=caller.id, conversation_id=conversation.id, **values))
    return conversation


def tell_difference(difference: Difference) -> Text:
    """A turn for people: what is the same is named, what differs is shown."""
    changed = difference.changed
    before, now = difference.before, difference.now
    shown = Text()
    shown.append(f"{difference.stored.turn.id}  ", "dim")
    shown.append(f"{difference.stored.message!r}  ", "bold")
    shown.append("differs\n" if changed else "same\n", "yellow" if changed else "green")
    if "failure" in changed:
        shown.append(f"  failure: {before.failure} -> {now.failure}\n")
    if "agent" in changed:
        shown.append(f"  agent: {before.answer.agent} -> {now.answer.agent}\n")
    if "calls" in changed:
        shown.append("  calls: ").append_text(_diff(_calls(before.answer.calls), _calls(now.answer.calls), ", "))
        shown.append("\n")
    for one in difference.calls:
        shown.append(f"    {one}\n", "yellow")
    if "text" in changed:
        shown.append("  text: ").append_text(diff_words(before.answer.text, now.answer.text)).append("\n")
    if "citations" in changed:
        cited = [[f"{c.document}" for c in reply.answer.citations] for reply in (before, now)]
        shown.append("  citations: ").append_text(_diff(cited[0], cited[1], ", ")).append("\n")
    if before.tokens != now.tokens:
        shown.append(f"  tokens: {before.tokens} -> {now.tokens}\n", "dim")
    return shown


def difference_json(difference: Difference) -> dict[str, Any]:
    """A turn as JSON-ready data. In `text_diff` [-this-] is gone and {+this+} is new."""
    return {
        "turn": str(difference.stored.turn.id),
        "conversation": str(difference.stored.turn.conversation_id),
        "message": difference.stored.message,
        "changed": list(difference.changed),
        "calls_differ": list(difference.calls),
        "before": reply_json(difference.before),
        "now": reply_json(difference.now),
        "text_diff": diff_words(difference.before.answer.text, difference.now.answer.text).plain,
    }


def diff_words(before: str, now: str) -> Text:
    """Both texts in one, by words: [-gone-], {+new+}."""
    return _diff(before.split(), now.split(), " ")


def _diff(before: Sequence[str], now: Sequence[str], between: str) -> Text:
    shown = Text()
    parts: list[tuple[str, str]] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(a=before, b=now, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append((between.join(before[a:b]), ""))
            continue
        if gone := between.join(before[a:b]):
            parts.append((f"[-{gone}-]", "red"))
        if new := between.join(now[c:d]):
            parts.append((f"{{+{new}+}}", "green"))
    for n, (text, style) in enumerate(parts):
        shown.append(between if n else "").append(text, style)
    return shown


def _calls(calls: Sequence[ToolCall]) -> list[str]:
    return [f"{call.name} {call.arguments}" for call in calls]
