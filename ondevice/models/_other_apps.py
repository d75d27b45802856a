"""Finds the models that other apps have fetched; they are used where they are, never changed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import msgspec

from ondevice.checking import work_out
from ondevice.models import _scan
from ondevice.models._records import InstalledModel, Place

_MAX_REPOS = 1000
_MAX_MANIFEST = 1 << 18  # bytes
_OLLAMA_MODEL = "application/vnd.ollama.image.model"
#: Media type of a layer → what Ollama adds to the model with it.
_OLLAMA_EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "application/vnd.ollama.image.adapter": "adapter",
        "application/vnd.ollama.image.system": "system prompt",
        "application/vnd.ollama.image.params": "parameters",
        "application/vnd.ollama.image.template": "template",
    }
)
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def models() -> Iterator[InstalledModel]:
    """Models in the caches of Hugging Face and llama.cpp and in the folders of other apps."""
    yield from _hugging_face()
    yield from _ollama()
    yield from _lm_studio()
    yield from _llama_cpp()
    yield from _gpt4all()
    yield from _jan()


# ------------------------------------------------------------------ Hugging Face


def _hugging_face_cache() -> Path:
    """Where ``huggingface_hub`` keeps its files; importing it to ask would take 0.2 s."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    hub = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return _path(hub or f"{home}/hub")


def _hugging_face() -> Iterator[InstalledModel]:
    """``models--owner--name/snapshots/commit/file``; the files are links to blobs.

    What several snapshots have is taken from the one that ``refs/main`` names, else from the newest
    one; from the next one if parts of it are missing there.
    """
    repos: list[Path] = []
    with suppress(OSError):  # it may be somebody else's
        repos += sorted(_hugging_face_cache().glob("models--*"))[:_MAX_REPOS]
    for repo in repos:
        owner_and_name = repo.name.removeprefix("models--").replace("--", "/")
        found: dict[str, _scan.ModelFiles] = {}
        for snapshot in _snapshots(repo):
            for files in _scan.models(_scan.walk(snapshot, depth=3)):
                in_repo = files.first.relative_to(snapshot).as_posix()
                if in_repo not in found or (found[in_repo].missing and not files.missing):
                    found[in_repo] = files
        for in_repo, files in found.items():
            origin = f"{owner_and_name}/{in_repo}"
            yield from _model(files, _scan.stem(files.first), "Hugging Face", origin)


def _snapshots(repo: Path) -> list[Path]:
    """The one that the repository's main branch was last seen at, then the newest ones first."""
    try:
        main = (repo / "refs" / "main").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        main = ""
    aged: list[tuple[bool, float, Path]] = []
    with suppress(OSError):
        for snapshot in (repo / "snapshots").iterdir():
            aged.append((snapshot.name == main, snapshot.stat().st_mtime, snapshot))
    return [snapshot for *_, snapshot in sorted(aged, reverse=True)]


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
            layers = _ollama_layers(file)
            blob = _ollama_blob(layers)
            if blob is None or len(parts) != 4:
                continue
            name = "/".join(parts[:-1]).removeprefix("registry.ollama.ai/").removeprefix("library/")
            path = folder / "blobs" / blob
            try:
                files = _scan.ModelFiles(path, path.stat().st_size, ())
            except OSError:  # not fetched in full yet
                continue
            kinds = {layer.media_type for layer in layers}
            not_used = tuple(words for kind, words in _OLLAMA_EXTRAS.items() if kind in kinds)
            called = f"{name}:{parts[-1]}"
            for model in _model(files, called, "Ollama", called):
                yield replace(model, not_used=not_used)


def _ollama_layers(manifest: Path) -> tuple[_Layer, ...]:
    try:
        with manifest.open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_MANIFEST), type=_Manifest).layers
    except (OSError, msgspec.MsgspecError, RecursionError):
        return ()


def _ollama_blob(layers: tuple[_Layer, ...]) -> str | None:
    """The name of the file with the weights."""
    digests = [_DIGEST.fullmatch(la.digest) for la in layers if la.media_type == _OLLAMA_MODEL]
    return f"sha256-{digests[0][1]}" if len(digests) == 1 and digests[0] else None


# ------------------------------------------------------------------ LM Studio


class _LMStudioSettings(msgspec.Struct):
    folder: str = msgspec.field(name="downloadsFolder", default="")


