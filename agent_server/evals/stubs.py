"""Tools that return in a case what the case says, or what the ledger has, in place of being called."""

import functools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any
from uuid import UUID

from agent_server.calls.call import json_arguments
from agent_server.calls.ledger import RecordedFailure
from agent_server.errors import Conflict, cut
from agent_server.evals.format import Stub
from agent_server.tool import OUTSIDE, Tool, ToolContext
from agent_server.workspace import Workspace

_LONGEST = 200


@dataclass(frozen=True)
class _Returned:
    """What a stub returns, as JSON-ready data."""

    value: Any


@dataclass(frozen=True, kw_only=True)
class _StubbedTool(Tool[..., Any]):
    is_job = False  # a case has no time to come back for a result

    def dump(self, value: Any) -> Any:
        # As it was written down: not every result can be read back into the type that it was made from.
        return value.value if isinstance(value, _Returned) else super().dump(value)


@dataclass
class CallerStubs:
    """The stubs for the calls of one caller, and what was different from them. With `only`, no tool is called at all."""

    stubs: Sequence[Stub]
    only: bool = False
    differences: list[str] = field(default_factory=list)
    used: list[Stub] = field(default_factory=list)

    def find(self, tool: str, arguments: Mapping[str, Any]) -> Stub | None:
        """The stub for a call. Of several for the same call, each is used once, and the last for all that follow."""
        of_tool = [stub for stub in self.stubs if stub.tool == tool]
        fitting = [stub for stub in of_tool if stub.arguments is None or _same(stub.arguments, arguments)]
        if not fitting and of_tool:
            expected = " or ".join(dict.fromkeys(_json(stub.arguments) for stub in of_tool))
            self.differences.append(f"{tool} was called with {_json(arguments)}; the stub is for {expected}")
            fitting = of_tool
        found = next((stub for stub in fitting if not any(stub is used for used in self.used)), None)
        if found is not None:
            self.used.append(found)
        return found or (fitting[-1] if fitting else None)


@dataclass
class Stubs:
    """Who is given which stubs. A caller that is not here is given none."""

    of: dict[UUID, CallerStubs] = field(default_factory=dict)

    def put_into(self, workspace: Workspace) -> Workspace:
        """The workspace with tools that ask for a stub first. Those with an effect outside are never called."""
        tools = {name: self._wrap(tool) for name, tool in workspace.tools.items()}
        return replace(workspace, tools=MappingProxyType(tools))

    def _wrap(self, tool: Tool[..., Any]) -> Tool[..., Any]:
        function: Callable[..., Awaitable[Any]] = tool.function

        @functools.wraps(function)
        async def call(context: ToolContext, **values: Any) -> Any:
            stubs = self.of.get(context.caller.id) or CallerStubs(())
            arguments = json_arguments(tool, values)
            if (stub := stubs.find(tool.name, arguments)) is not None:
                if stub.error is not None:
                    raise RecordedFailure(stub.error)
                return _Returned(stub.returns)
            if stubs.only:
                stubs.differences.append(f"{tool.name} was called with {_json(arguments)}; it was not called before")
                raise Conflict(f"{tool.name} has no recorded result for these arguments")
            if tool.effect in OUTSIDE:
                stubs.differences.append(f"{tool.name} was called with {_json(arguments)}; there is no stub for it")
                raise Conflict(f"{tool.name} acts outside and is not called in a case; give it a stub")
            return await function(context, **values)

        given = {one.name: getattr(tool, one.name) for one in fields(tool)}
        return _StubbedTool(**{**given, "function": call})


def _same(expected: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    return all(name in arguments and arguments[name] == value for name, value in expected.items())


def _json(value: Any) -> str:
    return cut(json.dumps(value, ensure_ascii=False), _LONGEST)
