"""A server on loopback that answers like the Hugging Face hub, and like a Python package index.

Weights are on another host than the hub, as with the real one: it is reached as "localhost".
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Asked(NamedTuple):
    """One request for weights or a wheel."""

    start: int  # of the range of bytes
    token: str | None


class Hub:
    """``files`` maps "owner/repo/file.gguf" to content. What else is public makes trouble."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.wheels: dict[str, bytes] = {}  # file name → content
        self.wheel_claims: dict[str, str] = {}  # their sha256 in place of the true ones
        self.speaks_json = False  # as an index
        self.asked: list[Asked] = []
        self.token: str | None = None  # that is demanded
        self.claims: dict[str, str] = {}  # headers in place of the true ones
        self.statuses: list[int] = []  # of the next answers with weights
        self.wait: dict[str, str] = {}  # headers of such an answer, such as Retry-After
        self.cuts: list[int] = []  # bytes after which the next answers end
        self.holds_at: int | None = None  # bytes after which an answer waits for the gate
        self.gate = threading.Event()
        self.held = threading.Event()  # an answer waits
        self.knows_ranges = True
        self.with_weights: dict[str, str] = {}  # headers
        self.changes: Callable[[bytes], bytes] = bytes  # what happens to weights on their way
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.endpoint = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        with contextlib.suppress(ConnectionError):  # clients are killed here
            path = unquote(self.path)
            if found := re.match(r"/api/models/([^/]+/[^/]+)", path):
                self._list_files(f"{found[1]}/")
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._resolve(f"{found[1]}/{found[3]}", found[2])
            elif path.startswith("/weights/"):
                self._send(self.hub.files[path.removeprefix("/weights/")])
            elif path.startswith("/simple/"):
                self._list_wheels()
            elif path.startswith("/wheels/"):
                self._send(self.hub.wheels[path.removeprefix("/wheels/")])
            else:
                self._reply(404)

    def _list_files(self, repo: str) -> None:
        names = [name.removeprefix(repo) for name in self.hub.files if name.startswith(repo)]
        if not names:
            self._reply(404, headers={"X-Error-Code": "RepoNotFound"})
            return
        if "/tree/" in self.path:
            listed = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in names]
            self._reply(200, json.dumps(listed).encode(), {"Content-Type": "application/json"})
        else:
            about = {"id": repo[:-1], "siblings": [{"rfilename": name} for name in names]}
            self._reply(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def _list_wheels(self) -> None:
        digests = {n: hashlib.sha256(w).hexdigest() for n, w in self.hub.wheels.items()}
        digests |= self.hub.wheel_claims
        if self.hub.speaks_json:
            files = [
                {"filename": name, "url": f"../../wheels/{name}", "hashes": {"sha256": digest}}
                for name, digest in digests.items()
            ]
            kind, text = "application/vnd.pypi.simple.v1+json", json.dumps({"files": files})
        else:
            kind = "text/html"
            text = "".join(
                f'<a href="/wheels/{name}#sha256={digest}">{name}</a><br/>'
                for name, digest in digests.items()
            )
        self._reply(200, text.encode(), {"Content-Type": kind})

    def _resolve(self, name: str, revision: str) -> None:
        hub = self.hub
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._reply(401, headers={"X-Error-Code": "GatedRepo"})
        elif name not in hub.files or revision not in ("main", COMMIT):
            self._reply(404, headers={"X-Error-Code": "EntryNotFound"})
        else:
            content = hub.files[name]
            headers = {
                "Location": f"http://localhost:{hub.port}/weights/{name}",
                "X-Repo-Commit": COMMIT,
                "X-Linked-Size": str(len(content)),
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                **hub.claims,
            }
            self._reply(302, headers=headers)

    def _send(self, content: bytes) -> None:
        hub = self.hub
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        hub.asked.append(Asked(start, self.headers.get("Authorization")))
        total = len(content)
        if hub.statuses or start >= total:
            self._reply(hub.statuses.pop(0) if hub.statuses else 416, headers=hub.wait)
            return
        headers = dict(hub.with_weights)
        if asked and hub.knows_ranges:
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
            content = content[start:]
        partial = "Content-Range" in headers
        self._reply(206 if partial else 200, hub.changes(content), headers)

    def _reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD" or not body:
            return
        hub = self.hub
        big = self.path.startswith(("/weights/", "/wheels/"))
        if big and hub.holds_at is not None:
            self.wfile.write(body[: hub.holds_at])
            self.wfile.flush()
            hub.held.set()
            hub.gate.wait()
            body = body[hub.holds_at :]
        if big and hub.cuts:
            body = body[: hub.cuts.pop(0)]
            self.close_connection = True
        self.wfile.write(body)


@contextlib.contextmanager
def running() -> Iterator[Hub]:
    """A hub with nothing on it."""
    hub = Hub()
    try:
        yield hub
    finally:
        hub.close()


def wheel(folder: Path, member: str, content: bytes) -> bytes:
    """A wheel of the package "weights" 1.0 with one file in it."""
    import zipfile

    path = folder / "weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
        archive.writestr(
            "weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: weights\nVersion: 1.0\n"
        )
        archive.writestr(
            "weights-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("weights-1.0.dist-info/RECORD", "")
    return path.read_bytes()
