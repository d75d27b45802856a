"""Widgets that are in place once the screen has been arranged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.geometry import Size

if TYPE_CHECKING:
    from textual.widget import Widget
else:
    Widget = object  # as the first base it would take the place of the other one's styles


class SingleLayout(Widget):
    """Has the screen not arranged a second time when it has got another size.

    Textual does so because scrollbars may have come, and asks for it once more where they have.
    """

    def _size_updated(
        self, size: Size, virtual_size: Size, container_size: Size, layout: bool = True
    ) -> bool:
        return super()._size_updated(size, virtual_size, container_size, layout=False)
