"""Which theme a terminal can show."""

from __future__ import annotations

from typing import Any

from textual.app import App

PLAIN = "ansi-dark"  # the terminal's own colours, whether these are dark or light


def shown(app: App[Any], wanted: str) -> str:
    """The theme to show where this one is wanted: with 16 colours, one that needs no more.

    Others are made of shades, which all become the same colour there.
    """
    if app.no_color:
        return PLAIN
    theme = app.available_themes.get(wanted)
    if theme is None:
        return app.theme
    few = not app.is_headless and app.console.color_system in ("standard", None)
    return PLAIN if few and not theme.ansi else wanted
