"""agent-server route"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import typer
import yaml

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import say, show
from agent_server.knowledge.embedders import open_embedder
from agent_server.offline.small_talk import choose_agent, read_message
from agent_server.routing import Decision, Ranked, Router
from agent_server.routing.report import OUT_OF_SCOPE, describe_report, report_routing
from agent_server.routing.workspaces import create_router
from agent_server.workspace import Workspace


async def route(context: CommandContext, message: str | None, stdin: bool, as_json: bool) -> None:
    if (message is None) == (not stdin):
        raise typer.BadParameter("Give one MESSAGE, or --stdin with a message per line")
    said = [(message, None)] if message is not None else list(_read(sys.stdin.read()))
    known = {*context.workspace.agents, OUT_OF_SCOPE}
    if unknown := {label for _, label in said if label is not None} - known:
        raise typer.BadParameter(
            f"No agent is called {', '.join(sorted(unknown))}. "
            f"A label is an agent's name ({', '.join(sorted(context.workspace.agents))}), or - for a message of nobody"
        )
    router = await create_router(context.workspace, open_embedder(context.settings))
    rows = []
    for text, label in said:
        decision = await _decide(context.workspace, router, text)
        confidence = round(decision.confidence, 4)
        if label is not None:
            rows.append((text, None if label == OUT_OF_SCOPE else label, decision))
        if as_json:
            agent = {"agent": decision.agent, "confidence": confidence, "decided_by": decision.decided_by}
            show({"message": text} | agent | ({"expected": label} if label is not None else {}))
        else:
            mark = "" if label in (None, decision.agent, OUT_OF_SCOPE) else f"  (not {label})"
            say(f"{decision.agent:<16} {confidence:.2f}  {decision.decided_by:<8} {text}{mark}")
    if rows and as_json:
        show({"report": asdict(report_routing(rows))})
    elif rows:
        say(describe_report(report_routing(rows)))


async def _decide(workspace: Workspace, router: Router, message: str) -> Decision:
    """Who takes the first message of a conversation, as in a turn."""
    said = read_message(message)
    if agent := choose_agent(said.small_talk, workspace.entry, None):
        return Decision(agent, 1.0, "meaning", [Ranked(agent, 1.0)])
    return await router.decide(said.question, None)


def _read(text: str) -> Iterator[tuple[str, str | None]]:
    """Messages with their labels: a YAML list of `message` and `agent`, or a message per line with a tab and a label."""
    if (entries := _find_entries(text)) is not None:
        for entry in entries:
            yield str(entry["message"]), str(entry.get("agent") or OUT_OF_SCOPE)
        return
    for line in filter(str.strip, text.splitlines()):
        message, tab, label = line.rpartition("\t")
        yield (message.strip(), label.strip() or OUT_OF_SCOPE) if tab else (line.strip(), None)


def _find_entries(text: str) -> Sequence[dict[str, Any]] | None:
    # Before YAML reads a long list of plain messages, most of which are valid YAML too.
    if not any(line.startswith("- ") and "message:" in line for line in text.splitlines()):
        return None
    try:
        entries = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    whole = isinstance(entries, list) and all(isinstance(entry, dict) and "message" in entry for entry in entries)
    return entries if whole else None
