"""Cases through the orchestrator: stubs, recordings, verdicts, replay of stored turns."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from agents.model_settings import ModelSettings
from hypothesis import given
from hypothesis import strategies as st

from agent_server import ToolContext, tool
from agent_server.db import Database, new_id
from agent_server.evals.adding import make_case
from agent_server.evals.cases import Case, append_case, load_cases
from agent_server.evals.format import CaseBody
from agent_server.evals.recordings import Mode, Recordings
from agent_server.evals.replay import diff_words, difference_json, replay
from agent_server.evals.report import count_routing, list_different
from agent_server.evals.requests import PARTS, Asked
from agent_server.evals.run import CaseRunner, Result, Variant, run_variant
from agent_server.evals.stored import read_conversation, read_turn
from agent_server.models.rehearsal import _Script  # noqa: F401
from agent_server.routing import Router
from agent_server.settings import load_settings
from agent_server.testing import AgentServer, Call, Refuse, Say, ScriptedOpenAI, Step, run_agent_server
from agent_server.testing.wire import InProcess
from agent_server.workspace import Workspace
from tests.conftest import ROOT

MODEL = "openai/scripted"
KEY = "sk-canary-0123456789abcdef0123456789"  # pragma: allowlist secret
