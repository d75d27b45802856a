"""How soon a chat goes on: after a restart, in another tab, with a file that was read before.

The chats have about 3,000 tokens and are in a store of their own. Times are from asking to the
first token of the reply; each is compared within one run. A message comes a second after the reply
before it, or after the chat was opened, in which the app has the engine measure it.

- ``resume_ratio``: the reply to a message of about 20 tokens after a restart, compared with the
  same where everything is in RAM; ``resume_cold_ratio``: the same with nothing in the page cache.
- ``resume_vs_reread``: after a restart, without what was kept and with it.
- ``switch_ratio``: four chats in turn compared with one chat that goes on, message and reply.
- ``document_reuse``: share of the tokens of a file of about 2,500 that are not computed again in
  another chat, after a restart.
- ``edit_reuse``: tokens that are computed after the last message was edited, per token of that
  message; of a model with recurrent blocks.
- ``save_ms``: that a message waits longer if it comes right after the reply before.
- ``written_ratio``: bytes written per byte of the KV cache that is new.
- ``identical``: share of the chats whose reply of 200 tokens, chosen greedily, is the same after a
  restart as without one; ``identical_reread``: as when everything is read again.
- ``forgotten_bytes``: in all files, of the chats that were deleted.

``--conversations`` names a file in the format of LoCoMo for what is still known in long chats:
see ``state_long.py``. Needs the folder ONDEVICE_TEST_MODELS. Models with a sliding window and with
recurrent blocks beside those in it are small and random.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import frame
import gguf
import msgspec
import numpy as np
import state_long

from ondevice.chats import Attachment, Chats, reply
from ondevice.engine import Engine
from ondevice.messages import Chunk, Event, Finished, Generate, Load, Measure, Sampling, Statistics
from ondevice.store import Database

sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))

import shapes

MODELS = ("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf")
WINDOWED = "gemma-3-270m-q4_k_m.gguf"
RANDOM = ("sliding window", "state space", "convolution", "delta net")
TEXT = "\n".join(
    (Path(__file__).parent / "texts" / f"{name}.txt").read_text("utf-8")
    for name in ("memory", "readme", "prompt", "python", "c")
)
MESSAGE = "Please say in one short sentence what the part about {} was, as you see it."
GREEDY = Sampling(temperature=0, seed=0)
IDLE_S = 1.0  # in which a reply is kept, and the first one prepared
N_CTX = 6144  # more than is said to any chat


class Brief(Engine):
    """An engine whose replies have ``most_tokens``."""

    most_tokens = 1

    def generate(self, request: Generate) -> Generator[Event, None, None]:
        return super().generate(msgspec.structs.replace(request, max_tokens=self.most_tokens))


class Person:
    """Someone with chats in a store, and a model."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.database = Database(folder / "store.db")
        self.chats = Chats(self.database)
        self.chats.limit_states(10**10)
        self.load = Load(path=str(model), n_ctx=N_CTX)
        self.engine = Brief(folder / "engine.log")
        self.engine.load(self.load)

    def restart(self, chat: int | None = None) -> None:
        """With this chat open."""
        self.engine.close()
        self.engine = Brief(self.database.path.parent / "engine.log")
        self.engine.load(self.load)
        if chat is not None:
            self.open(chat)
        time.sleep(IDLE_S)

    def open(self, chat: int) -> None:
        """As the app does when it shows a chat."""
        turns = self.chats.load(chat).turns()
        self.engine.measure(Measure(turns=turns, grow=False, keep=self.chats.keep(chat)))

    def close(self) -> None:
        self.engine.close()
        self.database.close()

    def ask(
        self, chat: int, tokens: int = 1, after: int | None = None
    ) -> tuple[str, float, Statistics]:
        """The reply to the last message, ms to its first token, and what it took."""
        text, first, statistics = "", 0.0, None
        started = time.perf_counter()
        self.engine.most_tokens = tokens
        for event in reply(self.chats, self.engine, chat, GREEDY, after=after):
            if isinstance(event, Chunk):
                first = first or (time.perf_counter() - started) * 1e3
                text += event.text
            elif isinstance(event, Finished):
                statistics = event.statistics
        assert statistics is not None
        return text, first or statistics.prompt_ms, statistics

    @contextmanager
    def without_states(self) -> Iterator[None]:
        """As if nothing was kept. What is kept stays."""
        kept = self.database.states
        self.database.states = kept.with_suffix(".none")
        try:
            yield
        finally:
            self.database.states = kept

    def say(self, chat: int, text: str, attachments: Sequence[Attachment] = ()) -> None:
        self.chats.say(chat, text, attachments=attachments)

    def chat(self, text: str, attachments: Sequence[Attachment] = ()) -> int:
        """One with this message and its reply, which is kept."""
        number = self.chats.create("You are a helpful assistant.")
        self.say(number, text, attachments)
        self.ask(number, 8)
        time.sleep(IDLE_S)
        return number

    def tokens(self, text: str) -> int:
        return self.engine.measure(Measure(texts=(text,))).texts[0]

    def state_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.database.states.glob("*/*.state"))

    def passage(self, number: int, tokens: int) -> str:
        """Some of the text, of about so many tokens."""
        n_characters = tokens * len(TEXT[:20_000]) // self.tokens(TEXT[:20_000])
        start = number * 977 % max(1, len(TEXT) - n_characters)
        return TEXT[start : start + n_characters]


