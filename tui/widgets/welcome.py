"""What stands in a conversation before its first message."""

from __future__ import annotations

from collections.abc import Mapping

from textual.content import Content
from textual.widgets import Static

from ondevice.messages import server_of
from ondevice.text import printable

_MEMORIES = {
    None: "\nMemories stay here until you agree.",
    True: "\nRelevant memories are sent along.",
    False: "\nMemories stay here.",
}


class Welcome(Static):
    """``path`` is that of the model, as in :class:`~ondevice.messages.Load`.

    ``send_memories`` says for servers whether memories may go there, as the setting does; None: the
    chat has none.
    """

    def __init__(self, path: str = "", send_memories: Mapping[str, bool] | None = None) -> None:
        super().__init__()
        self._recalls = send_memories is not None
        self.describe(path, send_memories or {})

    def describe(self, path: str, send_memories: Mapping[str, bool]) -> None:
        """Say what becomes of the user's words with the model of this path."""
        if (server := server_of(path)) is not None:
            where = (
                "The model runs on a server.\nWhat you write goes to "
                f"{printable(server)}.{self._recalls * _MEMORIES[send_memories.get(server)]}"
            )
        else:
            where = "The model runs on this device.\nNothing you write leaves it."
        keys = "/ for commands · F1 for keys"
        self.update(Content.assemble(("ondevice", "bold"), f"\n\n{where}\n\n", (keys, "dim")))
