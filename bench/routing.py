"""How well messages find their agent.

python -m bench.routing [--wrong]      --wrong prints each message that would go to another agent

Measured: tests/routing_messages.yaml with the reference workspace; the sets in bench/routing_sets, each with 15 examples
of each agent; and conversations, which are follow-ups (bench/routing_sets/follow_ups.yaml, left: taken from their agent)
and changes of subject (a message of the sets after an answer of another agent, held: kept by the agent before).
"""

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.routing import Decision, RoutedAgent, Router, build_router, subjects
from agent_server.routing.report import RoutingReport, describe_report, report_routing

ROOT = Path(__file__).parent.parent
SETS = Path(__file__).parent / "routing_sets"
_KNOWS_EVERYTHING = "household"
"""The set with an agent for general knowledge, to which the messages for nobody belong."""


@dataclass(frozen=True)
class LabelledSet:
    """Agents with messages and whom each is for, None where it is for nobody."""

    name: str
    agents: Sequence[RoutedAgent]
    messages: Sequence[tuple[str, str | None]]


def load_sets() -> Iterator[LabelledSet]:
    anywhere = [(str(message), None) for message in _read("anywhere")]
    for path in sorted(SETS.glob("*.yaml")):
        if path.stem in ("anywhere", "follow_ups"):
            continue
        content = _read(path.stem)
        agents = [
            RoutedAgent(name, agent["description"], agent["examples"].splitlines())
            for name, agent in content["agents"].items()
        ]
        messages = [(m, name) for name, agent in content["agents"].items() for m in agent["messages"].splitlines()]
        nobody = [(message, None) for message in content["out_of_scope"].splitlines()]
        yield LabelledSet(
            path.stem, agents, [*messages, *nobody, *(() if path.stem == _KNOWS_EVERYTHING else anywhere)]
        )


def _read(name: str) -> Any:
    return yaml.safe_load((SETS / f"{name}.yaml").read_text())


def load_agents() -> list[RoutedAgent]:
    """The specialists of the reference workspace, with their tools where these import."""
    tools, agents = load_tools(), []
    for path in sorted((ROOT / "prompts").glob("*.md")):
        front = yaml.safe_load(path.read_text().split("---")[1])
        if front["name"] != "triage":
            own = [tools[name] for name in front["tools"] if name in tools]
            agents.append(RoutedAgent(front["name"], front["description"], front["examples"], front["knowledge"], own))
    return agents


def load_tools() -> dict[str, Any]:
    try:
        from agent_server.workspace import load_workspace  # noqa: PLC0415  # a broken tool must not stop the bench

        return dict(load_workspace(ROOT).tools)
    except Exception as error:  # noqa: BLE001
        print(f"without tools: {str(error)[:200]}", file=sys.stderr)
        return {}


async def measure_messages(router: Router, messages: Sequence[tuple[str, str | None]]) -> tuple[RoutingReport, float]:
    """The figures, and the milliseconds of processor time that a message takes."""
    await router.decide(messages[0][0], None)
    started = time.process_time()
    rows: list[tuple[str, str | None, Decision]] = [(m, agent, await router.decide(m, None)) for m, agent in messages]
    return report_routing(rows), (time.process_time() - started) / len(rows) * 1000


async def measure_conversations(
    router: Router, labelled: LabelledSet, follow_ups: dict[str, list[str]]
) -> tuple[int, int, int, int]:
    """Follow-ups, those taken from their agent; changes of subject, those kept by the agent before."""
    stays = [(m, agent, await router.decide(m, agent)) for agent, said in follow_ups.items() for m in said]
    names = [agent.name for agent in labelled.agents]
    changes = []
    for place, (message, agent) in enumerate(labelled.messages):
        if agent is None:
            continue
        before = [name for name in names if name != agent][place % (len(names) - 1)]
        changes.append((before, await router.decide(message, before)))
    left = [(m, agent, d.agent) for m, agent, d in stays if d.decided_by == "meaning" and d.agent != agent]
    left += [(m, agent, d.agent) for m, agent, d in stays if d.decided_by == "model"]
    if "--wrong" in sys.argv:
        print(*(f"  left {agent} for {other}: {m}" for m, agent, other in left), sep="\n")
    return len(stays), len(left), len(changes), sum(d.agent == before for before, d in changes)


def show(name: str, report: RoutingReport, milliseconds: float) -> None:
    print(f"{name}: {describe_report(report)}; {milliseconds:.2f} ms of processor time a message")
    if "--wrong" in sys.argv:
        print(*(f"  {agent} would be {other}: {message}" for message, agent, other in report.wrong), sep="\n")


async def measure() -> None:
    embedder = WordLlama()
    router = await build_router(embedder, load_agents(), subjects(ROOT / "content"))
    held_out = yaml.safe_load((ROOT / "tests" / "routing_messages.yaml").read_text())
    show("reference", *await measure_messages(router, [(m["message"], m["agent"]) for m in held_out]))
    follow_ups, reports = _read("follow_ups"), []
    for labelled in load_sets():
        router = await build_router(embedder, labelled.agents)
        report, milliseconds = await measure_messages(router, labelled.messages)
        show(labelled.name, report, milliseconds)
        reports.append(report)
        stays, left, changes, held = await measure_conversations(router, labelled, follow_ups[labelled.name])
        print(f"  {left} of {stays} follow-ups left their agent, {held} of {changes} changes of subject were held")
    for figure in ("accuracy", "coverage_95", "coverage_98", "sure", "precision", "sure_out_of_scope"):
        print(f"mean {figure}: {sum(getattr(r, figure) or 0 for r in reports) / len(reports):.3f}")


if __name__ == "__main__":
    asyncio.run(measure())
