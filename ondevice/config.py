"""The user's settings: flag before environment before file before default."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from ondevice import paths
from ondevice.engine.messages import KVType, Load, Preference, Sampling
from ondevice.errors import ConfigError, UsageError
from ondevice.models import InstalledModel, find
from ondevice.ram.available import parse_size


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``config.toml`` may hold; each key is also an environment variable.

    The key ``model`` is ``ONDEVICE_MODEL``, ``sampling.top_k`` is ``ONDEVICE_SAMPLING_TOP_K``.
    """

    model: str = "smollm2-135m"  # a name in the catalogue, a GGUF file, or a server's URL
    system: str = "You are a helpful assistant."  # the system prompt; empty: none
    ctx: int | None = None  # tokens; None: at most 4096, what fits well
    kv_type: KVType | None = None  # of the KV cache; None: f16 unless room is short
    prefer: Preference = "balanced"  # when not everything can be had: speed, quality, or both
    threads: int | None = None  # None: the physical cores
    ram: str | None = None  # a limit such as "1.5G"; None: what is available
    draft: str | None = None  # a smaller model of the same family, when weights are streamed
    memory: bool = True  # whether new chats are remembered and helped by what is remembered
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        """Raises :class:`UsageError` for a ``ram`` that is no size."""
        if self.ram is not None:
            parse_size(self.ram)

    def load_request(self, model: InstalledModel) -> Load:
        """What the engine is asked to load.

        Raises :class:`ModelNotFound` for a ``draft`` that is not on disk.
        """
        return Load(
            path=model.location,
            n_ctx=self.ctx,
            kv_type=self.kv_type,
            prefer=self.prefer,
            n_threads=self.threads,
            ram=parse_size(self.ram) if self.ram else None,
            drafter=str(find(self.draft).path) if self.draft else None,
        )


def load(path: Path | None = None) -> Settings:
    """The settings from the file (``path``, or the usual place) with the environment over it.

    Raises :class:`ConfigError` naming the file or variable and the key that is wrong.
    """
    path = path or paths.config_file()
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        _convert(values, str(path))
    except FileNotFoundError:
        values = {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}. Mend the file or move it away.") from error
    for section, target, names in (
        ("", values, Settings.__struct_fields__),
        ("SAMPLING_", values.setdefault("sampling", {}), Sampling.__struct_fields__),
    ):
        for name in names:
            variable = f"ONDEVICE_{section}{name.upper()}"
            if variable in os.environ and name != "sampling":
                target[name] = os.environ[variable]
                _convert(values, variable)
    return _convert(values, str(path))


def _convert(values: dict[str, Any], source: str) -> Settings:
    try:
        return msgspec.convert(values, Settings, strict=False)
    except (msgspec.ValidationError, UsageError) as error:
        raise ConfigError(f"{source}: {error}") from error
