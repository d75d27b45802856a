"""Finds and fetches wheels on a Python package index, without pip, which not everybody has.

The index, its mirrors, proxy and certificates are those that pip is set to use, or uv by its
environment. https://packaging.python.org/en/latest/specifications/simple-repository-api/
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import urldefrag, urljoin

import httpx2
import msgspec
import platformdirs

from ondevice import network
from ondevice.checking import work_out
from ondevice.errors import DownloadError
from ondevice.models._meter import Meter
from ondevice.text import printable, reason, size

_DEFAULT = "https://pypi.org/simple/"
_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
_MAX_PAGE = 50_000_000  # bytes of a list of files
_TIMEOUT_S = 30.0
_PARTIAL_CONTENT, _NOT_SATISFIABLE = 206, 416
_ATTEMPTS = 3  # in a row that bring nothing
_PAUSE_S = 0.5  # between the first two; then more


class Wheel(NamedTuple):
    """A wheel on an index."""

    url: str
    sha256: str  # as the index says; empty if it does not


class IndexSettings(NamedTuple):
    """Where to look, and how to get there."""

    indexes: tuple[str, ...]
    proxy: str | None
    certificates: str | None  # path


class _IndexedFile(msgspec.Struct, frozen=True):
    filename: str
    url: str
    hashes: dict[str, str] = {}


class _Page(msgspec.Struct, frozen=True):
    files: list[_IndexedFile]


work_out(_Page)


def settings() -> IndexSettings:
    """What the environment and pip's files say."""
    pip = _pip()
    uv = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")
    first = pip.get("index-url") or uv or _DEFAULT
    extra = pip.get("extra-index-url", "").split()
    for name in ("UV_INDEX", "UV_EXTRA_INDEX_URL"):
        extra += os.environ.get(name, "").split()
    # uv's may have a name before them. What is not on the web is pip's alone.
    found = [re.sub(r"^[\w.-]+=", "", each).rstrip("/") + "/" for each in (first, *extra)]
    if pip.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        found = []
    urls = dict.fromkeys(url for url in found if url.startswith(("http://", "https://")))
    return IndexSettings(tuple(urls), pip.get("proxy") or None, pip.get("cert") or None)


def fetch(
    package: str,
    version: str,
    sha256: str | None,
    place: Callable[[str], Path],
    most: int,
    meter: Meter,
) -> Path:
    """Fetch the wheel for any machine from the first index that has it, and return where it is.

    ``sha256`` is what it should have; None: what the index says. ``place`` gives the path for a
    wheel with that sha256, or without one for the empty string. What is there of an earlier
    attempt is not fetched again. ``most`` is how many bytes are taken at most.

    Raises :class:`DownloadError` if no index gives it, which says what each said.
    """
    said: list[str] = []
    use = settings()
    for index in use.indexes:
        try:
            with _failures():
                host = httpx2.URL(index).host
            with _client(use, host) as client:
                with _failures():
                    wheel = _listed(client, f"{index}{_normal(package)}/", package, version)
                if wheel is None:
                    said.append(f"{host} does not have it")
                    continue
                expected = sha256 or wheel.sha256
                path = place(expected)
                digest = _download(client, wheel, path, most, meter)
        except DownloadError as error:
            said.append(str(error))
            continue
        if digest == (expected or digest):
            return path
        path.unlink()
        said.append(
            f"{host} sends another file than it should: its sha256 is {digest} instead of "
            f"{expected}"
        )
    what = "; ".join(said) or "pip is configured to use no index on the web"
    raise DownloadError(
        f"{package} {version} cannot be downloaded from the Python package index "
        f"({what}). Check the network, and the index pip is configured to use "
        "(PIP_INDEX_URL or pip config list)."
    )


def _download(client: httpx2.Client, wheel: Wheel, path: Path, most: int, meter: Meter) -> str:
    """Put the wheel into ``path``; return its sha256. Goes on when the connection breaks."""
    failures = 0
    try:
        with path.open("a+b") as file:  # with what is there of an earlier attempt
            while True:
                start = file.tell()
                try:
                    with _failures():
                        _receive(client, wheel.url, file, most, meter)
                    break
                except _Broken:
                    failures = failures + 1 if file.tell() <= start else 0
                    if failures == _ATTEMPTS:
                        raise
                    time.sleep(_PAUSE_S * (failures + 1))
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    finally:
        if not path.stat().st_size:
            path.unlink()


class _Broken(DownloadError):
    """The connection broke, or the server is in trouble: it may be better the next time."""


