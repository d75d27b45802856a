"""Chats with an engine that is resized, cancelled, killed and restarted at any moment.

What it said then is compared with what the same model says in RAM, with each chat from the first
message on and nothing in between.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec

from ondevice.engine import Engine
from ondevice.errors import EngineDied, OndeviceError
from ondevice.messages import (
    Chunk,
    Finished,
    Generate,
    Keep,
    Load,
    Measure,
    Sampling,
    StateKey,
    Turn,
)

WORDS = (Path(__file__).parents[2] / "README.md").read_text("utf-8").split()
_ENGINE = 130_000_000  # bytes of RAM beside the weights
_MOST_TURNS = 5
_EMPTY = Generate(turns=(Turn("user", "."),), max_tokens=1)


class Asked(NamedTuple):
    """A message, and what decides the reply."""

    text: str
    sampling: Sampling
    n_tokens: int


@dataclass
class _Chat:
    name: str
    is_kept: bool
    replies: list[tuple[Asked, str]] = field(default_factory=list)


class RandomLife:
    """``grammar`` keeps the replies of a model that babbles in bytes to letters."""

    def __init__(
        self, path: Path, folder: Path, random: Random, grammar: str | None = None
    ) -> None:
        self._random, self._folder, self._grammar = random, folder, grammar
        self._load = Load(path=str(path), n_ctx=8192, kv_type=random.choice(["f16", "q8_0"]))
        self._size = path.stat().st_size
        self._chats: list[_Chat] = []
        self._said: set[tuple[tuple[Asked, str], ...]] = set()
        self._engine = Engine(folder / "engine.log")
        self._is_killed = False
        self._restart()

    def live(self, n_steps: int) -> None:
        """Do so many things one after the other."""
        steps = [self._say] * 12 + [self._say_otherwise] * 3
        steps += [self._begin, self._begin, self._resize, self._restart, self._look, self._rest]
        self._begin()
        for _ in range(n_steps):
            self._random.choice(steps)()

    def check(self) -> None:
        """Each reply was what the model says."""
        self._engine.close()
        with Engine(self._folder / "engine.log") as engine:
            engine.load(msgspec.structs.replace(self._load, n_threads=1))
            for replies in self._said:
                if any(more != replies == more[: len(replies)] for more in self._said):
                    continue  # it is checked with that one
                for at, (asked, said) in enumerate(replies):
                    events = engine.generate(self._request([*replies[:at]], asked))
                    plain = "".join(event.text for event in events if isinstance(event, Chunk))
                    assert said == plain, (at, asked)
                assert [*engine.generate(_EMPTY)]

    # ------------------------------------------------------------------ what happens

    def _restart(self) -> None:
        random = self._random
        self._engine.close()
        room = random.choice([None, 0.5, 1.6])
        load = msgspec.structs.replace(
            self._load,
            n_threads=random.choice([1, 2]),
            ram=None if room is None else _ENGINE + int(self._size * room),
        )
        self._engine = Engine(self._folder / "engine.log")
        try:
            self._engine.load(load)
        except OndeviceError:  # too little RAM for this model
            self._engine.load(msgspec.structs.replace(load, ram=None))

    def _begin(self) -> None:
        self._chats.append(_Chat(f"chat {len(self._chats)}", self._random.random() < 0.8))

    def _resize(self) -> None:
        sizing = self._engine.sizing
        if sizing is not None:
            least, most = sizing.least_bytes, max(sizing.least_bytes, sizing.most_bytes)
            between = self._random.randint(least, most)
            self._engine.resize(self._random.choice([None, least, between, most]))

    def _look(self) -> None:
        """As at a chat that may go on."""
        chat = self._random.choice(self._chats)
        if chat.replies:
            turns = _turns(chat.replies)
            self._engine.measure(Measure(turns=turns, keep=self._keep(chat)))
        self._rest()

    def _rest(self) -> None:
        time.sleep(self._random.random() / 2)

    def _say(self) -> None:
        random = self._random
        chat = random.choice(self._chats)
        if len(chat.replies) == _MOST_TURNS:
            chat.replies.clear()
        seed = random.randint(0, 99)
        sampling = Sampling(temperature=0.9, seed=seed) if seed % 2 else Sampling(temperature=0)
        start, n = random.randrange(len(WORDS)), random.choice([3, 40, 150])
        self._ask(chat, Asked(" ".join(WORDS[start:][:n]), sampling, random.randint(1, 40)))

    def _say_otherwise(self) -> None:
        """The same again, or something else, in place of an earlier message."""
        chat = self._random.choice(self._chats)
        if chat.replies:
            at = self._random.randrange(len(chat.replies))
            asked, _ = chat.replies[at]
            del chat.replies[at:]
            if self._random.random() < 0.5:
                self._ask(chat, asked)

    def _ask(self, chat: _Chat, asked: Asked) -> None:
        """Until there is a whole reply; the first time, it may be cut short."""
        cut = self._random.choice([None] * 5 + [self._engine.cancel] * 2 + [self._kill])
        said = None
        while said is None:
            said, cut = self._answer(chat, asked, cut), None
        if self._is_killed:  # when it had said all
            with suppress(EngineDied):
                list(self._engine.generate(_EMPTY))
            self._is_killed = False
        chat.replies.append((asked, said))
        self._said.add(tuple(chat.replies))

    def _answer(self, chat: _Chat, asked: Asked, cut: Callable[[], None] | None) -> str | None:
        moments = [self._random.randint(0, asked.n_tokens) for _ in range(3)]
        resizes = self._random.choice([0, 0, 1, 2])
        said = ""
        request = msgspec.structs.replace(self._request(chat.replies, asked), keep=self._keep(chat))
        try:
            for n, event in enumerate(self._engine.generate(request)):
                match event:
                    case Chunk():
                        said += event.text
                    case Finished():
                        return None if event.reason == "cancelled" else said
                if n in moments[:resizes]:
                    self._resize()
                if cut is not None and n >= moments[2]:
                    cut()
        except EngineDied:
            assert self._is_killed
            self._is_killed = False
        return None

    def _kill(self) -> None:
        if self._engine.pid is not None and not self._is_killed:
            os.kill(self._engine.pid, signal.SIGKILL)
            self._is_killed = True

    # ------------------------------------------------------------------ requests

    def _request(self, replies: list[tuple[Asked, str]], asked: Asked) -> Generate:
        return Generate(
            turns=(*_turns(replies), Turn("user", asked.text)),
            sampling=asked.sampling,
            max_tokens=asked.n_tokens,
            grammar=self._grammar,
        )

    def _keep(self, chat: _Chat) -> Keep | None:
        if not chat.is_kept:
            return None
        keys = [StateKey(name, name.encode().ljust(32)) for name in (chat.name, "shared")]
        for key in keys:
            (self._folder / "states" / key.name).mkdir(parents=True, exist_ok=True)
        folder = str(self._folder / "states")
        return Keep(folder=folder, own=keys[0], shared=keys[1], most_bytes=10**9)


def _turns(replies: list[tuple[Asked, str]]) -> tuple[Turn, ...]:
    return tuple(
        turn
        for asked, said in replies
        for turn in (Turn("user", asked.text), Turn("assistant", said))
    )
