"""Fetches files from the Hugging Face hub, and goes on where an earlier attempt ended.

``huggingface_hub`` knows where the hub is, who we are and what it answers (``HF_ENDPOINT``,
``HF_TOKEN``, ``HF_HUB_OFFLINE``, proxies). Its own download begins anew in each process, so the
bytes are asked for here.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from huggingface_hub import (
    HfApi,
    constants,
    errors,
    get_hf_file_metadata,
    get_session,
    hf_hub_url,
    hf_raise_for_status,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from ondevice import gguf
from ondevice.errors import DownloadError, ModelFileError
from ondevice.models import _own_folder, _scan
from ondevice.models._meter import Meter
from ondevice.models._records import HubSource, Provenance
from ondevice.text import reason

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PIECE = 1 << 20  # bytes
_ATTEMPTS = 5  # in a row, after the first, that bring next to nothing
_LITTLE = 1 << 16  # bytes, less than which is that
_LONGEST_WAIT = 8.0  # seconds between two of them
_PARTIAL_CONTENT = 206
_TOO_MANY = 429
_LONGEST_ASKED = 60.0  # seconds that a hub may ask us to wait
_USUAL = ("Q4_K_M", "Q4_0", "Q8_0")  # quantizations, the first that is there
_SHOWN = 30  # files

#: Base of all errors of the HTTP library, which is not the same for each version of the hub's.
_HTTPError: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]


class _Remote(NamedTuple):
    """A file on the hub."""

    url: str  # of this very version
    size_bytes: int
    sha256: str
    path: Path  # where it goes

    @property
    def part(self) -> Path:
        """What is there of it; of another version of the file it has another name."""
        return self.path.with_name(f"{self.path.name}.{self.sha256[:16]}.part")


def fetch(source: HubSource, folder: Path, meter: Meter) -> None:
    """Put the file, of a split model all, into ``folder``, whole and checked.

    Raises :class:`DownloadError`, :class:`ModelFileError` and :class:`DiskSpaceError`. What has
    come so far is kept for the next time.
    """
    with _hub_errors_of(source):
        subfolder, _, name = source.file.rpartition("/")
        names = gguf.part_names(name)
        in_repo = [f"{subfolder}/{each}" if subfolder else each for each in names]
        files = [_locate(source, file, folder / Path(file).name) for file in in_repo]
        for old in set(folder.glob("*.part")) - {file.part for file in files}:
            old.unlink()
        meter.total = sum(file.size_bytes for file in files)
        for file in files:  # those of another version, or of another repository
            if file.path.exists() and not _is_whole(file, meter):
                file.path.unlink()
        there = sum(_size(file.path) + _size(file.part) for file in files)
        _own_folder.check_disk(folder, meter.total - there)
        known = Provenance(origin=source.origin, sha256=tuple(file.sha256 for file in files))
        for file in files:
            _fetch(file, known, meter)
    nature = _scan.nature(files[0].path)
    if nature is None or not nature.can_chat:
        _own_folder.remove_provenance(folder)
        for file in files:
            file.path.unlink()
        raise ModelFileError(f"{source.origin} is not a chat model. Choose another file.")


def file_in(repo: str, tag: str) -> str:
    """The GGUF file of a repository whose quantization is ``tag``, of a split model its first part.

    Without a tag the usual quantization, or the only file. Raises :class:`DownloadError`.
    """
    with _hub_errors_of(HubSource(repo=repo, file="")):
        # Asked for its files alone, the hub's library tries for half a minute, and says so.
        about = HfApi(os.environ.get("HF_ENDPOINT") or None).model_info(repo)
    there = [sibling.rfilename for sibling in about.siblings or ()]
    files = [file for file in there if file.lower().endswith(".gguf") and "mmproj" not in file]
    files = [file for file in files if gguf.part_names(Path(file).name)[0] == Path(file).name]
    wanted = [tag] if tag and tag.lower() != "latest" else list(_USUAL)
    for each in wanted:
        named = re.compile(rf"(?<![a-z0-9]){re.escape(each.lower())}(?![a-z0-9_])")
        found = [file for file in files if named.search(Path(file).name.lower())]
        if len(found) == 1:
            return found[0]
    if len(files) == 1 and wanted != [tag]:
        return files[0]
    names = "".join(f"\n  {repo}/{file}" for file in files[:_SHOWN])
    what = f"Name one of its files:{names}" if files else "It has no GGUF files."
    raise DownloadError(f"{repo} has several files, or none. {what}")


def _locate(source: HubSource, file: str, path: Path) -> _Remote:
    """Ask the hub for size, sha256 and version."""
    found = get_hf_file_metadata(hf_hub_url(source.repo, file))
    if (found.size or 0) <= 0 or not _SHA256.fullmatch(found.etag or ""):
        raise DownloadError(
            f"{constants.ENDPOINT} gives no size or no sha256 for {source.repo}/{file}, so the "
            "file could not be checked and was not downloaded. Use another hub: see HF_ENDPOINT."
        )
    assert found.etag is not None
    assert found.size is not None
    if source.sha256 not in (None, found.etag):
        raise DownloadError(
            f"{source.origin} is not the expected file: the hub gives its sha256 as "
            f"{found.etag} instead of {source.sha256}. Update ondevice; if that does not "
            "help, the file may have been tampered with."
        )
    url = hf_hub_url(source.repo, file, revision=found.commit_hash)
    return _Remote(url, found.size, found.etag, path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_whole(remote: _Remote, meter: Meter) -> bool:
    """Whether the file is there, such as a part of a split model that was fetched before."""
    with remote.path.open("rb") as file:
        there = _PartialFile(file, meter)
    if there.sha256 != remote.sha256:
        meter.done -= there.size_bytes
        return False
    return True


def _fetch(remote: _Remote, provenance: Provenance, meter: Meter) -> None:
    if remote.path.exists():
        return
    try:
        with remote.part.open("a+b") as file:
            part = _PartialFile(file, meter)
            _receive(remote, part)
            os.fsync(file.fileno())
    finally:
        if not _size(remote.part):
            remote.part.unlink(missing_ok=True)
    if part.sha256 != remote.sha256:
        remote.part.unlink()
        raise DownloadError(
            f"{remote.path.name} arrived damaged: its sha256 is {part.sha256} instead of "
            f"{remote.sha256}. Nothing was kept. Try again."
        )
    # First: whatever ends this process, no model is there of which nobody knows where it is from.
    _own_folder.write_provenance(remote.path.parent, provenance)
    remote.part.replace(remote.path)


class _PartialFile:
    """What has come of a file, on the disk after each piece, and its sha256."""

    def __init__(self, file: BinaryIO, meter: Meter) -> None:
        self.size_bytes = 0
        self._file = file
        self._meter = meter
        self._digest = hashlib.sha256()
        file.seek(0)
        meter.done += os.fstat(file.fileno()).st_size  # of an earlier attempt
        while piece := file.read(_PIECE):
            self._count(piece)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def append(self, piece: bytes) -> None:
        self._file.write(piece)
        self._file.flush()
        self._count(piece)
        self._meter.done += len(piece)

    def clear(self) -> None:
        self._file.truncate(0)
        self._digest = hashlib.sha256()
        self._meter.done -= self.size_bytes
        self.size_bytes = 0

    def _count(self, piece: bytes) -> None:
        self._digest.update(piece)
        self.size_bytes += len(piece)


def _receive(remote: _Remote, part: _PartialFile) -> None:
    """Fetch what is missing of ``part``, and try again when the connection breaks."""
    failures = 0
    while (start := part.size_bytes) < remote.size_bytes:
        wait = min(2.0 ** (failures + 1) / 4, _LONGEST_WAIT)
        try:
            _stream(remote, part)
        except _HTTPError as error:
            if failures == _ATTEMPTS:
                raise
            if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
                asked = _asked_to_wait(error)
                if asked is None:
                    raise
                wait = asked
        if part.size_bytes >= min(start + _LITTLE, remote.size_bytes):
            failures = 0
            continue
        if failures == _ATTEMPTS:
            raise DownloadError(
                f"The hub did not send the rest of {remote.path.name}. What has come is kept. "
                "Try again later."
            )
        failures += 1
        time.sleep(wait)


def _asked_to_wait(error: HfHubHTTPError) -> float | None:
    """Seconds after which to ask again, if the hub says so and they are few."""
    said = error.response.headers.get("Retry-After", "")
    if error.response.status_code != _TOO_MANY or not said.isdecimal():
        return None
    return float(said) if float(said) <= _LONGEST_ASKED else None


def _stream(remote: _Remote, part: _PartialFile) -> None:
    """Ask once for what is missing of ``part``."""
    headers = {"Range": f"bytes={part.size_bytes}-", "Accept-Encoding": "identity"}
    with get_session().stream(
        "GET",
        remote.url,
        headers=build_hf_headers(headers=headers),
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
    ) as response:
        hf_raise_for_status(response)
        if "text/html" in response.headers.get("content-type", ""):
            raise DownloadError(
                f"A web page arrived instead of {remote.path.name}: this network probably "
                "wants you to log in first. Open any page in a browser, then try again."
            )
        if response.status_code != _PARTIAL_CONTENT:  # it sends all of it
            part.clear()
        for piece in response.iter_bytes():
            part.append(piece[: remote.size_bytes - part.size_bytes])
            if part.size_bytes >= remote.size_bytes:
                break


@contextmanager
def _hub_errors_of(source: HubSource) -> Generator[None]:
    """Say what the hub's errors mean and what to do."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise DownloadError(
            f"{source.origin} was not downloaded: HF_HUB_OFFLINE is set. Unset it to go online."
        ) from error
    except HFValidationError as error:
        raise DownloadError(f"{source.repo} cannot be a repository on the hub: {error}") from error
    except HfHubHTTPError as error:
        raise DownloadError(_meaning(source, error)) from error
    except (ImportError, ValueError) as error:
        raise DownloadError(
            f"The hub at {constants.ENDPOINT} cannot be used: {error}. Check HF_ENDPOINT, "
            "and the proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY."
        ) from error
    except _HTTPError as error:
        raise DownloadError(
            f"The hub at {constants.ENDPOINT} cannot be reached, or stopped answering: "
            f"{reason(error)}. Check the network, the proxy and HF_ENDPOINT, then try again."
        ) from error


def _meaning(source: HubSource, error: HfHubHTTPError) -> str:
    status = error.response.status_code
    page = f"{constants.ENDPOINT}/{source.repo}"
    match status:
        case 401 | 403:
            return (
                f"The hub does not let you download {source.origin} ({status}). If {page} "
                "exists, accept its conditions there, and set HF_TOKEN to a token with "
                "read access (or run: hf auth login)."
            )
        case 404:
            what = source.origin.rstrip("/")
            return f"The hub has no {what}. See {page} for what it has."
        case 429:
            return "The hub received too many requests from here. Try again in a few minutes."
        case _:
            return f"The hub answered {status} for {source.origin}. Try again later."
