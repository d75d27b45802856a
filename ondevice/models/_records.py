"""Records of models: what can be had, what is on disk, how far a download is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec


class WheelSource(
    msgspec.Struct, frozen=True, kw_only=True, tag="wheel", forbid_unknown_fields=True
):
    """A wheel on the Python package index that carries the weights as one of its files."""

    package: str
    version: str
    member: str  # path within the wheel
    sha256: str


class HubSource(msgspec.Struct, frozen=True, kw_only=True, tag="hub", forbid_unknown_fields=True):
    """A file in a repository on the Hugging Face hub."""

    repo: str  # owner/name
    file: str
    revision: str = "main"
    sha256: str | None = None  # None: what the hub itself says


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of the catalogue and where it can be fetched."""

    name: str
    title: str
    parameters: str  # such as "1.5B" or "30B-A3B"
    quantization: str
    size_bytes: int
    context: int  # tokens
    license: str
    sources: tuple[WheelSource | HubSource, ...]  # tried in order


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model that is on disk."""

    name: str  # what to call it in commands
    path: Path  # the GGUF file; the first part of a split one
    size_bytes: int  # all parts
    source: Literal["ondevice"]  # whose folder it is in


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a download is."""

    done_bytes: int
    total_bytes: int
