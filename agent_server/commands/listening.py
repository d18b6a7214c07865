"""The socket that `serve` listens on."""

import errno
import socket
import sys

from agent_server.errors import InvalidInput
from agent_server.settings import Settings


def other_port(port: int) -> int:
    """The port to try in place of one that is taken."""
    return port + 1 if port < 65535 else 8000


def listen(settings: Settings) -> socket.socket:
    """The socket to listen on. Raises InvalidInput where that is not possible."""
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, so that asyncio knows it for that and sends at once: else the body of an answer waits 40 ms for the
    # client's word that it has the head.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Else a restart is refused for a minute, while old connections time out. On Windows it would share the port with
    # whoever has it.
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            why = "is taken by another program; stop that one, or choose another"
        else:
            why = f"cannot be listened on ({error.strerror}); choose another"
        raise InvalidInput(
            f"port: {port} of {host} {why}, as in `agent-server serve --port {other_port(port)}`"
        ) from error
    return listener
