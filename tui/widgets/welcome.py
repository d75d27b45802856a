"""What stands in a conversation before its first message."""

from __future__ import annotations

from textual.widgets import Static


class Welcome(Static):
    def __init__(self) -> None:
        super().__init__(
            "[b]ondevice[/b]\n\nThe model runs on this device.\nNothing you write leaves it."
            "\n\n[dim]/ for commands · F1 for keys[/dim]"
        )
