"""Two answers to one message: what of them is another, for people and as data."""

import difflib
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from agent_server.evals.answer import ToolCall
from agent_server.evals.ask import Reply


def list_changed(before: Reply, now: Reply) -> Sequence[str]:
    """What of the answer is another: failure, agent, calls, text, citations."""
    pairs = {
        "failure": (before.failure, now.failure),
        "agent": (before.answer.agent, now.answer.agent),
        "calls": (_calls(before.answer.calls), _calls(now.answer.calls)),
        "text": (before.answer.text, now.answer.text),
        "citations": (_cited(before), _cited(now)),
    }
    return [name for name, (one, other) in pairs.items() if one != other]


def tell_changed(before: Reply, now: Reply, calls: Sequence[str] = ()) -> Text:
    """What differs, a line each. `calls` are remarks on the calls of tools."""
    changed, shown = list_changed(before, now), Text()
    if "failure" in changed:
        shown.append(f"  failure: {before.failure} -> {now.failure}\n")
    if "agent" in changed:
        shown.append(f"  agent: {before.answer.agent} -> {now.answer.agent}\n")
    if "calls" in changed:
        shown.append("  calls: ").append_text(_diff(_calls(before.answer.calls), _calls(now.answer.calls), ", "))
        shown.append("\n")
    for one in calls:
        shown.append(f"    {one}\n", "yellow")
    if "text" in changed:
        shown.append("  text: ").append_text(diff_words(before.answer.text, now.answer.text)).append("\n")
    if "citations" in changed:
        shown.append("  citations: ").append_text(_diff(_cited(before), _cited(now), ", ")).append("\n")
    if before.tokens != now.tokens:
        shown.append(f"  tokens: {before.tokens} -> {now.tokens}\n", "dim")
    return shown


def reply_json(reply: Reply) -> dict[str, Any]:
    """An answer as JSON-ready data."""
    return {
        "message": reply.message,
        "agent": reply.answer.agent,
        "agents": reply.agents,
        "text": reply.answer.text,
        "calls": [{"tool": call.name, "arguments": call.arguments, "error": call.error} for call in reply.answer.calls],
        "citations": _cited(reply),
        "tokens": reply.tokens,
        "seconds": round(reply.seconds, 3),
        "failure": reply.failure,
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


def _cited(reply: Reply) -> list[str]:
    return [citation.document for citation in reply.answer.citations]
