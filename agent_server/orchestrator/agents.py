"""The SDK's agents of a workspace. They are compiled once per process.

What depends on a turn comes in its context.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agents import Agent, FunctionTool, ModelSettings, RunContextWrapper, handoff
from agents.tool_context import ToolContext as SDKToolContext

from agent_server.calls.call import call_tool
from agent_server.calls.forms import offer_form
from agent_server.calls.jobs import check_jobs
from agent_server.calls.ledger import CallOutcome, failure_text
from agent_server.calls.refusals import repeated_call
from agent_server.documents.reach import look_up
from agent_server.errors import AgentServerError, Unavailable
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.passages import CitedPassage
from agent_server.knowledge.tools import KNOWLEDGE
from agent_server.models.structured import OutputSchema
from agent_server.orchestrator.context import TurnContext
from agent_server.prompts import AgentPrompt
from agent_server.requests.instructions import write_instructions
from agent_server.tasks.begin import begin_tool
from agent_server.tasks.tasks import Tasks
from agent_server.tool import Tool
from agent_server.turns.calls import CallLedger
from agent_server.workspace import Workspace


def compile_agents(workspace: Workspace, embedder: Embedder) -> dict[str, Agent[TurnContext]]:
    """The SDK's agents and their hand-offs by name."""
    agents = {
        prompt.name: Agent[TurnContext](
            name=prompt.name,
            handoff_description=prompt.description,
            instructions=_instructions(prompt, embedder),
            tools=[function_tool(tool, prompt.knowledge) for tool in agent_tools(prompt, workspace.tools)],
            # The agent's name and no model's: `JournaledModels.get_model` must know who asks.
            model=prompt.name,
            model_settings=ModelSettings(temperature=prompt.temperature),
            output_type=OutputSchema(prompt.output) if prompt.output else None,
        )
        for prompt in workspace.agents.values()
    }
    for name, agent in agents.items():
        # When all are there, because two agents may hand over to each other. The copies do not refer to them: the SDK would
        # write out every agent that it can reach, with its tools, two or three times a run: a fifth of what a turn costs.
        agent.handoffs = [replace(handoff(agents[other])) for other in workspace.agents[name].handoffs if other != name]
    return agents


def agent_tools(prompt: AgentPrompt, tools: Mapping[str, Tool[..., Any]]) -> Sequence[Tool[..., Any]]:
    """The tools that an agent lists. Where one of them has a form, the tool that offers forms comes with it, and where one
    is long, the tool that says what became of it."""
    listed = [tools[name] for name in prompt.tools]
    more: list[Tool[..., Any]] = [offer_form] if any(tool.form for tool in listed) else []
    more += [check_jobs] if any(tool.long for tool in listed) else []
    return [*listed, *(tool for tool in more if tool not in listed)]


def function_tool(tool: Tool[..., Any], collections: tuple[str, ...] | None) -> FunctionTool:
    """A tool of an agent that answers from these collections, as the run loop calls it. A call of a long one is a job."""
    called = begin_tool(tool) if tool.is_job else tool

    async def invoke(context: SDKToolContext[TurnContext], arguments: str) -> str:
        turn = context.context
        if context.tool_call_id in turn.repeats:
            return repeated_call(tool.name)
        if task := asyncio.current_task():
            turn.tool_calls.add(task)
        ledger = CallLedger(
            writer=turn.attempt.writer,
            call_id=context.tool_call_id,
            name=tool.name,
            effect=called.effect,
            args_sha=hashlib.sha256(arguments.encode()).digest(),
            render=lambda outcome: turn.citations.render(called, outcome),
        )
        try:
            async with turn.places:
                output = await call_tool(
                    turn.runtime,
                    called,
                    arguments,
                    caller=turn.attempt.caller,
                    surface="agent",
                    ledger=ledger,
                    collections=collections,
                )
            outcome = CallOutcome(output)
            if called is not tool:
                turn.runtime.resources[Tasks].runner.look_soon()
        except Unavailable:
            raise  # nothing of the call is on record: the next attempt makes it again
        except AgentServerError as error:
            outcome = CallOutcome(None, failure_text(error))
        return ledger.tell(outcome)

    async def is_offered(context: RunContextWrapper[TurnContext], _: Any) -> bool:
        return context.context.attempt.caller.may(tool.scope)

    return FunctionTool(
        name=tool.name,
        description=tool.description,
        params_json_schema=tool.input_schema,
        on_invoke_tool=invoke,
        # The SDK's strict form would make every argument required, also those with a default.
        strict_json_schema=False,
        is_enabled=is_offered,
    )


def _instructions(prompt: AgentPrompt, embedder: Embedder) -> Any:
    async def instructions(context: RunContextWrapper[TurnContext], _: Agent[TurnContext]) -> str:
        turn = context.context
        briefing = turn.briefing
        passages = None
        # None is something else: all of the content. Small talk asks nothing of it.
        if prompt.knowledge != () and not briefing.about and turn.attempt.caller.may(KNOWLEDGE):
            passages = turn.citations.find_for(prompt.name)
            # Looked up once in a turn: a model must be given the same in each of its calls, also after a takeover.
            if passages is None:
                passages = await _retrieve(turn, prompt, embedder)
        told = turn.told[prompt.name] = briefing.told(prompt, passages)
        return write_instructions(prompt.render(profile=told.profile, today=told.today, inputs=told.inputs), told)

    return instructions


async def _retrieve(turn: TurnContext, prompt: AgentPrompt, embedder: Embedder) -> list[CitedPassage]:
    asked, caller = turn.briefing, turn.attempt.caller
    found = await look_up(turn.runtime, embedder, asked.query, prompt.knowledge, caller, has_own=asked.has_own)
    return turn.citations.keep_for(prompt.name, found)
