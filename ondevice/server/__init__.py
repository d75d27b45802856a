"""The engine behind OpenAI's HTTP protocol, for other programs on this machine."""

from ondevice.server._app import make_app

__all__ = ["make_app"]
