"""The keys that do something now, along the foot of the screen."""

from __future__ import annotations

from textual.screen import Screen
from textual.widgets import Footer

_WAIT = 0.05  # seconds


class Keys(Footer):
    """Textual's own, but made anew only when other keys are to be shown, and not on the way.

    The focus goes from one message to another by way of the prompt. To make all keys anew each time
    was half of what a jump in a long chat took.
    """

    _looking = False
    _shown: object = None

    def bindings_changed(self, screen: Screen[object]) -> None:
        self._bindings_ready = True
        here = self.is_attached and screen is self.screen
        if here and screen.app.app_focus and not self._looking:
            self._looking = True
            self.set_timer(_WAIT, self._update_keys)

    async def _update_keys(self) -> None:
        self._looking = False
        shown = [
            (binding.key, binding.description, binding.action, enabled, tooltip)
            for _, binding, enabled, tooltip in self.screen.active_bindings.values()
            if binding.show
        ]
        if shown != self._shown:
            self._shown = shown
            await self.recompose()
