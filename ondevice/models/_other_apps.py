"""Finds the models that other apps have fetched; they are used where they are, never changed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ondevice.models import _scan
from ondevice.models._records import InstalledModel, Place

_MAX_REPOS = 1000
_MAX_MANIFEST = 1 << 18  # bytes
_OLLAMA_MODEL = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def models() -> Iterator[InstalledModel]:
    """Models in the Hugging Face cache and in the folders of Ollama and LM Studio."""
    yield from _hugging_face()
    yield from _ollama()
    yield from _lm_studio()


# ------------------------------------------------------------------ Hugging Face


def _hugging_face_cache() -> Path:
    """Where ``huggingface_hub`` keeps its files; importing it to ask would take 0.2 s."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    hub = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return _path(hub or f"{home}/hub")


def _hugging_face() -> Iterator[InstalledModel]:
    """``models--owner--name/snapshots/commit/file``; the files are links to blobs."""
    for repo in sorted(_hugging_face_cache().glob("models--*"))[:_MAX_REPOS]:
        snapshots = repo / "snapshots"
        owner_and_name = repo.name.removeprefix("models--").replace("--", "/")
        for files in _scan.models(_scan.walk(snapshots, depth=4)):
            in_repo = files.first.relative_to(snapshots).parts[1:]
            origin = "/".join((owner_and_name, *in_repo))
            yield from _model(files, _scan.stem(files.first), "Hugging Face", origin)


# ------------------------------------------------------------------ Ollama


class _Layer(msgspec.Struct, rename={"media_type": "mediaType"}):
    media_type: str
    digest: str


class _Manifest(msgspec.Struct):
    layers: tuple[_Layer, ...]


def _ollama_folders() -> tuple[Path, ...]:
    folder = os.environ.get("OLLAMA_MODELS")
    if folder:
        return (_path(folder),)
    # The second one is that of the service which its installer sets up on Linux.
    return (_path("~/.ollama/models"), Path("/usr/share/ollama/.ollama/models"))


def _ollama() -> Iterator[InstalledModel]:
    """``manifests/host/namespace/name/tag`` are JSON and name files in ``blobs``."""
    for folder in _ollama_folders():
        manifests = folder / "manifests"
        for file in _scan.walk(manifests, depth=4):
            parts = file.relative_to(manifests).parts
            blob = _ollama_blob(file)
            if blob is None or len(parts) != 4:
                continue
            name = "/".join(parts[:-1]).removeprefix("registry.ollama.ai/").removeprefix("library/")
            path = folder / "blobs" / blob
            try:
                files = _scan.Files(path, path.stat().st_size, ())
            except OSError:  # not fetched in full yet
                continue
            yield from _model(files, f"{name}:{parts[-1]}", "Ollama", f"{name}:{parts[-1]}")


def _ollama_blob(manifest: Path) -> str | None:
    """The name of the file with the weights."""
    try:
        with manifest.open("rb") as file:
            layers = msgspec.json.decode(file.read(_MAX_MANIFEST), type=_Manifest).layers
    except (OSError, msgspec.MsgspecError):
        return None
    digests = [_DIGEST.fullmatch(la.digest) for la in layers if la.media_type == _OLLAMA_MODEL]
    return f"sha256-{digests[0][1]}" if len(digests) == 1 and digests[0] else None


# ------------------------------------------------------------------ LM Studio


def _lm_studio() -> Iterator[InstalledModel]:
    """``publisher/name/file.gguf``, in the place of today or that of the first versions."""
    for folder in (_path("~/.lmstudio/models"), _path("~/.cache/lm-studio/models")):
        for files in _scan.models(_scan.walk(folder, depth=3)):
            origin = files.first.relative_to(folder).as_posix()
            yield from _model(files, _scan.stem(files.first), "LM Studio", origin)


# ------------------------------------------------------------------ all


def _model(files: _scan.Files, name: str, place: Place, origin: str) -> Iterator[InstalledModel]:
    """The model, unless the file is of another kind or nothing that can be read."""
    nature = _scan.nature(files.first)
    if files.missing or (nature and nature.can_chat):
        yield InstalledModel(
            name=name,
            path=files.first,
            size_bytes=files.size_bytes,
            place=place,
            origin=origin,
            license=nature.license if nature else "",
            missing=files.missing,
        )


def _path(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser()
