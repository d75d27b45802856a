"""The terminal app on top of ondevice."""

from __future__ import annotations

import sys
from contextlib import suppress
from types import ModuleType
from typing import Any

_TYPES = "textual.types"


def _import_palette() -> None:
    """Import Textual's command palette without the widgets that only its annotations name, such as
    trees: a thirtieth of the start."""
    if _TYPES in sys.modules:
        return
    sys.modules[_TYPES] = types = ModuleType(_TYPES)
    vars(types)["IgnoreReturnCallbackType"] = Any
    with suppress(ImportError):  # another version takes more from there, and imports it itself
        import textual.command  # noqa: F401, PLC0415
    del sys.modules[_TYPES]


_import_palette()
