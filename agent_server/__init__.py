"""Public API of the engine: what a workspace may import.

Names are looked up when first asked for: a command line that only prints its help must not import a database toolkit.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_server.audit import Surface as Surface
    from agent_server.caller import Caller as Caller
    from agent_server.db import Audited as Audited
    from agent_server.db import Owned as Owned
    from agent_server.db import Shared as Shared
    from agent_server.db import SoftDeleted as SoftDeleted
    from agent_server.db import Submitted as Submitted
    from agent_server.db import Supervised as Supervised
    from agent_server.db import Timestamps as Timestamps
    from agent_server.db import Versioned as Versioned
    from agent_server.db import new_id as new_id
    from agent_server.db import now as now
    from agent_server.db import submission_policy as submission_policy
    from agent_server.db import supervision_policy as supervision_policy
    from agent_server.errors import AgentServerError as AgentServerError
    from agent_server.errors import Conflict as Conflict
    from agent_server.errors import DidNotHappen as DidNotHappen
    from agent_server.errors import Forbidden as Forbidden
    from agent_server.errors import InvalidInput as InvalidInput
    from agent_server.errors import NotFound as NotFound
    from agent_server.errors import TooMany as TooMany
    from agent_server.errors import Unavailable as Unavailable
    from agent_server.identity.profiles import read_profile as read_profile
    from agent_server.identity.profiles import update_profile as update_profile
    from agent_server.knowledge.passages import Passage as Passage
    from agent_server.knowledge.tools import Passages as Passages
    from agent_server.knowledge.tools import list_documents as list_documents
    from agent_server.knowledge.tools import search_knowledge as search_knowledge
    from agent_server.media import Audio as Audio
    from agent_server.media import Embedded as Embedded
    from agent_server.media import Image as Image
    from agent_server.media import Link as Link
    from agent_server.pdf import render_pdf as render_pdf
    from agent_server.questions import Accepted as Accepted
    from agent_server.questions import Ask as Ask
    from agent_server.questions import Declined as Declined
    from agent_server.questions import Dismissed as Dismissed
    from agent_server.questions import ListRoots as ListRoots
    from agent_server.questions import Root as Root
    from agent_server.questions import Sample as Sample
    from agent_server.questions import Sampled as Sampled
    from agent_server.repository import Page as Page
    from agent_server.repository import Repository as Repository
    from agent_server.resource import announce as announce
    from agent_server.resource import resource as resource
    from agent_server.seed import SeedFile as SeedFile
    from agent_server.tool import Effect as Effect
    from agent_server.tool import Tool as Tool
    from agent_server.tool import tool as tool
    from agent_server.tool_context import Loss as Loss
    from agent_server.tool_context import ToolContext as ToolContext
    from agent_server.variables import read_variables as read_variables
    from agent_server.webhook import Delivery as Delivery
    from agent_server.webhook import WebhookRequest as WebhookRequest
    from agent_server.webhook import webhook as webhook

_HOME = {
    "supervision_policy": "agent_server.db",
    "Supervised": "agent_server.db",
    "SoftDeleted": "agent_server.db",
    "Versioned": "agent_server.db",
    "Audited": "agent_server.db",
    "Accepted": "agent_server.questions",
    "AgentServerError": "agent_server.errors",
    "Ask": "agent_server.questions",
    "Audio": "agent_server.media",
    "Caller": "agent_server.caller",
    "Conflict": "agent_server.errors",
    "Declined": "agent_server.questions",
    "Delivery": "agent_server.webhook",
    "DidNotHappen": "agent_server.errors",
    "Dismissed": "agent_server.questions",
    "Effect": "agent_server.tool",
    "Embedded": "agent_server.media",
    "Forbidden": "agent_server.errors",
    "Image": "agent_server.media",
    "InvalidInput": "agent_server.errors",
    "Link": "agent_server.media",
    "ListRoots": "agent_server.questions",
    "Loss": "agent_server.tool_context",
    "NotFound": "agent_server.errors",
    "Owned": "agent_server.db",
    "Page": "agent_server.repository",
    "Passage": "agent_server.knowledge.passages",
    "Passages": "agent_server.knowledge.tools",
    "Repository": "agent_server.repository",
    "Root": "agent_server.questions",
    "Sample": "agent_server.questions",
    "Sampled": "agent_server.questions",
    "SeedFile": "agent_server.seed",
    "Shared": "agent_server.db",
    "Submitted": "agent_server.db",
    "Surface": "agent_server.audit",
    "Timestamps": "agent_server.db",
    "TooMany": "agent_server.errors",
    "Tool": "agent_server.tool",
    "ToolContext": "agent_server.tool_context",
    "Unavailable": "agent_server.errors",
    "WebhookRequest": "agent_server.webhook",
    "new_id": "agent_server.db",
    "now": "agent_server.db",
    "announce": "agent_server.resource",
    "resource": "agent_server.resource",
    "list_documents": "agent_server.knowledge.tools",
    "read_profile": "agent_server.identity.profiles",
    "read_variables": "agent_server.variables",
    "search_knowledge": "agent_server.knowledge.tools",
    "render_pdf": "agent_server.pdf",
    "submission_policy": "agent_server.db",
    "tool": "agent_server.tool",
    "update_profile": "agent_server.identity.profiles",
    "webhook": "agent_server.webhook",
}
__all__ = [
    "Accepted",
    "AgentServerError",
    "Ask",
    "Audio",
    "Audited",
    "Caller",
    "Conflict",
    "Declined",
    "Delivery",
    "DidNotHappen",
    "Dismissed",
    "Effect",
    "Embedded",
    "Forbidden",
    "Image",
    "InvalidInput",
    "Link",
    "ListRoots",
    "Loss",
    "NotFound",
    "Owned",
    "Page",
    "Passage",
    "Passages",
    "Repository",
    "Root",
    "Sample",
    "Sampled",
    "SeedFile",
    "Shared",
    "SoftDeleted",
    "Submitted",
    "Supervised",
    "Surface",
    "Timestamps",
    "TooMany",
    "Tool",
    "ToolContext",
    "Unavailable",
    "Versioned",
    "WebhookRequest",
    "announce",
    "list_documents",
    "new_id",
    "now",
    "read_profile",
    "read_variables",
    "render_pdf",
    "resource",
    "search_knowledge",
    "submission_policy",
    "supervision_policy",
    "tool",
    "update_profile",
    "webhook",
]


# Importing the module agent_server.tool sets the attribute `tool` of this package to the module. Without this class
# `from agent_server import tool` would give the decorator or the module, depending on what was imported before.
class _Package(ModuleType):
    """This package, in which `tool`, `resource` and `webhook` are always the decorators."""

    def __setattr__(self, name: str, value: Any) -> None:
        is_module = name in ("tool", "resource", "webhook") and isinstance(value, ModuleType)
        super().__setattr__(name, getattr(value, name) if is_module else value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"agent_server has no {name!r}; it has {', '.join(_HOME)}")
    return getattr(importlib.import_module(_HOME[name]), name)
