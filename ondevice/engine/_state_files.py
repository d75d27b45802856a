"""What has been computed of conversations, on the disk: a folder of encrypted files.

Each file has some tokens with their state. Its name says after which others they come. The key
of a folder is in the app's private store, and without it the files are noise: who deletes the key
has forgotten them. A file that was cut, changed or renamed does not decrypt, and is deleted.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from ondevice.disk.states import SUFFIX
from ondevice.messages import StateKey
from ondevice.system.whole_file import replacing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_MAGIC = b"odstate1"
_HEAD = struct.Struct("<12s12sI")  # nonces of head and state, length of the encrypted head


class Head(NamedTuple):
    """What a file says of itself."""

    name: str
    parent: str  # name of the tokens before these; empty: these are the first
    tokens: tuple[int, ...]


def packed(tokens: Sequence[int]) -> bytes:
    """Tokens as 32-bit integers, little-endian."""
    return struct.pack(f"<{len(tokens)}i", *tokens)


class StateFolder:
    """The files of one key in ``folder / key.name``, a folder that must exist to be written to."""

    def __init__(self, folder: Path, key: StateKey) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 8 MB of RAM

        self.path = folder / key.name
        self.key = key
        self._cipher: AESGCM = AESGCM(key.secret)
        self._known: set[str] = set()

    def new_heads(self) -> Iterator[Head]:
        """Of the files that were not there when this was last asked."""
        names = set()
        with contextlib.suppress(OSError):  # forgotten, or nothing kept yet
            names = {each.stem for each in self.path.iterdir() if each.suffix == SUFFIX}
        for name in sorted(names - self._known):
            if (head := self._head(name)) is not None:
                self._known.add(name)
                yield head
        self._known &= names

    def has(self, name: str) -> bool:
        return name in self._known

    def read(self, name: str, room: bytearray) -> bytes | None:
        """The state, None if there is none that is whole. Marks it as used.

        ``room`` is what the file is read into, and gets as long as it must.
        """
        path = self._file(name)
        with contextlib.suppress(OSError), path.open("rb") as file:
            if (nonces := self._begin(file)) is not None:
                _, nonce, length = nonces
                n_bytes = os.fstat(file.fileno()).st_size - file.seek(length, os.SEEK_CUR)
                room.extend(bytes(max(0, n_bytes - len(room))))
                n_bytes = file.readinto(memoryview(room)[:n_bytes])
                state = self._decrypt(nonce, memoryview(room)[:n_bytes], f"{name} state")
                if state is not None:
                    os.utime(path)
                    return state
        self._drop(name)
        return None

    def write(self, head: Head, state: bytes | bytearray) -> int:
        """Keep it; returns the bytes written. Raises :class:`OSError`."""
        said = bytes.fromhex(head.parent).ljust(16, b"\0") + packed(head.tokens)
        nonces = os.urandom(12), os.urandom(12)
        encrypted = self._cipher.encrypt(nonces[0], said, f"{head.name} head".encode())
        with replacing(self._file(head.name)) as file:
            file.write(_MAGIC + _HEAD.pack(*nonces, len(encrypted)) + encrypted)
            file.write(self._cipher.encrypt(nonces[1], state, f"{head.name} state".encode()))
            n_bytes = file.tell()
        self._known.add(head.name)
        return n_bytes

    def _head(self, name: str) -> Head | None:
        with contextlib.suppress(OSError), self._file(name).open("rb") as file:
            if (nonces := self._begin(file)) is not None:
                nonce, _, length = nonces
                said = self._decrypt(nonce, file.read(length), f"{name} head")
                if said is not None:
                    tokens = tuple(token for (token,) in struct.iter_unpack("<i", said[16:]))
                    return Head(name, said[:16].hex() if said[:16].strip(b"\0") else "", tokens)
        self._drop(name)
        return None

    def _begin(self, file: BinaryIO) -> tuple[bytes, bytes, int] | None:
        begin = file.read(len(_MAGIC) + _HEAD.size)
        if len(begin) < len(_MAGIC) + _HEAD.size or not begin.startswith(_MAGIC):
            return None
        first, second, length = _HEAD.unpack(begin[len(_MAGIC) :])
        return first, second, length

    def _decrypt(self, nonce: bytes, encrypted: bytes | memoryview, what: str) -> bytes | None:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - see above

        try:
            return self._cipher.decrypt(nonce, encrypted, what.encode())
        except InvalidTag:
            return None

    def _drop(self, name: str) -> None:
        self._known.discard(name)
        with contextlib.suppress(OSError):
            self._file(name).unlink()

    def _file(self, name: str) -> Path:
        return self.path / f"{name}{SUFFIX}"
