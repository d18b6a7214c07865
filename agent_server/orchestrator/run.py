"""One attempt of a turn from the stored message to the last item."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from agents import Agent, RunConfig, Runner
from agents.exceptions import AgentsException, MaxTurnsExceeded
from agents.result import RunResultStreaming
from openai.types.responses import ResponseUsage

from agent_server.calls.call import Runtime
from agent_server.calls.grace import wait_through
from agent_server.calls.ledger import Interrupted
from agent_server.calls.refusals import unknown_tool
from agent_server.citing.checked import INVENTED
from agent_server.citing.citations import Citations, Past, find_last, read_past
from agent_server.conversations.history import SOURCES_OF_EARLIER_TURNS, Entry, history
from agent_server.conversations.items import assistant_message, user_message
from agent_server.errors import AgentServerError, ModelFailed
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.passages import Passage, passage_body
from agent_server.knowledge.search import find_urgent, list_collections, read_phrases
from agent_server.knowledge.tools import KNOWLEDGE
from agent_server.models.choice import OFFLINE, ModelChoice
from agent_server.models.providers import Models
from agent_server.offline.about import describe
from agent_server.offline.small_talk import ReadMessage, choose_agent, read_message
from agent_server.orchestrator.agents import compile_agents
from agent_server.orchestrator.context import Briefing, TurnContext
from agent_server.orchestrator.replay import ENDLESS, JournaledModels
from agent_server.prompts import AgentPrompt
from agent_server.recall import Recalled, find_query, recall
from agent_server.requests.recipe import Frames
from agent_server.routing import Decision, Ranked, Router
from agent_server.routing.workspaces import create_router
from agent_server.summaries import summarise
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.earlier import EMERGENCY_CALL
from agent_server.turns.events import AgentChosen, Cited, Event, PassagesFound, TextDelta, TextDone
from agent_server.workspace import Workspace

_MOST_CHOICES = 64


@dataclass
class Orchestrator:
    """The agents and models of one process. Its `run` is what the runner is given.

    `router` is one that was built before for the same workspace. Without it the first message has one built.
    """

    runtime: Runtime
    workspace: Workspace
    models: Models
    default: ModelChoice
    embedder: Embedder
    router: Router | None = None

    def __post_init__(self) -> None:
        self.agents: dict[str, Agent[TurnContext]] = compile_agents(self.workspace, self.embedder)
        self._chosen: dict[tuple[str, ...], Mapping[str, Agent[TurnContext]]] = {}
        self.frames = Frames(self.runtime.settings.tool_output_limit)
        # Turns that start together would each build a router.
        self._building = asyncio.Lock()

    async def get_router(self) -> Router:
        """The router. Making it takes a second or more, so `Server.prepare` asks for it before the first turn."""
        async with self._building:
            if self.router is None:
                self.router = await create_router(self.workspace, self.embedder)
        return self.router

    async def run(self, attempt: Attempt) -> Outcome:
        """Run the attempt to its end. What is promised to the user goes through the attempt's writer."""
        ends = time.monotonic() + self.runtime.settings.turn_timeout
        decision, past, turn = await self._prepare(attempt)
        workspace, agents = self._choose(attempt.writer.conversation_id)
        models = JournaledModels(
            turn=turn,
            workspace=workspace,
            decision=decision,
            models=self.models,
            default=self.default,
            embedder=self.embedder,
            journaled=attempt.earlier.model_calls,
            announced=attempt.earlier.announced,
            past=len(past),
            ends=ends,
            frames=self.frames,
        )
        entry = decision.agent if decision.decided_by != "model" else self.workspace.entry
        messages: list[Any] = [*past, user_message(attempt.message).body]
        result = Runner.run_streamed(
            agents[entry],
            messages,
            context=turn,
            max_turns=max(self.runtime.settings.model_calls_per_turn, workspace.most_turns),
            run_config=RunConfig(
                model_provider=models,
                # The SDK sends what was said to OpenAI unless it is told not to.
                tracing_disabled=True,
                tool_not_found_behavior="return_error_to_model",
                # The very text that `_record_call` stores, so that later turns read what the model has read.
                tool_error_formatter=lambda error: unknown_tool(error.tool_name),
            ),
        )
        try:
            await _drain(result)
        finally:
            # The run loop leaves its tools behind when it is cancelled; what they did is on record before the turn ends.
            for task in turn.tool_calls:
                task.cancel()
            await wait_through(turn.tool_calls)
        if self.runtime.settings.summaries:
            await attempt.writer.flush()
        more = await self._summarise(attempt, workspace.agents[result.last_agent.name], ends)
        usage = result.context_wrapper.usage
        return Outcome(
            agent=result.last_agent.name,
            finish=models.finish,
            usage={
                "model": models.last_model,
                "requests": usage.requests + (more is not None),
                "input_tokens": usage.input_tokens + (more.input_tokens if more else 0),
                "output_tokens": usage.output_tokens + (more.output_tokens if more else 0),
                "total_tokens": usage.total_tokens + (more.total_tokens if more else 0),
                **({INVENTED: models.invented} if models.invented else {}),
            },
        )

    def _choose(self, conversation_id: UUID) -> tuple[Workspace, Mapping[str, Agent[TurnContext]]]:
        """The versions of the agents that take a conversation."""
        workspace = self.workspace.choose(conversation_id)
        if workspace is self.workspace:
            return workspace, self.agents
        key = tuple(agent.sha for agent in workspace.agents.values())
        if key not in self._chosen:
            if len(self._chosen) >= _MOST_CHOICES:
                self._chosen.clear()
            self._chosen[key] = compile_agents(workspace, self.embedder)
        return workspace, self._chosen[key]

    async def _summarise(self, attempt: Attempt, agent: AgentPrompt, ends: float) -> ResponseUsage | None:
        model = self.models.full_name(agent.model or self.default.name)
        if model == OFFLINE or not self.runtime.settings.summaries:
            return None
        return await summarise(
            self.runtime.database,
            self.models,
            attempt.caller,
            attempt.writer.conversation_id,
            model=model,
            limit=self.runtime.settings.history_limit,
            ends=ends,
        )

    async def _prepare(self, attempt: Attempt) -> tuple[Decision, list[Any], TurnContext]:
        """Everything that the run loop starts from."""
        writer = attempt.writer
        said = await asyncio.to_thread(read_message, attempt.message)
        recalled = attempt.recalled
        if not isinstance(recalled, Recalled):
            async with self.runtime.database.quick(attempt.caller.id) as session:
                recalled = await recall(
                    session,
                    attempt.caller,
                    conversation_id=writer.conversation_id,
                    turn_no=writer.turn_no,
                    most=self.runtime.settings.history_limit,
                )
        collections = []
        if said.small_talk and attempt.caller.may(KNOWLEDGE):
            async with self.runtime.database.quick(attempt.caller.id) as session:
                collections = await list_collections(session)
        citations = Citations(attempt.earlier.events, await self._read_past(attempt, recalled.items))
        emergency = attempt.earlier.emergency
        if emergency is None and recalled.urgent:
            await read_phrases(recalled.urgent)
            async with self.runtime.database.quick(attempt.caller.id) as session:
                page = await find_urgent(session, attempt.message, recalled.urgent)
            if page is not None:
                emergency = await self._answer_emergency(attempt, citations, page)
        briefing = Briefing(
            query=find_query(said.question, recalled.items),
            profile=recalled.profile,
            inputs=attempt.inputs,
            today=datetime.now(UTC).date().isoformat(),
            emergency=emergency,
            summary=recalled.summary,
            about=describe(self.workspace, self.runtime.settings.title, collections) if said.small_talk else None,
            earlier=list(dict.fromkeys(item.turn_no for item in recalled.items)),
            has_own=recalled.has_own,
        )
        turn = TurnContext(attempt=attempt, runtime=self.runtime, briefing=briefing, citations=citations)
        return await self._decide(attempt, recalled.agent, said), history(recalled.items), turn

    async def _read_past(self, attempt: Attempt, items: Sequence[Entry]) -> Past:
        """What a model reads of citations in earlier turns. The offline model reads none."""
        bodies = [item.body for item in items]
        if not any(a.model for a in self.workspace.agents.values()) and self.default.name == OFFLINE:
            return Past()
        if not find_last(bodies):
            return Past()
        values = {
            "owner_id": attempt.caller.id,
            "conversation_id": attempt.writer.conversation_id,
            "first": items[0].turn_no,
            "turn_no": attempt.writer.turn_no,
        }
        async with self.runtime.database.quick(attempt.caller.id) as session:
            return read_past(bodies, (await session.execute(SOURCES_OF_EARLIER_TURNS, values)).scalars())

    async def _decide(self, attempt: Attempt, last: str | None, said: ReadMessage) -> Decision:
        if attempt.agent is not None:
            return Decision(attempt.agent, 1.0, "request", [Ranked(attempt.agent, 1.0)])
        # The workspace may have lost this agent since.
        last = last if last in self.workspace.agents else None
        if agent := choose_agent(said.small_talk, self.workspace.entry, last):
            return Decision(agent, 1.0, "meaning" if agent != last else "sticky", [Ranked(agent, 1.0)])
        return await (await self.get_router()).decide(said.question, last)

    async def _answer_emergency(self, attempt: Attempt, citations: Citations, page: Passage) -> str:
        """Show the page that was written for an emergency. Returns what was shown.

        It comes before any model speaks, because nothing that a model says is as sure.
        """
        (cited,) = citations.number([page])
        text = f"{page.text.strip()} [{cited.n}]\n\n"
        agent = self.workspace.find_responsible(page.collection)
        prompt = agent and agent.choose(attempt.writer.conversation_id)
        events: tuple[Event, ...] = (
            *([AgentChosen(prompt.name, "meaning", 1.0, prompt.version)] if prompt else []),
            PassagesFound([passage_body(cited)], None),
            Cited(cited.n),
            TextDelta(EMERGENCY_CALL, text),
            TextDone(EMERGENCY_CALL),
        )
        item = assistant_message(
            text,
            agent=prompt.name if prompt else None,
            prompt_sha=prompt.sha if prompt else None,
            prompt_version=prompt.version if prompt else None,
            sources=[passage_body(cited)],
        )
        await attempt.writer.append(*events, items=[item])
        return text


async def _drain(result: RunResultStreaming) -> None:
    try:
        async for _ in result.stream_events():
            pass
    except MaxTurnsExceeded as error:
        raise ModelFailed(ENDLESS) from error
    except AgentsException as error:
        if (ours := _find_ours(error)) is not None:
            raise ours from error
        raise ModelFailed("The model's answer could not be used") from error


def _find_ours(error: BaseException | None) -> Exception | None:
    """The error that a tool of ours raised. The run loop wraps it in an error of its own."""
    while error is not None:
        if isinstance(error, AgentServerError | Interrupted):
            return error
        error = error.__cause__
    return None
