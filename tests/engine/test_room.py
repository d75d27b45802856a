"""Room that is made beside the weights, at their cost."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
import tiny_model

from ondevice import llama
from ondevice.engine import _session
from ondevice.engine._loading import load_model
from ondevice.engine._room import Room
from ondevice.engine._session import Session
from ondevice.errors import MemoryShortError
from ondevice.messages import Generate, Load, Turn


@pytest.mark.parametrize("made", ["Context", "SchemaVocabulary"])
def test_room_for_what_could_not_be_made_is_given_back(
    made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama.start(io.StringIO())
    load = Load(path=str(tiny_model.write(tmp_path / "tiny.gguf")), n_ctx=256)
    held = load_model(load, lambda _: None, threading.Event())
    room = Room(held, None, lambda _: None, lambda: None)
    session = Session(held, room)
    before = room._sizer._beside

    def fail(*_: object, **__: object) -> None:
        raise MemoryShortError("There is no room.")

    monkeypatch.setattr(_session, made, fail)
    with pytest.raises(MemoryShortError):
        if made == "Context":
            session.embed(["sea"], threading.Event())
        else:
            asked = Generate(turns=(Turn("user", "sea"),), json_schema='{"type": "object"}')
            session._constraint(asked)
    assert room._sizer._beside == before
    session.close()
    room.close()
    held.close()
