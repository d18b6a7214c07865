"""A stored turn as a case."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent_server.evals.expect import declines
from agent_server.evals.stored import StoredTurn
from agent_server.feedback.models import Feedback
from agent_server.log import mask, mask_value
from agent_server.wording import one_line, shorten
from agent_server.workspace import Workspace

_LONGEST_NAME = 80


def make_case(
    stored: StoredTurn, workspace: Workspace, names: Sequence[str], *, with_profile: bool, want_answer: bool = False
) -> dict[str, Any]:
    """The case that expects what the turn did, with stubs for what its tools returned.

    What has the shape of a secret or of personal data is masked as in the log. `want_answer` makes the case of a
    question that nothing was known about: it expects an answer. `names` are taken already.
    """
    messages = [mask(text) for text in stored.messages]
    metadata: dict[str, Any] = {
        "caller": "guest" if stored.caller.kind == "guest" else {"kind": "user", "scopes": sorted(stored.caller.scopes)}
    }
    if with_profile and stored.profile:
        metadata["profile"] = stored.profile
    if stored.agent is not None:
        metadata["agent"] = stored.agent
    # Those of the engine read the content, which is there.
    stubs = [_stub(stub.model_dump(exclude_none=True)) for stub in stored.stubs if not _is_engine(stub.tool, workspace)]
    if stubs:
        metadata["stubs"] = stubs
    metadata["expect"] = _expect(stored, len(messages), want_answer=want_answer)
    inputs: Any = messages[0] if len(messages) == 1 else messages
    return {"name": _find_name(stored, names), "inputs": inputs, "metadata": metadata}


def word_rating(rated: Feedback) -> dict[str, str]:
    """What whoever edits the case is told of the rating, as a part of its metadata."""
    words = f"Rated {rated.rating}" + (f": {mask(rated.comment)}" if rated.comment else "")
    if rated.rating == "bad":
        words += "\nWrite under `expect` what should have happened."
    return {"note": words}


def _expect(stored: StoredTurn, messages: int, *, want_answer: bool) -> Any:
    answer = stored.reply.answer
    expect: dict[str, Any] = {"agent": answer.agent} if answer.agent else {}
    if want_answer:
        expect = {"declined": False}
    elif answer.calls:
        expect["calls"] = [
            {"tool": call.name, "arguments": mask_value("", call.arguments)}
            if isinstance(call.arguments, dict)
            else {"tool": call.name}
            for call in answer.calls
        ]
    else:
        expect["no_tool"] = True
    if not want_answer and answer.citations:
        expect["citations"] = list(dict.fromkeys(citation.document for citation in answer.citations))
    if not want_answer and declines(stored.reply):
        expect["declined"] = True
    return expect if messages == 1 else [*[None] * (messages - 1), expect]


def _stub(stub: Mapping[str, Any]) -> dict[str, Any]:
    return {key: mask_value("", value) if key in ("arguments", "returns") else value for key, value in stub.items()}


def _is_engine(tool: str, workspace: Workspace) -> bool:
    found = workspace.tools.get(tool)
    return found is not None and not found.file.startswith(str(workspace.root / "tools"))


def _find_name(stored: StoredTurn, names: Sequence[str]) -> str:
    name = shorten(one_line(mask(stored.message)).replace("::", ":"), _LONGEST_NAME)
    if name not in names:
        return name
    # the turn tells two of the same message apart
    return f"{name} ({str(stored.turn.id)[-6:]})"
