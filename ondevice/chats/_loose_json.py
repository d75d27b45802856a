"""Values of a JSON text in which anything may be missing, or be something else than it should."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

#: A character beyond the 16 bits of an escape in JSON, half of one, or another escape.
_ESCAPE = re.compile(
    rb"\\(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


class Odd(Exception):
    """Why an object is no chat that can be read, in words of the user."""


def decoded(data: bytes) -> Any:
    """The value; a broken character in it is no reason to lose the rest. Raises :class:`Odd`."""
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        pass
    data = _ESCAPE.sub(lambda found: rb"\ufffd" if found["half"] else found[0], data)
    try:
        return json.loads(data.decode("utf-8", "replace"))  # takes NaN and the like
    except RecursionError:
        raise Odd("it is nested too deeply") from None
    except ValueError:
        raise Odd("it is damaged") from None


def a_dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def a_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def dicts(value: object) -> list[dict[str, Any]]:
    return [one for one in a_list(value) if isinstance(one, dict)]


def a_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def parents_first(parents: Mapping[str, str | None]) -> Iterator[str]:
    """The keys of a tree given as child → parent. Circles are cut where they are met."""
    done: set[str] = set()
    for key in parents:
        path: list[str] = []
        at: str | None = key
        passed: set[str] = set()
        while at is not None and at in parents and at not in done and at not in passed:
            path.append(at)
            passed.add(at)
            at = parents[at]
        done |= passed
        yield from reversed(path)
