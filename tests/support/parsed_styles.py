"""Has Textual parse each style sheet once in a process, not once for each app that a test opens."""

from __future__ import annotations

from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet
from textual.css.types import CSSLocation

_parse = Stylesheet._parse_rules
_parsed: dict[tuple[object, ...], list[RuleSet]] = {}


def _parse_once(
    self: Stylesheet,
    css: str,
    read_from: CSSLocation,
    is_default_rules: bool = False,
    tie_breaker: int = 0,
    scope: str = "",
) -> list[RuleSet]:
    """The rules, which nothing changes; Textual keeps them too, until variables of a theme do."""
    of_file = css, read_from, is_default_rules, tie_breaker, scope
    key = (frozenset(self._variables.items()), *of_file)
    if key not in _parsed:
        _parsed[key] = _parse(self, *of_file)
    return _parsed[key]


def share() -> None:
    """From now on."""
    setattr(Stylesheet, "_parse_rules", _parse_once)  # noqa: B010 - mypy minds it
