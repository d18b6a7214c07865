"""What a turn costs with a model: the tokens of its requests and answers, and their price.

    python -m bench.tokens

The agents of the reference workspace are asked, with a scripted model in the place of a provider's, whose requests are
what a provider would have got. Tokens are counted as OpenAI's models count them, by litellm with the vocabulary that it
brings along. Prices are those of the table in the installed litellm.
"""

import asyncio
import importlib.metadata
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from agent_server.log import configure_logging
from agent_server.testing import Call, Say, ScriptedOpenAI, run_agent_server, stock
from agent_server.testing.scripted import Step
from agent_server.workspace import load_workspace
from bench.postgres import fresh_database
from bench.table import print_table

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network for another table

ROOT = Path(__file__).parent.parent
COUNTED_AS = "gpt-5.4-mini"
MODELS = (
    "openai/gpt-5.4-mini",
    "gemini/gemini-flash-latest",
    "groq/openai/gpt-oss-120b",
    "anthropic/claude-haiku-5-5",
    "mistral/mistral-small-latest",
)
ANSWER = (
    "After a single dive without decompression stops, wait at least 12 hours before you fly [1]. After several dives in "
    "a day, or after several days of diving, wait at least 18 hours [1]. After a dive that needed decompression stops, "
    "wait clearly longer than 18 hours, and 24 hours is what most agencies advise [2]. Count from the moment at which you "
    "surface from the last dive, and let your dive computer have the last word where it asks for more. The same holds for "
    "driving over a high mountain pass, since what matters is the pressure of the air around you. If anything feels wrong "
    "after a dive, do not fly at all, and call the emergency line of your region first."
)
"""Of 120 words: what a model writes to a question of this kind."""
HISTORY = 5


@dataclass(frozen=True)
class Kind:
    """A kind of turn: what the user says, and what the model does at each call."""

    name: str
    message: str
    script: Sequence[Step]
    agent: str | None = None
    earlier: int = 0


KINDS = (
    Kind(
        "small talk",
        "Hello, who are you?",
        [Say("Hello! I answer questions about diving and keep your list.")],
        "triage",
    ),
    Kind("question, answered from passages", "How long do I wait before flying?", [Say(ANSWER)], "safety"),
    Kind("the same, as the sixth turn", "How long do I wait before flying?", [Say(ANSWER)], "safety", HISTORY),
    Kind(
        "one tool",
        "Add 'Service the regulator' to my list",
        [Call("create_task", {"title": "Service the regulator"}), Say("I put 'Service the regulator' on your list.")],
        "tasks",
    ),
    Kind(
        "hand-off, then an answer",
        "How long do I wait before flying?",
        [Call("transfer_to_safety", {}), Say(ANSWER)],
        "triage",
    ),
)


@dataclass(frozen=True)
class Cost:
    """The model calls of a turn, the tokens that they were sent and those that they answered with."""

    calls: int
    sent: int
    answered: int


async def measure(url: str) -> dict[str, Cost]:
    """The cost of a turn of each kind, on the stocked database at `url`."""
    costs = {}
    for kind in KINDS:
        model = ScriptedOpenAI([Say(ANSWER)] * kind.earlier + list(kind.script))
        async with run_agent_server(load_workspace(ROOT), url, model=model) as server:
            user, conversation = server.as_caller("*"), None
            for _ in range(kind.earlier):
                earlier = await user.chat(kind.message, conversation=conversation, agent=kind.agent)
                conversation = earlier.conversation
            answer = await user.chat(kind.message, conversation=conversation, agent=kind.agent)
        assert all(call.error is None for call in answer.calls)
        requests = model.requests[kind.earlier :]
        assert len(requests) == len(kind.script), f"{kind.name}: {len(requests)} calls"
        costs[kind.name] = Cost(len(requests), sum(map(_sent, requests)), sum(map(_answered, kind.script)))
    return costs


def _count(**what: Any) -> int:
    litellm: Any = import_module("litellm")  # only now: it takes long, and `ANSWER` is read without it
    return int(litellm.token_counter(model=COUNTED_AS, **what))


def _sent(request: dict[str, Any]) -> int:
    return _count(messages=request["messages"], tools=request.get("tools"))


def _answered(step: Step) -> int:
    return _count(text=step.text if isinstance(step, Say) else json.dumps(vars(step)))


def price_per_thousand(model: str, cost: Cost, table: dict[str, Any]) -> float:
    """US dollars for 1,000 turns of this cost."""
    prices = table.get(model) or table[model.partition("/")[2]]
    return float(1000 * (cost.sent * prices["input_cost_per_token"] + cost.answered * prices["output_cost_per_token"]))


def main() -> None:
    configure_logging("ERROR", "console")
    with fresh_database() as url:
        asyncio.run(stock(load_workspace(ROOT), url))
        costs = asyncio.run(measure(url))
    rows = [(name, cost.calls, f"{cost.sent:,}", f"{cost.answered:,}") for name, cost in costs.items()]
    print_table("Tokens of a turn", ["turn", "model calls", "tokens sent", "tokens answered"], rows)
    import litellm  # noqa: PLC0415

    prices = [
        (f"`{model}`", *(f"{price_per_thousand(model, cost, litellm.model_cost):.2f}" for cost in costs.values()))
        for model in MODELS
    ]
    version = importlib.metadata.version("litellm")
    print_table(f"US dollars for 1,000 turns, by litellm {version}", ["model", *costs], prices)


if __name__ == "__main__":
    main()
