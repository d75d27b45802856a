"""The type of KV cache in which each model last computed what is kept of conversations.

In another type, all of that would have to be read again. So a plan that has the same one is taken
while room is short, unless another is clearly better.
"""

from __future__ import annotations

import msgspec

from ondevice import paths
from ondevice.messages import KVType
from ondevice.system.cached import write_cache

_FILE = "kv_types.json"  # in the cache
_MOST = 200  # models, of which the last ones are remembered


def of(path: str) -> KVType | None:
    """The last one of the model in this file, if any."""
    return _read().get(path)


def record(path: str, kv_type: KVType) -> None:
    """Remember it for the next load."""
    before = _read()
    if before.get(path) != kv_type:
        before.pop(path, None)
        newest = dict([*before.items(), (path, kv_type)][-_MOST:])
        write_cache(_FILE, msgspec.json.encode(newest))


def _read() -> dict[str, KVType]:
    try:
        content = (paths.cache_dir() / _FILE).read_bytes()
        return msgspec.json.decode(content, type=dict[str, KVType])
    except (OSError, msgspec.MsgspecError):
        return {}
