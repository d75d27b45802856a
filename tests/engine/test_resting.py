"""What the engine does while nobody waits."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_model

from ondevice import llama
from ondevice.engine._loading import load_model
from ondevice.engine._room import Room
from ondevice.engine._session import Session
from ondevice.llama import Context
from ondevice.messages import Load


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of each pass."""
    llama.start(io.StringIO())
    passes: list[int] = []
    decode = Context.decode

    def counted(context: Context, batch: list[int], *cancel: threading.Event) -> bool:
        done = decode(context, batch, *cancel)
        passes.append(len(batch))
        return done

    monkeypatch.setattr(Context, "decode", counted)
    return passes


@contextlib.contextmanager
def resting(path: Path) -> Iterator[Session]:
    held = load_model(Load(path=str(path), n_ctx=256), lambda _: None, threading.Event())
    room = Room(held, None, lambda _: None, lambda: None)
    session = Session(held, room)
    yield session
    assert held.context.tokens == []
    session.close()
    room.close()
    held.close()


def test_a_reply_is_prepared_even_if_something_was_wanted_right_after_the_load(
    short: Path, passes: list[int]
) -> None:
    with resting(short) as session:
        session.rest(lambda: True)  # such as the length of the chat that the app shows
        assert passes == []
        session.rest(lambda: False)
        session.rest(lambda: False)
        (n_tokens,) = passes
        assert n_tokens > 16


def test_no_reply_is_prepared_by_a_model_that_gives_none(tmp_path: Path, passes: list[int]) -> None:
    """llama.cpp ends the process where an encoder is asked for the next token."""
    encoder = tiny_model.write(tmp_path / "encoder.gguf", architecture="llama-embed")
    with resting(encoder) as session:
        session.rest(lambda: False)
    assert passes == []
