"""Panels that stay open beside the conversation where there is room, and lie over it elsewhere."""

from __future__ import annotations

from textual.widget import Widget

from tui.screens.chat_base import ChatBase

_OPENS, _CLOSES = 120, 100  # columns from which on a panel is beside, and below which it is closed
_BOTH = 180  # columns from which on there is room for one on each side


class ChatPanels(ChatBase):
    @property
    def has_room(self) -> bool:
        """Whether a panel goes beside the conversation."""
        return self.app.size.width >= _OPENS

    async def open_beside(self, panel: Widget) -> None:
        """Open a panel; where there is no room for two, it takes the place of the other one."""
        if self.app.size.width < _BOTH:
            await self.query(".-beside").remove()
        await self.mount(panel, before=0)  # below the footer, which is as wide as the window

    async def goes_to(self, kind: type[Widget]) -> bool:
        """Go to a panel that is open, or close it if that is where the user is; whether it was."""
        panel = next(iter(self.query(kind)), None)
        if panel is None:
            return False
        if not panel.has_focus_within:
            parts = panel.walk_children(Widget, with_self=True)
            self.set_focus(next(one for one in parts if one.focusable))
        else:
            await self._close(panel)
        return True

    async def on_resize(self) -> None:
        width = self.app.size.width
        panels = sorted(self.query(".-beside"), key=lambda panel: panel.has_focus_within)
        for panel in panels if width < _CLOSES else panels[:-1] if width < _BOTH else ():
            await self._close(panel)

    async def _close(self, panel: Widget) -> None:
        if panel.has_focus_within:
            self.set_focus(self.prompt)
        await panel.remove()
