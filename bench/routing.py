"""How well messages find their agent: leave-one-out over the prompts' examples, and tests/routing_messages.yaml.

python -m bench.routing [--all]      --all prints every message, not only the wrong ones
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.routing import RoutedAgent, build_router, subjects

ROOT = Path(__file__).parent.parent


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


def report(name: str, rows: Sequence[tuple[str, str | None, Any]], *, everything: bool) -> None:
    inside = [(message, agent, decision) for message, agent, decision in rows if agent is not None]
    sure = [(agent, decision) for _, agent, decision in inside if decision.decided_by == "meaning"]
    right = sum(agent == decision.ranked[0].name for _, agent, decision in inside)
    right_when_sure = sum(agent == decision.agent for agent, decision in sure)
    print(f"{name}: top-1 {right / len(inside):.1%} of {len(inside)}", end="; ")
    print(f"sure on {len(sure) / len(inside):.1%}, right when sure {right_when_sure / max(len(sure), 1):.1%}", end="")
    outside = [(message, decision) for message, agent, decision in rows if agent is None]
    wrongly = [decision.decided_by == "meaning" for _, decision in outside]
    print(f"; out of scope and sure {sum(wrongly)} of {len(wrongly)}" if outside else "")
    for message, agent, decision in rows:
        wrong = decision.ranked[0].name != agent if agent else decision.decided_by == "meaning"
        if everything or wrong:
            best = decision.ranked[0]
            print(f"  {best.confidence:.2f} {decision.decided_by:8} {best.name:14} {agent or '-':14} {message}")


async def measure() -> None:
    everything = "--all" in sys.argv
    embedder, agents, content = WordLlama(), load_agents(), subjects(ROOT / "content")
    started = time.perf_counter()
    router = await build_router(embedder, agents, content)
    print(f"built in {time.perf_counter() - started:.2f} s: {len(agents)} agents, {len(content)} sections")
    rows: list[tuple[str, str | None, Any]] = []
    for place, agent in enumerate(agents):
        for example in agent.examples:  # a router that has never seen the example, calibration included
            kept = replace(agent, examples=[e for e in agent.examples if e != example])
            without = await build_router(embedder, [*agents[:place], kept, *agents[place + 1 :]], content)
            rows.append((example, agent.name, await without.decide(example, None)))
    report("leave-one-out", rows, everything=everything)
    held_out = yaml.safe_load((ROOT / "tests" / "routing_messages.yaml").read_text())
    started = time.perf_counter()
    rows = [(m["message"], m["agent"], await router.decide(m["message"], None)) for m in held_out]
    seconds = (time.perf_counter() - started) / len(rows)
    report("held out", rows, everything=everything)
    print(f"{seconds * 1000:.2f} ms a message")


if __name__ == "__main__":
    asyncio.run(measure())
