"""What stands in a conversation before its first message."""

from __future__ import annotations

from urllib.parse import urlsplit

from textual.content import Content
from textual.widgets import Static

from ondevice.engine.messages import URL_SCHEMES
from ondevice.terminal import printable


class Welcome(Static):
    """``path`` is that of the model, as in :class:`~ondevice.engine.messages.Load`."""

    def __init__(self, path: str = "") -> None:
        super().__init__()
        self.tell(path)

    def tell(self, path: str) -> None:
        """Say what becomes of the user's words with the model of this path."""
        if path.startswith(URL_SCHEMES):
            server = urlsplit(path).netloc.rpartition("@")[2]
            where = f"The model is on a server.\nWhat you write goes to {printable(server)}."
        else:
            where = "The model runs on this device.\nNothing you write leaves it."
        keys = "/ for commands · F1 for keys"
        self.update(Content.assemble(("ondevice", "bold"), f"\n\n{where}\n\n", (keys, "dim")))
