"""``ondevice serve``: the engine for other programs, over OpenAI's HTTP protocol."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import click

from ondevice.cli._options import LOAD, MODEL, SAMPLING, flags
from ondevice.config import Settings
from ondevice.engine import Engine
from ondevice.errors import UsageError

_LOCAL = ("localhost", "127.0.0.1", "[::1]")


@click.command()
@flags(MODEL, LOAD, SAMPLING)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8017, show_default=True)
@click.option("--api-key", envvar="ONDEVICE_API_KEY", help="Clients must send it.")
def command(settings: Settings, host: str, port: int, api_key: str | None) -> None:
    """Serve the models on disk to other programs, until Ctrl+C.

    \b
      ondevice serve
      curl http://127.0.0.1:8017/v1/models

    Any client of OpenAI's protocol works with the base URL http://127.0.0.1:8017/v1: chat
    completions, streamed or not, and embeddings. Only programs on this machine get through, unless
    you choose another address and an API key.
    """
    local = host == "localhost" or _is_loopback(host)
    if not local and not api_key:
        raise UsageError("Others on the network could use it: set an API key with --api-key.")
    # Only now: they take a fifth of a second.
    import uvicorn  # noqa: PLC0415

    from ondevice.server import make_app  # noqa: PLC0415

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be used: {error}. Try another --port.") from error
    app = make_app(Engine(), settings, api_key=api_key, hosts=_LOCAL if local else ("*",))
    place = f"[{host}]" if ":" in host else host
    click.echo(f"Serving http://{place}:{listening.getsockname()[1]}/v1 until Ctrl+C.", err=True)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listening])


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
