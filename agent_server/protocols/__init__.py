"""The protocols that chat clients speak.

Each is a folder over the same events.

To add one, write its folder (`request` in, `stream` out, its errors and routes) and list its `Protocol` here.
"""

from collections.abc import Sequence

from agent_server.protocols import ai_sdk
from agent_server.protocols.base import Protocol

PROTOCOLS: Sequence[Protocol] = (ai_sdk.PROTOCOL,)
