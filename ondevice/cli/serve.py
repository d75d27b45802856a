"""``ondevice serve``: the engine for other programs, over OpenAI's HTTP protocol."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import ip_address

import click

from ondevice.cli._kernels import compile_once
from ondevice.cli._options import LOAD, MODEL, SAMPLING, THINKING, WholeNumber, flags
from ondevice.config import Settings
from ondevice.engine import Engine
from ondevice.errors import OndeviceError, UsageError
from ondevice.text import reason

_LOCAL = ("127.0.0.1", "::1")  # localhost


@click.command()
@flags(MODEL, THINKING, LOAD, SAMPLING)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=WholeNumber(0, 65535),
    default=8017,
    show_default=True,
    help="Port to listen on.",
)
@click.option(
    "--host-name",
    "host_names",
    multiple=True,
    metavar="NAME",
    help="Another name by which clients reach this machine, such as "
    "host.docker.internal; repeatable.",
)
@click.option(
    "--api-key",
    envvar="ONDEVICE_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="API key that clients must send.",
)
def command(
    settings: Settings, host: str, port: int, host_names: tuple[str, ...], api_key: str | None
) -> None:
    """Serve the models on disk to other programs, until Ctrl+C.

    \b
      ondevice serve
      curl http://127.0.0.1:8017/v1/models

    Clients of OpenAI's API use the base URL http://127.0.0.1:8017/v1: chat completions, streamed or
    not, and embeddings. Only programs on this machine can connect, unless you choose another
    address and an API key. Web pages cannot connect.
    """
    local = host == "localhost" or _is_loopback(host)
    if not local and not api_key:
        raise UsageError(
            "Others on the network could use the server. Set an API key with --api-key."
        )
    compile_once()
    # Only now: they take a fifth of a second.
    from ondevice import server  # noqa: PLC0415

    app, stop = server.make_app(
        Engine(),
        settings,
        api_key=api_key,
        hosts=(host, *host_names) if local else (server.ANY_HOST,),
    )
    listening = _listen(host, port)
    place = f"[{host}]" if ":" in host else host
    click.echo(f"Serving http://{place}:{listening[0].getsockname()[1]}/v1 until Ctrl+C.", err=True)
    with suppress(KeyboardInterrupt):  # the way to end it
        server.server_of(app, stop).run(sockets=listening)


def _listen(host: str, port: int) -> list[socket.socket]:
    """Sockets for this address, of localhost for each that it has."""
    listening: list[socket.socket] = []
    for address in _LOCAL if host == "localhost" else (host,):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            listening.append(socket.create_server((address, port), family=family))
        except OSError as error:
            if not listening:
                raise OndeviceError(
                    f"{host}:{port} cannot be used: {reason(error)}. Try another --port."
                ) from error
        else:
            port = listening[0].getsockname()[1]
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
