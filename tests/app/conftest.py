"""What tests of the app share."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import parsed_styles
import pytest
from terminal_user import OpenApp, at_the_terminal

from ondevice.chats import Chats

parsed_styles.share()


@pytest.fixture
def open_app(chats: Chats, tmp_path: Path) -> OpenApp:
    """Opens the app with an engine, and perhaps an earlier conversation."""
    model = tmp_path / "Tiny-1B.gguf"
    model.touch()
    return partial(at_the_terminal, chats=chats, model=model)
