"""What a workspace's own tests are written with: `docs/testing.md` shows how.

Names are looked up when first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_server.evals.answer import Answer as Answer
    from agent_server.evals.answer import Citation as Citation
    from agent_server.evals.answer import ToolCall as ToolCall
    from agent_server.evals.answer import TurnFailed as TurnFailed
    from agent_server.testing.databases import copy_database as copy_database
    from agent_server.testing.databases import run_postgres as run_postgres
    from agent_server.testing.mcp import mcp_client as mcp_client
    from agent_server.testing.recorded import RecordedOpenAI as RecordedOpenAI
    from agent_server.testing.recorded import recorded_openai as recorded_openai
    from agent_server.testing.scripted import Call as Call
    from agent_server.testing.scripted import Calls as Calls
    from agent_server.testing.scripted import Cut as Cut
    from agent_server.testing.scripted import Refuse as Refuse
    from agent_server.testing.scripted import Say as Say
    from agent_server.testing.scripted import ScriptedOpenAI as ScriptedOpenAI
    from agent_server.testing.scripted import Stall as Stall
    from agent_server.testing.scripted import Step as Step
    from agent_server.testing.scripted import scripted_openai as scripted_openai
    from agent_server.testing.server import AgentCaller as AgentCaller
    from agent_server.testing.server import AgentServer as AgentServer
    from agent_server.testing.server import run_agent_server as run_agent_server
    from agent_server.testing.server import stock as stock

_HOME = {
    "AgentCaller": "server",
    "AgentServer": "server",
    "Answer": ".evals.answer",
    "Call": "scripted",
    "Calls": "scripted",
    "Citation": ".evals.answer",
    "Cut": "scripted",
    "RecordedOpenAI": "recorded",
    "Refuse": "scripted",
    "Say": "scripted",
    "ScriptedOpenAI": "scripted",
    "Stall": "scripted",
    "Step": "scripted",
    "ToolCall": ".evals.answer",
    "TurnFailed": ".evals.answer",
    "copy_database": "databases",
    "mcp_client": "mcp",
    "recorded_openai": "recorded",
    "run_agent_server": "server",
    "run_postgres": "databases",
    "scripted_openai": "scripted",
    "stock": "server",
}
__all__ = [
    "AgentCaller",
    "AgentServer",
    "Answer",
    "Call",
    "Calls",
    "Citation",
    "Cut",
    "RecordedOpenAI",
    "Refuse",
    "Say",
    "ScriptedOpenAI",
    "Stall",
    "Step",
    "ToolCall",
    "TurnFailed",
    "copy_database",
    "mcp_client",
    "recorded_openai",
    "run_agent_server",
    "run_postgres",
    "scripted_openai",
    "stock",
]


# pytest loads the plugin of this package wherever it is installed, also for tests that have nothing to do with it.
# These must not wait for the import of a server.
def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"agent_server.testing has no {name!r}; it has {', '.join(_HOME)}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
