"""The keys that do something now, along the foot of the screen."""

from __future__ import annotations

from typing import NamedTuple

from textual.content import Content
from textual.events import MouseDown
from textual.screen import Screen
from textual.widget import Widget

_WAIT = 0.05  # seconds


class _ShownKey(NamedTuple):
    key: str
    display: str
    description: str
    enabled: bool


class Keys(Widget):
    """What Textual's Footer shows, drawn as one line; a click on a key presses it.

    The Footer makes a widget for each key, whenever others are to be shown. That was a tenth of
    the start, and half of a jump in a long chat: the focus goes from one message to another by way
    of the prompt, and each of them has other keys. Here they wait until the focus has settled.
    """

    DEFAULT_CSS = """
    Keys {
        dock: bottom;
        height: 1;
        color: $footer-foreground;
        background: $footer-background;
        text-wrap: nowrap;
    }
    """
    ALLOW_SELECT = False

    _looking = False
    _shown: tuple[_ShownKey, ...] = ()
    _palette: _ShownKey | None = None
    """At the right edge."""

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._look_soon)

    def _look_soon(self, screen: Screen[object]) -> None:
        if screen.app.app_focus and not self._looking:
            self._looking = True
            self.set_timer(_WAIT, self._look)

    def _look(self) -> None:
        self._looking = False
        shown: dict[str, _ShownKey] = {}  # by what they do: of several keys, the first
        palette = None
        for _, binding, enabled, _ in self.screen.active_bindings.values():
            display = self.app.get_key_display(binding)
            key = _ShownKey(binding.key, display, binding.description, enabled)
            if binding.key == self.app.COMMAND_PALETTE_BINDING:
                palette = key
            elif binding.show:
                shown.setdefault(binding.action, key)
        if (tuple(shown.values()), palette) != (self._shown, self._palette):
            self._shown, self._palette = tuple(shown.values()), palette
            self.refresh()

    def render(self) -> Content:
        keys = Content.assemble(*(_drawn(key) for key in self._shown))
        if self._palette is None:
            return keys
        edge = " " if self.app.has_class("-linear") else "▏"
        palette = Content.assemble((edge, "$foreground 20%"), _drawn(self._palette)[1:])
        left = max(0, self.size.width - palette.cell_length)
        return Content.assemble(keys.truncate(left, pad=True), palette)

    def on_mouse_down(self, event: MouseDown) -> None:
        if (key := self._key_at(event.x)) is None:
            return
        if key.enabled:
            self.app.simulate_key(key.key)
        else:
            self.app.bell()

    def _key_at(self, x: int) -> _ShownKey | None:
        end = self.size.width
        if (palette := self._palette) is not None:
            end -= _drawn(palette).cell_length
            if x >= end:
                return palette
        for key in self._shown:
            x -= _drawn(key).cell_length
            if x < 0:
                return key
        return None


def _drawn(key: _ShownKey) -> Content:
    drawn = Content.assemble(
        (f" {key.display} ", "bold $footer-key-foreground on $footer-key-background"),
        (f"{key.description} ", "$footer-description-foreground on $footer-description-background"),
    )
    return drawn if key.enabled else drawn.stylize("dim")
