"""A store that is in no file."""

from __future__ import annotations

import threading
from pathlib import Path

from ondevice.store._database import Database, prepared
from ondevice.store._sqlite import connect


class TransientDatabase(Database):
    """A store in RAM only: nothing of it is ever on the disk, and it is gone once closed."""

    def __init__(self) -> None:
        self.path = Path(":memory:")
        self.read_only = None
        self._lock = threading.RLock()
        self._passphrase = None
        self._connection = prepared(
            connect(":memory:", isolation_level=None, check_same_thread=False)
        )
        self._connection.execute("PRAGMA temp_store=MEMORY")
        self._migrate()

    def backup(self) -> Path:
        return self.path

    def set_passphrase(self, passphrase: str | None) -> None:
        """Nothing needs to be encrypted."""

    def state_key(self, conversation_id: int | None) -> tuple[str, bytes] | None:
        return None

    def delete_states(self, conversation_id: int | None = None) -> None:
        """There are none."""

    def scrub(self) -> None:
        """There is no file that could hold what was deleted."""
