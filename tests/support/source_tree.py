"""Where the files of this project are, for tests that read or run them."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
FAKE_CHAT = Path(__file__).with_name("fake_chat.py")
