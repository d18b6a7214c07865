"""Who is calling, and what they may do."""

from agent_server.identity.caller import Caller

__all__ = ["Caller"]
