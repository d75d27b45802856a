"""``ondevice serve`` as a process, and connections to it that need not behave."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

SERVER_KEY = "a-key"


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr is not None
        self.url = process.stderr.readline().split()[1]

    def connect(self) -> socket.socket:
        place = urlsplit(self.url)
        return socket.create_connection((place.hostname, place.port), timeout=30)

    def end(self) -> str:
        """End it; returns what it has said meanwhile."""
        self.process.terminate()
        return self.process.communicate(timeout=20)[1]


@contextlib.contextmanager
def running(home: Path, *options: str) -> Iterator[Server]:
    """A server with this home and these options."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ondevice", "serve", "--port", "0", *options],
        env={**os.environ, "ONDEVICE_HOME": str(home), "HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
    )
    server = Server(process)
    try:
        yield server
    finally:
        if process.poll() is None:
            server.end()


def chat(**options: object) -> bytes:
    """A request for a reply, as bytes."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, **options}
    return post("/v1/chat/completions", json.dumps(body).encode())


def post(path: str, body: bytes, *headers: str) -> bytes:
    given = "".join(f"{header}\r\n" for header in headers or ("Content-Type: application/json",))
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{given}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def status(connection: socket.socket) -> int:
    """The status of the answer that comes; 0 if the connection ends without one."""
    line = b""
    with contextlib.suppress(ConnectionError):
        line = connection.makefile("rb").readline()
    return int(line.split()[1]) if line else 0
