"""run(): one attempt of a turn, from the stored message to the last item."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from agents import Agent, RunConfig, Runner
from agents.exceptions import AgentsException, MaxTurnsExceeded
from agents.result import RunResultStreaming

from agent_server.calls.call import Interrupted, Runtime
from agent_server.conversations.history import history
from agent_server.conversations.items import assistant_message, user_message
from agent_server.conversations.models import Conversation, Item
from agent_server.conversations.repository import ConversationRepository, ItemRepository
from agent_server.errors import AgentServerError, ModelFailed
from agent_server.identity.models import Profile
from agent_server.knowledge.embedders.wordllama import Embedder
from agent_server.knowledge.search import Passage, find_urgent
from agent_server.models.providers import ModelChoice, Models
from agent_server.orchestrator.agents import compile_agents
from agent_server.orchestrator.context import TurnContext, passage_body
from agent_server.orchestrator.replay import JournaledModels, unknown_tool
from agent_server.prompts import AgentPrompt
from agent_server.routing import Decision, Ranked, RoutedAgent, Router, subjects
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.events import AgentChosen, Cited, Event, PassagesFound, TextDelta, TextDone
from agent_server.workspace import Workspace

URGENT_CALL = 0
"""The model call number of the emergency answer, which no model makes."""
SHORT_MESSAGE_WORDS = 6


@dataclass
class Orchestrator:
    """Agents, router and models of one process; `run` is what the runner is given."""

    runtime: Runtime
    workspace: Workspace
    models: Models
    default: ModelChoice
    embedder: Embedder

    def __post_init__(self) -> None:
        self.agents: dict[str, Agent[TurnContext]] = compile_agents(self.workspace, self.embedder)

    @cached_property
    def router(self) -> Router:
        """Made when it is first needed, which takes a second or more (`Server.prepare`)."""
        return create_router(self.workspace, self.embedder)

    async def run(self, attempt: Attempt) -> Outcome:
        """Run the attempt to its end. What is promised to the user goes through the attempt's writer."""
        turn, earlier, urgent = await self._context(attempt)
        if urgent is not None and turn.urgent is None:
            await self._answer_emergency(turn, urgent)
        entry = turn.decision.agent if turn.decision.decided_by != "model" else self.workspace.entry
        messages: list[Any] = [*history(earlier), user_message(attempt.message).body]
        result = Runner.run_streamed(
            self.agents[entry],
            messages,
            context=turn,
            max_turns=self.runtime.settings.model_calls_per_turn,
            run_config=RunConfig(
                model_provider=JournaledModels(turn, self.models, self.default, self.embedder),
                tracing_disabled=True,
                tool_not_found_behavior="return_error_to_model",
                tool_error_formatter=lambda error: unknown_tool(error.tool_name),
            ),
        )
        try:
            await _drain(result)
        finally:
            # The run loop leaves its tools behind when it is cancelled; what they did is on record before the turn ends.
            for task in turn.tool_calls:
                task.cancel()
            if turn.tool_calls:
                await asyncio.wait(turn.tool_calls)
        usage = result.context_wrapper.usage
        return Outcome(
            agent=result.last_agent.name,
            usage={
                "model": turn.model,
                "requests": usage.requests,
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "total_tokens": usage.total_tokens,
            },
        )

    async def _context(self, attempt: Attempt) -> tuple[TurnContext, Sequence[Item], Passage | None]:
        """What the attempt starts from: its state, the items of earlier turns, the page for an emergency."""
        writer = attempt.writer
        async with self.runtime.database.transaction(attempt.caller.id) as session:
            conversations = ConversationRepository(session, attempt.caller)
            conversation = await conversations.get(writer.conversation_id)
            items = await ItemRepository(conversations, conversation.id).list_latest(
                self.runtime.settings.history_limit
            )
            profile = await session.get(Profile, attempt.caller.id)
            urgent = await find_urgent(session, attempt.message)
        earlier = [item for item in items if item.turn_no < writer.turn_no]
        turn = TurnContext(
            attempt=attempt,
            runtime=self.runtime,
            workspace=self.workspace,
            decision=self._decide(attempt, conversation),
            query=_query(attempt.message, earlier),
            profile=profile.body if profile else {},
            journaled={},
            announced=None,
            urgent=None,
            ends=time.monotonic() + self.runtime.settings.turn_timeout,
        )
        _restore(turn)
        return turn, earlier, urgent

    def _decide(self, attempt: Attempt, conversation: Conversation) -> Decision:
        if attempt.agent is not None:
            return Decision(attempt.agent, 1.0, "request", [Ranked(attempt.agent, 1.0)])
        last = conversation.agent if conversation.agent in self.workspace.agents else None
        return self.router.decide(attempt.message, last)

    def _responsible_for(self, collection: str) -> AgentPrompt | None:
        """The agent that answers from a collection first of all, or at all."""
        agents = self.workspace.agents.values()
        return next(
            (a for a in agents if a.knowledge and a.knowledge[0] == collection),
            next((a for a in agents if collection in (a.knowledge or ())), None),
        )

    async def _answer_emergency(self, turn: TurnContext, passage: Passage) -> None:
        """A message that describes an emergency gets the page written for it first, whatever a model says after."""
        (cited,) = turn.number([passage])
        turn.urgent = passage.text
        text = f"{passage.text.strip()} [{cited.n}]\n\n"
        prompt = self._responsible_for(passage.collection)
        events: tuple[Event, ...] = (
            *([AgentChosen(prompt.name, "meaning", 1.0)] if prompt else []),
            PassagesFound([passage_body(cited)], None),
            Cited(cited.n),
            TextDelta(URGENT_CALL, text),
            TextDone(URGENT_CALL),
        )
        item = assistant_message(
            text,
            agent=prompt.name if prompt else None,
            prompt_sha=prompt.sha if prompt else None,
            sources=[passage_body(cited)],
        )
        await turn.attempt.writer.append(*events, items=[item])


