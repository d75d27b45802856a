"""The terminal app with the fake engine, to be run in a terminal: ``fake_chat.py STORE REPLY…``.

The model is a file ``*.gguf`` beside the store, made if need be. Each reply is a JSON list of
pieces of text; null is a place where it waits until it is cancelled.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

from ondevice.chats import Chats
from ondevice.config import Settings
from ondevice.store import Database
from ondevice.testing import FakeEngine, Gate, Step
from tui.app import OndeviceApp


def script(pieces: list[str | None]) -> list[Step]:
    return [Gate() if piece is None else piece for piece in pieces]


def main(store: str, *replies: str) -> int:
    folder = Path(store).parent
    (folder / "Tiny-1B.gguf").touch()
    model = min(folder.glob("*.gguf"))
    engine = FakeEngine(*(script(json.loads(reply)) for reply in replies))
    with closing(Database(Path(store))) as database:
        app = OndeviceApp(engine, Chats(database), Settings(model=str(model)))
        app.run()
    return app.return_code or 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
