"""What the engine does while nobody waits."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest

from ondevice import llama
from ondevice.engine._loading import load_model
from ondevice.engine._room import Room
from ondevice.engine._session import Session
from ondevice.llama import Context
from ondevice.messages import Load


def test_a_reply_is_prepared_even_if_something_was_wanted_right_after_the_load(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama.start(io.StringIO())
    passes: list[int] = []
    decode = Context.decode

    def counted(context: Context, batch: list[int], *cancel: threading.Event) -> bool:
        done = decode(context, batch, *cancel)
        passes.append(len(batch))
        return done

    monkeypatch.setattr(Context, "decode", counted)
    held = load_model(Load(path=str(short), n_ctx=256), lambda _: None, threading.Event())
    room = Room(held, None, lambda _: None, lambda: None)
    session = Session(held, room)
    session.rest(lambda: True)  # such as the length of the chat that the app shows
    assert passes == []
    session.rest(lambda: False)
    session.rest(lambda: False)
    (n_tokens,) = passes
    assert n_tokens > 16
    assert held.context.tokens == []
    session.close()
    room.close()
    held.close()