def create_router(workspace: Workspace, embedder: Embedder) -> Router:
    """The router over the workspace's specialists."""
    agents = [
        RoutedAgent(a.name, a.description, a.examples, a.knowledge, [workspace.tools[name] for name in a.tools])
        for a in workspace.specialists
    ]
    return Router(embedder, agents, subjects(workspace.content) if len(agents) > 1 else ())


def _restore(turn: TurnContext) -> None:
    """Take up what earlier attempts left: their model responses, their passages, what they have shown."""
    earlier = turn.attempt.earlier
    turn.journaled = earlier.model_calls
    for event in earlier.events:
        match event:
            case PassagesFound() as found:
                turn.found(found)
            case AgentChosen(name=name):
                turn.announced = name
            case TextDelta(call=0, text=text):
                turn.urgent = text


async def _drain(result: RunResultStreaming) -> None:
    try:
        async for _ in result.stream_events():
            pass
    except MaxTurnsExceeded as error:
        raise ModelFailed("The model kept calling tools without coming to an answer") from error
    except AgentsException as error:
        if (ours := _ours(error)) is not None:
            raise ours from error
        raise ModelFailed("The model's answer could not be used") from error


def _ours(error: BaseException | None) -> Exception | None:
    """What was raised in a tool of ours: the run loop wraps it in an error of its own."""
    while error is not None:
        if isinstance(error, AgentServerError | Interrupted):
            return error
        error = error.__cause__
    return None


def _query(message: str, earlier: Sequence[Item]) -> str:
    """What to look up: the message; a short follow-up ("and in winter?") together with what it follows."""
    if len(message.split()) >= SHORT_MESSAGE_WORDS:
        return message
    said = [item.text for item in earlier if item.role == "user" and item.text]
    return f"{said[-1]} {message}" if said else message