@contextmanager
def _failures() -> Iterator[None]:
    """Errors of the connection as errors of ours."""
    try:
        yield
    except httpx2.HTTPStatusError as error:
        status = error.response.status_code
        kind = _Broken if status >= 500 or status == 429 else DownloadError
        raise kind(f"it answered {status}") from error
    except httpx2.HTTPError as error:
        raise _Broken(printable(str(error)) or type(error).__name__) from error
    except httpx2.InvalidURL as error:
        raise DownloadError(f"its address is invalid: {error}") from error


def _client(use: IndexSettings, host: str) -> httpx2.Client:
    try:
        context = ssl.create_default_context(cafile=use.certificates) if use.certificates else True
        return httpx2.Client(
            timeout=_TIMEOUT_S,
            follow_redirects=True,
            verify=context,
            proxy=use.proxy,
            mounts=network.mounts(host),
        )
    except (OSError, ValueError, ImportError) as error:
        raise DownloadError(
            f"the proxy or the certificates cannot be used: {reason(error)}"
        ) from error


def _listed(client: httpx2.Client, page: str, package: str, version: str) -> Wheel | None:
    """The wheel in the list of files at ``page``, or None. Raises :class:`DownloadError`."""
    with client.stream("GET", page, headers={"Accept": _ACCEPT}) as response:
        if response.status_code == 404:
            return None
        response.raise_for_status()
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > _MAX_PAGE:
                raise DownloadError("its list of files never ends")
        is_json = "json" in response.headers.get("content-type", "")
        place = str(response.url)
    try:
        files = msgspec.json.decode(body, type=_Page).files if is_json else _links(bytes(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DownloadError("its list of files cannot be read") from error
    for file in files:
        parts = file.filename.removesuffix(".whl").split("-")
        if (
            file.filename.endswith(".whl")
            and (_normal(parts[0]), parts[1:2]) == (_normal(package), [version])
            and parts[-2:] == ["none", "any"]
        ):
            return Wheel(urljoin(place, file.url), file.hashes.get("sha256", ""))
    return None


class _Links(HTMLParser):
    """The files of an index that does not speak JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[_IndexedFile] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        link = dict(attrs).get("href")
        if tag == "a" and link:
            url, fragment = urldefrag(link)
            name, _, digest = fragment.partition("=")
            hashes = {name: digest} if digest else {}
            file = httpx2.URL(urljoin("http://index/", url)).path.rpartition("/")[2]
            self.files.append(_IndexedFile(file, url, hashes))


def _links(body: bytes) -> list[_IndexedFile]:
    parser = _Links()
    parser.feed(body.decode("utf-8", "replace"))
    return parser.files


def _receive(client: httpx2.Client, url: str, file: BinaryIO, most: int, meter: Meter) -> None:
    """Ask once for what is missing of ``file``."""
    start = file.tell()
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    meter.done = min(start, meter.total)
    with client.stream("GET", url, headers=headers) as response:
        if start and response.status_code == _NOT_SATISFIABLE:  # nothing is missing
            return
        response.raise_for_status()
        if response.status_code != _PARTIAL_CONTENT:  # it sends all of it
            file.seek(0)
            file.truncate()
        for piece in response.iter_raw():
            file.write(piece)
            file.flush()
            meter.done = min(file.tell(), meter.total)
            if file.tell() > most:
                file.truncate(0)  # another time it begins anew
                raise DownloadError(f"it sends more than {size(most)}")


def _normal(name: str) -> str:
    """The name of a package as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _pip() -> dict[str, str]:
    """pip's settings: those of its files, the nearest last, and of the environment over them."""
    name = "pip.ini" if sys.platform == "win32" else "pip.conf"
    shared = platformdirs.site_config_dir("pip", appauthor=False, multipath=True)
    files = [Path(each) / name for each in reversed(shared.split(os.pathsep))]
    files += [Path("/etc/pip.conf")] if sys.platform != "win32" else []
    with suppress(RuntimeError):  # a user without a home
        files.append(Path.home() / ("pip" if sys.platform == "win32" else ".pip") / name)
        user = platformdirs.user_config_path("pip", appauthor=False, roaming=True)
        files.append(user / name)
    files.append(Path(sys.prefix) / name)
    if own := os.environ.get("PIP_CONFIG_FILE"):
        files = [] if own == os.devnull else [*files, Path(own)]
    found: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue  # pip would stop; we may do without
        for section in ("global", "download"):
            if parser.has_section(section):
                found |= dict(parser.items(section))
    for key, value in os.environ.items():
        if key.startswith("PIP_") and value:
            found[key.removeprefix("PIP_").lower().replace("_", "-")] = value
    return found