work_out(_Manifest, _LMStudioSettings)


def _lm_studio_folders() -> Iterator[Path]:
    """Where its settings say, and the places of today and of the first versions."""
    moved = _first_bytes(_path("~/.lmstudio-home-pointer"))
    for home in [*_configured_folders(moved), _path("~/.lmstudio"), _path("~/.cache/lm-studio")]:
        with suppress(msgspec.MsgspecError, RecursionError):
            settings = msgspec.json.decode(
                _first_bytes(home / "settings.json"), type=_LMStudioSettings
            )
            yield from _configured_folders(settings.folder.encode("utf-8", "replace"))
        yield home / "models"


def _lm_studio() -> Iterator[InstalledModel]:
    """``publisher/name/file.gguf``."""
    for folder in dict.fromkeys(_lm_studio_folders()):
        for files in _scan.models(_scan.walk(folder, depth=3)):
            origin = files.first.relative_to(folder).as_posix()
            yield from _model(files, _scan.stem(files.first), "LM Studio", origin)


# ------------------------------------------------------------------ llama.cpp, GPT4All, Jan


def _llama_cpp() -> Iterator[InstalledModel]:
    """``owner_repo_file.gguf``: what its own programs have fetched."""
    named = os.environ.get("LLAMA_CACHE")
    for folder in [_path(named)] if named else _in_caches("llama.cpp"):
        yield from _flat(folder, "llama.cpp")


def _gpt4all() -> Iterator[InstalledModel]:
    """``file.gguf``, in the folder of its settings or the usual one."""
    config = _path(os.environ.get("XDG_CONFIG_HOME") or "~/.config") / "nomic.ai" / "GPT4All.ini"
    moved = re.search(rb"^modelPath=(.+)$", _first_bytes(config), re.MULTILINE)
    folders = [*_configured_folders(moved[1] if moved else b""), *_in_app_data("nomic.ai/GPT4All")]
    for folder in dict.fromkeys(folders):
        yield from _flat(folder, "GPT4All")


def _jan() -> Iterator[InstalledModel]:
    """``name/model.gguf``, where the name may be several folders; others keep their file's name."""
    for data in [*_in_app_data("Jan/data"), _path("~/.config/Jan/data"), _path("~/jan")]:
        for folder in (data / "llamacpp" / "models", data / "models"):
            for files in _scan.models(_scan.walk(folder, depth=4)):
                origin = files.first.relative_to(folder).as_posix()
                stem = _scan.stem(files.first)
                name = files.first.parent.name if stem == "model" else stem
                yield from _model(files, name, "Jan", origin)


def _flat(folder: Path, place: Place) -> Iterator[InstalledModel]:
    for files in _scan.models(_scan.walk(folder, depth=1)):
        yield from _model(files, _scan.stem(files.first), place, files.first.name)


def _in_caches(name: str) -> list[Path]:
    """Where an app of this name keeps what it can fetch again, whatever system this is."""
    usual = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    places = [f"{usual}/{name}", f"~/Library/Caches/{name}"]
    if local := os.environ.get("LOCALAPPDATA"):
        places.append(f"{local}/{name}")
    return [_path(place) for place in places]


def _in_app_data(name: str) -> list[Path]:
    """Where an app of this name keeps its data, whatever system this is."""
    usual = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    places = [f"{usual}/{name}", f"~/Library/Application Support/{name}"]
    on_windows = [os.environ.get(key) for key in ("LOCALAPPDATA", "APPDATA")]
    places += [f"{folder}/{name}" for folder in on_windows if folder]
    return [_path(place) for place in places]


# ------------------------------------------------------------------ all


def _model(
    files: _scan.ModelFiles, name: str, place: Place, origin: str
) -> Iterator[InstalledModel]:
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
    text = os.path.expandvars(text)
    return Path(os.path.expanduser(text))  # noqa: PTH111 - that of pathlib fails for "~nobody"


def _configured_folders(folder: bytes) -> list[Path]:
    """The folder that an app's settings name, if it can be one."""
    path = _path(folder.decode("utf-8", "replace").strip())
    return [path] if path.is_absolute() and "\0" not in str(path) else []


def _first_bytes(path: Path) -> bytes:
    """Of a small file of settings; empty if there is none."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return b""
        with path.open("rb") as file:
            return file.read(_MAX_MANIFEST)
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return b""
