"""A line that is composed for the width it is drawn with."""

from __future__ import annotations

from collections.abc import Callable

from textual.content import Content
from textual.css.styles import RulesMap
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual


class FullWidth(Visual):
    """Something at the left, and something at the right, say, however wide its widget becomes.

    ``compose`` gives the line for so many cells.
    """

    def __init__(self, compose: Callable[[int], Content]) -> None:
        self._compose = compose

    def render_strips(
        self, width: int, height: int | None, style: Style, options: RenderOptions
    ) -> list[Strip]:
        return self._compose(width).render_strips(width, height, style, options)

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        return container_width

    def get_height(self, rules: RulesMap, width: int) -> int:
        return self._compose(width).get_height(rules, width)
