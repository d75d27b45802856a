"""What tests of the app share."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import parsed_styles
import pytest
from terminal_user import OpenApp, at_the_terminal

from ondevice.chats import Chats
from tui.idle_gc import _forget_drawn

parsed_styles.share()

_MANY = 30_000  # objects: several times as many as an app has


@pytest.fixture(autouse=True)
def garbage() -> Iterator[None]:
    """What was loaded for one app is not looked through again whenever another one is idle."""
    yield
    if len(gc.get_objects(generation=2)) > _MANY:
        _forget_drawn()
        gc.collect()
        gc.freeze()


@pytest.fixture
def open_app(chats: Chats, tmp_path: Path) -> OpenApp:
    """Opens the app with an engine, and perhaps an earlier conversation."""
    model = tmp_path / "Tiny-1B.gguf"
    model.touch()
    return partial(at_the_terminal, chats=chats, model=model)
