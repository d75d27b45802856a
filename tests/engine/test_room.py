"""Room that is made beside the weights, at their cost."""

from __future__ import annotations

import io
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_model

from ondevice import llama
from ondevice.engine import _session
from ondevice.engine._loading import load_model
from ondevice.engine._room import Room
from ondevice.engine._session import Session
from ondevice.errors import MemoryShortError, NativeError
from ondevice.llama import Context
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


@pytest.mark.parametrize("error", [MemoryShortError("There is none."), NativeError("It fails.")])
def test_room_for_a_context_that_could_not_grow_is_given_back(
    error: Exception, default_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama.start(io.StringIO())
    load = Load(path=str(default_model), n_ctx=256)
    held = load_model(load, lambda _: None, threading.Event())
    held = replace(held, may_grow=True)  # as if the user had not asked for so many
    room = Room(held, None, lambda _: None, lambda: None)
    before = room._sizer._beside

    grown = []

    def fail(n_ctx: int) -> None:
        grown.append(n_ctx)
        raise error

    monkeypatch.setattr(held.context, "grow", fail)
    with suppress(NativeError):
        room.want_context(held.context.n_ctx + 1)
    assert grown == [512] and room._sizer._beside == before
    room.close()
    held.close()


@pytest.mark.parametrize("n_bytes", [1000, 10**15])
def test_room_for_a_checkpoint_is_made_once(
    n_bytes: int, default_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama.start(io.StringIO())
    held = load_model(Load(path=str(default_model), n_ctx=256), lambda _: None, threading.Event())
    room = Room(held, None, lambda _: None, lambda: None)
    before = room._sizer._beside
    monkeypatch.setattr(Context, "checkpoint_bytes", n_bytes)
    for _ in range(2):
        assert room.for_checkpoint() == (n_bytes == 1000)
        assert room._sizer._beside - before == (1000 if n_bytes == 1000 else 0)
    room.close()
    held.close()
