"""Stored turns once more, with what their tools returned then: nothing is called, nothing is written where they are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.text import Text

from agent_server.caller import Caller
from agent_server.conversations.models import Conversation, Item
from agent_server.db import new_id
from agent_server.evals.ask import Reply, ask
from agent_server.evals.difference import diff_words, list_changed, reply_json, tell_changed
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
        return list_changed(self.before, self.now)


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
    changed = bool(difference.changed)
    shown = Text()
    shown.append(f"{difference.stored.turn.id}  ", "dim")
    shown.append(f"{difference.stored.message!r}  ", "bold")
    shown.append("differs\n" if changed else "same\n", "yellow" if changed else "green")
    return shown.append_text(tell_changed(difference.before, difference.now, difference.calls))


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
