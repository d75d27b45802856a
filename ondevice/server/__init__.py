"""The engine behind OpenAI's HTTP protocol, for other programs on this machine."""

from ondevice.server._access import ANY_HOST
from ondevice.server._app import make_app
from ondevice.server._connections import server_of

__all__ = ["ANY_HOST", "make_app", "server_of"]