def measure(quick: bool, conversations: Path | None) -> tuple[frame.Figures, frame.Runs]:
    runs: frame.Runs = []
    for path in frame.models(*MODELS[: 1 if quick else 2]):
        frame.say(path.name)
        with person(path) as someone:
            run = going_on(someone, 3 if quick else 5) | sharing(someone) | forgetting(someone)
        runs.append({"model": path.name, **run})
    measured = [name for run in runs[:1] for name in run if name != "model"]
    figures = {name: frame.mean(run[name] for run in runs) for name in measured}
    with TemporaryDirectory(prefix="ondevice-bench-") as folder:
        models = [*frame.models(MODELS[0], WINDOWED), *random_models(Path(folder))]
        same = []
        for path in models:
            frame.say(path.name)
            with person(path) as someone:
                same.append(restored(someone, 2 if quick else 10))
                if "delta net" in path.name:
                    figures["edit_reuse"] = editing(someone)
            runs.append({"model": path.name, **same[-1]})
    figures["identical"] = frame.mean(each["identical"] for each in same)
    figures["identical_reread"] = frame.mean(each["identical_reread"] for each in same[:2])
    figures |= state_long.measure(conversations, quick)
    return figures, runs


@contextmanager
def person(model: Path) -> Iterator[Person]:
    with TemporaryDirectory(prefix="ondevice-bench-") as folder:
        someone = Person(Path(folder), model)
        try:
            yield someone
        finally:
            someone.close()


def random_models(folder: Path) -> list[Path]:
    random = np.random.default_rng(0)
    kind = gguf.GGMLQuantizationType.Q8_0
    return [shapes.write_random(folder, name, kind, random) for name in RANDOM]


def going_on(someone: Person, rounds: int) -> dict[str, float]:
    before = someone.state_bytes()
    chats = [someone.chat(someone.passage(number, 3000)) for number in range(4)]
    written = someone.state_bytes() - before
    loaded = someone.engine.loaded
    assert loaded is not None
    new = len(chats) * 3020 * loaded.kv_bytes / loaded.n_ctx

    def turn(chat: int, number: int, tokens: int = 1) -> float:
        someone.say(chat, MESSAGE.format(number))
        started = time.perf_counter()
        _, first, _ = someone.ask(chat, tokens)
        return first if tokens == 1 else (time.perf_counter() - started) * 1e3

    in_ram, restarted, cold, read_again, hurried = [], [], [], [], []
    for number in range(rounds):
        turn(chats[0], number)
        hurried.append(turn(chats[0], number + 100))
        time.sleep(IDLE_S)
        in_ram.append(turn(chats[0], number + 200))
        time.sleep(IDLE_S)
        someone.restart(chats[0])
        restarted.append(turn(chats[0], number + 300))
        time.sleep(IDLE_S)
        forget_pages(someone.database.states)
        someone.restart(chats[0])
        cold.append(turn(chats[0], number + 400))
        time.sleep(IDLE_S)
        if number < 2:
            with someone.without_states():
                someone.restart(chats[0])
                read_again.append(turn(chats[0], number + 500))
            someone.restart()  # or it would go on writing there
    one, four = [], []
    for number in range(rounds):
        for chat in chats:  # replies differ by chat, and so does what drafts save
            someone.open(chat)
            time.sleep(IDLE_S / 2)
            four.append(turn(chat, number, 16))
            time.sleep(IDLE_S / 2)
            one.append(turn(chat, number + 50, 16))
    return {
        "resume_ratio": frame.median(restarted) / frame.median(in_ram),
        "resume_cold_ratio": frame.median(cold) / frame.median(in_ram),
        "resume_vs_reread": frame.median(read_again) / frame.median(restarted),
        "switch_ratio": frame.median(four) / frame.median(one),
        "save_ms": max(0.0, frame.median(hurried) - frame.median(in_ram)),
        "written_ratio": written / new,
        "first_token_ms": frame.median(in_ram),
    }


def sharing(someone: Person) -> dict[str, float]:
    file = Attachment("notes.txt", someone.passage(50, 2500))
    someone.chat("What is this about?", [file])
    someone.restart()
    other = someone.chats.create("You are a helpful assistant.")
    someone.say(other, "How many parts does it have?", [file])
    _, _, statistics = someone.ask(other)
    return {"document_reuse": min(1.0, statistics.reused_tokens / someone.tokens(file.content))}


def editing(someone: Person) -> float:
    """The same for a short and a long message."""
    ratios = []
    for tokens in (40, 400):
        chat = someone.chat(someone.passage(3, 1500))
        someone.say(chat, someone.passage(4, tokens))
        someone.ask(chat, 8)
        time.sleep(IDLE_S)
        last = someone.chats.load(chat).messages[-2]
        edited = someone.passage(5, tokens)
        someone.chats.say(chat, edited, instead_of=last.id)
        _, _, took = someone.ask(chat)
        ratios.append((took.prompt_tokens - took.reused_tokens) / someone.tokens(edited))
    return frame.mean(ratios)


def restored(someone: Person, count: int) -> dict[str, float]:
    same, reread = [], []
    for number in range(count):
        chat = someone.chat(someone.passage(number, 400))
        someone.say(chat, MESSAGE.format(number))
        question = someone.chats.load(chat).messages[-1].id

        def again(chat: int = chat, question: int = question) -> str:
            return someone.ask(chat, 200, question)[0]

        going = again()
        someone.restart()
        same.append(again() == going)
        someone.restart()
        with someone.without_states():
            reread.append(again() == going)
    return {"identical": frame.mean(same), "identical_reread": frame.mean(reread)}


def forgetting(someone: Person) -> dict[str, float]:
    """The files are noise without their key; there is neither once a chat is deleted."""
    for heading in someone.chats.headings():
        someone.chats.delete(heading.id)
    keys = someone.database.states.glob("*/*")
    return {"forgotten_bytes": float(sum(path.stat().st_size for path in keys))}


def forget_pages(folder: Path) -> None:
    """Have nothing of these files in the page cache."""
    if hasattr(os, "posix_fadvise"):
        for path in folder.glob("*/*"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    frame.run(__doc__, measure, {"conversations": "file of conversations with questions"})
